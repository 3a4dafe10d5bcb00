#include "device/serial8250.h"

#include <errno.h>
#include <linux/serial_reg.h>

#define IER_MASK (UART_IER_RDI | UART_IER_THRI | UART_IER_RLSI | UART_IER_MSI)
#define FCR_MASK (UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_MASK)
#define MCR_MASK (UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT1 | UART_MCR_OUT2 | UART_MCR_LOOP)
#define IIR_FIFO 0xc0 /* FIFOs are on: how a driver tells a 16550A */

/* The transmitter never waits: the ring takes a byte at once. */
#define LSR_IDLE (UART_LSR_THRE | UART_LSR_TEMT)
/* Somebody is at the other end: carrier, and both sides ready. */
#define MSR_IDLE (UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS)

struct port {
	struct sm_serial serial;
	uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
	uint8_t errors;         /* of the line status: an overrun */
	bool thr_empty_pending; /* the "transmitter empty" interrupt was not seen yet */
};

static struct port *port_of(struct sm_serial *serial)
{
	return (struct port *)serial;
}

/* The cause to report, by priority (PC16550D, table IV). */
static uint8_t cause(const struct port *port)
{
	if (port->ier & UART_IER_RLSI && port->errors)
		return UART_IIR_RLSI;
	if (port->ier & UART_IER_RDI && port->serial.fifo.count)
		return UART_IIR_RDI;
	if (port->ier & UART_IER_THRI && port->thr_empty_pending)
		return UART_IIR_THRI;
	return UART_IIR_NO_INT;
}

static bool pending(const struct sm_serial *serial)
{
	return cause((const struct port *)serial) != UART_IIR_NO_INT;
}

static uint8_t read_iir(struct port *port)
{
	uint8_t iir = cause(port);
	if (iir == UART_IIR_THRI)
		port->thr_empty_pending = false;
	return iir | (port->fcr & UART_FCR_ENABLE_FIFO ? IIR_FIFO : 0);
}

static uint8_t line_status(uint8_t errors, unsigned count)
{
	return LSR_IDLE | errors | (count ? UART_LSR_DR : 0);
}

static uint8_t read_lsr(struct port *port)
{
	uint8_t lsr = line_status(port->errors, port->serial.fifo.count);
	port->errors = 0;
	return lsr;
}

/* In loopback the four outputs are the four inputs, which is how a driver knows that a port is there. */
static uint8_t read_msr(const struct port *port)
{
	if (!(port->mcr & UART_MCR_LOOP))
		return MSR_IDLE;
	return (uint8_t)((port->mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) | (port->mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
	                 (port->mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) |
	                 (port->mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0));
}

static uint64_t read_register(struct sm_serial *serial, uint64_t offset)
{
	struct port *port = port_of(serial);
	bool dlab = port->lcr & UART_LCR_DLAB;
	switch (offset) {
	case UART_RX:
		return dlab ? port->dll : sm_serial_pop(serial);
	case UART_IER:
		return dlab ? port->dlm : port->ier;
	case UART_IIR:
		return read_iir(port);
	case UART_LCR:
		return port->lcr;
	case UART_MCR:
		return port->mcr;
	case UART_LSR:
		return read_lsr(port);
	case UART_MSR:
		return read_msr(port);
	case UART_SCR:
		return port->scr;
	default:
		return 0xff;
	}
}

static void transmit(struct port *port, uint8_t byte)
{
	if (!(port->mcr & UART_MCR_LOOP))
		sm_ring_write(port->serial.output, &byte, 1);
	else if (!sm_serial_push(&port->serial, SM_SERIAL_FIFO, byte))
		port->errors = UART_LSR_OE;
	port->thr_empty_pending = true;
}

static void write_ier(struct port *port, uint8_t value)
{
	uint8_t changed = (port->ier ^ value) & IER_MASK;
	port->ier = value & IER_MASK;
	/* Asked to tell when the transmitter is empty: it is. */
	if (changed & UART_IER_THRI)
		port->thr_empty_pending = port->ier & UART_IER_THRI;
}

static void write_fcr(struct port *port, uint8_t value)
{
	/* Turning the FIFOs on or off empties them too. */
	if ((value ^ port->fcr) & UART_FCR_ENABLE_FIFO || value & UART_FCR_CLEAR_RCVR)
		port->serial.fifo.count = 0;
	port->fcr = value & FCR_MASK;
}

static void write_register(struct sm_serial *serial, uint64_t offset, uint64_t wide)
{
	struct port *port = port_of(serial);
	uint8_t value = (uint8_t)wide;
	bool dlab = port->lcr & UART_LCR_DLAB;
	switch (offset) {
	case UART_TX:
		if (dlab)
			port->dll = value;
		else
			transmit(port, value);
		break;
	case UART_IER:
		if (dlab)
			port->dlm = value;
		else
			write_ier(port, value);
		break;
	case UART_FCR:
		write_fcr(port, value);
		break;
	case UART_LCR:
		port->lcr = value;
		break;
	case UART_MCR:
		port->mcr = value & MCR_MASK;
		break;
	case UART_SCR:
		port->scr = value;
		break;
	default: /* line and modem status are read-only */
		break;
	}
}

static bool receive(struct sm_serial *serial, uint8_t byte)
{
	/* In loopback the line from outside is cut off. */
	return !(port_of(serial)->mcr & UART_MCR_LOOP) && sm_serial_push(serial, SM_SERIAL_FIFO, byte);
}

static void save(const struct sm_serial *serial, struct sm_buf *out)
{
	const struct port *port = (const struct port *)serial;
	uint8_t lsr = line_status(port->errors, serial->fifo.count);
	const uint8_t registers[] = {
		port->ier, port->fcr, port->lcr, port->mcr, lsr, port->scr, port->dll, port->dlm,
	};
	sm_put_bytes(out, registers, sizeof registers);
	sm_put_u8(out, port->thr_empty_pending);
	sm_serial_put_fifo(out, serial);
}

static int load(struct sm_serial *serial, struct sm_reader *record, struct sm_error *err)
{
	struct port *port = port_of(serial);
	uint8_t registers[8];
	struct sm_serial_fifo fifo;
	sm_get_exact(record, registers, sizeof registers);
	uint8_t thr_empty_pending = sm_get_u8(record);
	int code = sm_serial_get_fifo(record, SM_SERIAL_FIFO, &fifo, err);
	if (code >= 0)
		code = sm_record_close(record, "serial port", err);
	if (code < 0)
		return code;

	uint8_t ier = registers[0], fcr = registers[1], mcr = registers[3], errors = registers[4] & UART_LSR_OE;
	if (ier & ~IER_MASK || fcr & ~FCR_MASK || mcr & ~MCR_MASK || thr_empty_pending > 1 ||
	    registers[4] != line_status(errors, fifo.count))
		return sm_error_set(err, EBADMSG, "serial port: registers that no port could have");
	port->ier = ier;
	port->fcr = fcr;
	port->lcr = registers[2];
	port->mcr = mcr;
	port->errors = errors;
	port->scr = registers[5];
	port->dll = registers[6];
	port->dlm = registers[7];
	port->thr_empty_pending = thr_empty_pending;
	serial->fifo = fifo;
	return 0;
}

static const struct sm_serial_model model = {
	.tag = SM_TAG('U', 'A', 'R', 'T'),
	.version = 1,
	.read = read_register,
	.write = write_register,
	.receive = receive,
	.pending = pending,
	.save = save,
	.load = load,
};

int sm_serial8250_new(struct sm_ring *output, const struct sm_line *line, struct sm_serial **ret_serial,
                      struct sm_error *err)
{
	struct port *port = sm_serial_alloc(&model, sizeof *port, output, line);
	if (!port)
		return sm_error_set(err, ENOMEM, "serial port: out of memory");
	port->mcr = UART_MCR_OUT2;
	port->lcr = UART_LCR_WLEN8;
	port->dll = 1; /* 115,200 baud, for who asks */
	*ret_serial = &port->serial;
	return 0;
}
