#include "device/serial8250.h"

#include "base/fd.h"

#include <errno.h>
#include <linux/serial_reg.h>
#include <string.h>

#define STATE_TAG     SM_TAG('U', 'A', 'R', 'T')
#define STATE_VERSION 1

#define IER_MASK (UART_IER_RDI | UART_IER_THRI | UART_IER_RLSI | UART_IER_MSI)
#define FCR_MASK (UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_MASK)
#define MCR_MASK (UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT1 | UART_MCR_OUT2 | UART_MCR_LOOP)
#define IIR_FIFO 0xc0 /* FIFOs are on: how a driver tells a 16550A */

/* The transmitter never waits: the ring takes a byte at once. */
#define LSR_IDLE (UART_LSR_THRE | UART_LSR_TEMT)
/* Somebody is at the other end: carrier, and both sides ready. */
#define MSR_IDLE (UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS)

void sm_serial8250_init(struct sm_serial8250 *serial, struct sm_ring *output, int irq_fd)
{
	*serial = (struct sm_serial8250){
		.output = output,
		.irq_fd = irq_fd,
		.lsr = LSR_IDLE,
		.mcr = UART_MCR_OUT2,
		.lcr = UART_LCR_WLEN8,
		.dll = 1, /* 115,200 baud, for who asks */
	};
	pthread_mutex_init(&serial->lock, NULL);
}

void sm_serial8250_done(struct sm_serial8250 *serial)
{
	pthread_mutex_destroy(&serial->lock);
}

/* The cause to report, by priority (PC16550D, table IV). */
static uint8_t cause(const struct sm_serial8250 *serial)
{
	if (serial->ier & UART_IER_RLSI && serial->lsr & UART_LSR_BRK_ERROR_BITS)
		return UART_IIR_RLSI;
	if (serial->ier & UART_IER_RDI && serial->count)
		return UART_IIR_RDI;
	if (serial->ier & UART_IER_THRI && serial->thr_empty_pending)
		return UART_IIR_THRI;
	return UART_IIR_NO_INT;
}

static void update_line(struct sm_serial8250 *serial)
{
	bool line = cause(serial) != UART_IIR_NO_INT;
	if (line && !serial->line && serial->irq_fd >= 0)
		sm_fd_event_raise(serial->irq_fd);
	serial->line = line;
}

static void clear_fifo(struct sm_serial8250 *serial)
{
	serial->head = serial->count = 0;
	serial->lsr &= (uint8_t)~UART_LSR_DR;
}

static bool push_fifo(struct sm_serial8250 *serial, uint8_t byte)
{
	if (serial->count == SM_SERIAL8250_FIFO)
		return false;
	serial->fifo[(serial->head + serial->count++) % SM_SERIAL8250_FIFO] = byte;
	serial->lsr |= UART_LSR_DR;
	return true;
}

static uint8_t pop_fifo(struct sm_serial8250 *serial)
{
	if (serial->count == 0)
		return 0;
	uint8_t byte = serial->fifo[serial->head];
	serial->head = (serial->head + 1) % SM_SERIAL8250_FIFO;
	if (--serial->count == 0)
		serial->lsr &= (uint8_t)~UART_LSR_DR;
	return byte;
}

static uint8_t read_iir(struct sm_serial8250 *serial)
{
	uint8_t iir = cause(serial);
	if (iir == UART_IIR_THRI)
		serial->thr_empty_pending = false;
	return iir | (serial->fcr & UART_FCR_ENABLE_FIFO ? IIR_FIFO : 0);
}

static uint8_t read_lsr(struct sm_serial8250 *serial)
{
	uint8_t lsr = serial->lsr;
	serial->lsr &= (uint8_t)~UART_LSR_BRK_ERROR_BITS;
	return lsr;
}

/* In loopback the four outputs are the four inputs, which is how a driver knows that a port is there. */
static uint8_t read_msr(const struct sm_serial8250 *serial)
{
	if (!(serial->mcr & UART_MCR_LOOP))
		return MSR_IDLE;
	return (uint8_t)((serial->mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) |
	                 (serial->mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
	                 (serial->mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) |
	                 (serial->mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0));
}

static uint8_t read_register(struct sm_serial8250 *serial, uint64_t offset)
{
	bool dlab = serial->lcr & UART_LCR_DLAB;
	switch (offset) {
	case UART_RX:
		return dlab ? serial->dll : pop_fifo(serial);
	case UART_IER:
		return dlab ? serial->dlm : serial->ier;
	case UART_IIR:
		return read_iir(serial);
	case UART_LCR:
		return serial->lcr;
	case UART_MCR:
		return serial->mcr;
	case UART_LSR:
		return read_lsr(serial);
	case UART_MSR:
		return read_msr(serial);
	case UART_SCR:
		return serial->scr;
	default:
		return 0xff;
	}
}

static void transmit(struct sm_serial8250 *serial, uint8_t byte)
{
	if (!(serial->mcr & UART_MCR_LOOP))
		sm_ring_write(serial->output, &byte, 1);
	else if (!push_fifo(serial, byte))
		serial->lsr |= UART_LSR_OE;
	serial->thr_empty_pending = true;
}

static void write_ier(struct sm_serial8250 *serial, uint8_t value)
{
	uint8_t changed = (serial->ier ^ value) & IER_MASK;
	serial->ier = value & IER_MASK;
	/* Asked to tell when the transmitter is empty: it is. */
	if (changed & UART_IER_THRI)
		serial->thr_empty_pending = serial->ier & UART_IER_THRI;
}

static void write_fcr(struct sm_serial8250 *serial, uint8_t value)
{
	/* Turning the FIFOs on or off empties them too. */
	if ((value ^ serial->fcr) & UART_FCR_ENABLE_FIFO || value & UART_FCR_CLEAR_RCVR)
		clear_fifo(serial);
	serial->fcr = value & FCR_MASK;
}

static void write_register(struct sm_serial8250 *serial, uint64_t offset, uint8_t value)
{
	bool dlab = serial->lcr & UART_LCR_DLAB;
	switch (offset) {
	case UART_TX:
		if (dlab)
			serial->dll = value;
		else
			transmit(serial, value);
		break;
	case UART_IER:
		if (dlab)
			serial->dlm = value;
		else
			write_ier(serial, value);
		break;
	case UART_FCR:
		write_fcr(serial, value);
		break;
	case UART_LCR:
		serial->lcr = value;
		break;
	case UART_MCR:
		serial->mcr = value & MCR_MASK;
		break;
	case UART_SCR:
		serial->scr = value;
		break;
	default: /* line and modem status are read-only */
		break;
	}
}

uint64_t sm_serial8250_read(struct sm_serial8250 *serial, uint64_t offset, unsigned size)
{
	(void)size;
	pthread_mutex_lock(&serial->lock);
	uint8_t value = read_register(serial, offset);
	update_line(serial);
	pthread_mutex_unlock(&serial->lock);
	return value;
}

void sm_serial8250_write(struct sm_serial8250 *serial, uint64_t offset, unsigned size, uint64_t value)
{
	(void)size;
	pthread_mutex_lock(&serial->lock);
	write_register(serial, offset, (uint8_t)value);
	update_line(serial);
	pthread_mutex_unlock(&serial->lock);
}

size_t sm_serial8250_input(struct sm_serial8250 *serial, const void *data, size_t len)
{
	const uint8_t *bytes = data;
	size_t taken = 0;
	pthread_mutex_lock(&serial->lock);
	/* In loopback the line from outside is cut off. */
	if (!(serial->mcr & UART_MCR_LOOP))
		while (taken < len && push_fifo(serial, bytes[taken]))
			taken++;
	update_line(serial);
	pthread_mutex_unlock(&serial->lock);
	return taken;
}

void sm_serial8250_save(struct sm_serial8250 *serial, struct sm_buf *out)
{
	pthread_mutex_lock(&serial->lock);
	size_t record = sm_record_begin(out, STATE_TAG, STATE_VERSION);
	const uint8_t registers[] = { serial->ier, serial->fcr, serial->lcr, serial->mcr,
		                      serial->lsr, serial->scr, serial->dll, serial->dlm };
	sm_put_bytes(out, registers, sizeof registers);
	sm_put_u8(out, serial->thr_empty_pending);
	sm_put_u32(out, serial->count);
	for (unsigned i = 0; i < serial->count; i++)
		sm_put_u8(out, serial->fifo[(serial->head + i) % SM_SERIAL8250_FIFO]);
	sm_record_end(out, record);
	pthread_mutex_unlock(&serial->lock);
}

/* Everything into a copy first, so that a bad record changes nothing. */
static int load_copy(struct sm_reader *record, struct sm_serial8250 *copy, struct sm_error *err)
{
	uint8_t registers[8];
	sm_get_exact(record, registers, sizeof registers);
	uint8_t pending = sm_get_u8(record);
	uint32_t count = sm_get_u32(record);
	if (count > SM_SERIAL8250_FIFO)
		return sm_error_set(err, EBADMSG, "serial port: %u bytes in a FIFO of %d", count, SM_SERIAL8250_FIFO);
	for (uint32_t i = 0; i < count; i++)
		copy->fifo[i] = sm_get_u8(record);
	int code = sm_record_close(record, "serial port", err);
	if (code < 0)
		return code;

	copy->ier = registers[0];
	copy->fcr = registers[1];
	copy->lcr = registers[2];
	copy->mcr = registers[3];
	copy->lsr = registers[4];
	copy->scr = registers[5];
	copy->dll = registers[6];
	copy->dlm = registers[7];
	copy->thr_empty_pending = pending;
	copy->head = 0;
	copy->count = count;
	uint8_t lsr = LSR_IDLE | (count ? UART_LSR_DR : 0);
	if (copy->ier & ~IER_MASK || copy->fcr & ~FCR_MASK || copy->mcr & ~MCR_MASK || pending > 1 ||
	    (copy->lsr & ~UART_LSR_OE) != lsr)
		return sm_error_set(err, EBADMSG, "serial port: registers that no port could have");
	return 0;
}

int sm_serial8250_load(struct sm_serial8250 *serial, struct sm_reader *in, struct sm_error *err)
{
	struct sm_reader record;
	int code = sm_record_open(in, STATE_TAG, STATE_VERSION, "serial port", &record, err);
	if (code < 0)
		return code;
	struct sm_serial8250 copy = { 0 };
	code = load_copy(&record, &copy, err);
	if (code < 0)
		return code;

	pthread_mutex_lock(&serial->lock);
	serial->ier = copy.ier;
	serial->fcr = copy.fcr;
	serial->lcr = copy.lcr;
	serial->mcr = copy.mcr;
	serial->lsr = copy.lsr;
	serial->scr = copy.scr;
	serial->dll = copy.dll;
	serial->dlm = copy.dlm;
	serial->thr_empty_pending = copy.thr_empty_pending;
	serial->head = 0;
	serial->count = copy.count;
	memcpy(serial->fifo, copy.fifo, sizeof serial->fifo);
	serial->line = cause(serial) != UART_IIR_NO_INT; /* not raised yet: see restored */
	pthread_mutex_unlock(&serial->lock);
	return 0;
}

void sm_serial8250_restored(struct sm_serial8250 *serial)
{
	pthread_mutex_lock(&serial->lock);
	if (serial->line && serial->irq_fd >= 0)
		sm_fd_event_raise(serial->irq_fd);
	pthread_mutex_unlock(&serial->lock);
}
