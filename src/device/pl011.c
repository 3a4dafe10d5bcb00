#include "device/pl011.h"

#include <errno.h>

/* Registers by offset (ARM DDI 0183, table 3-1). */
#define DR  0x000
#define ECR 0x004 /* read: RSR */
#define FR  0x018
#define MIS 0x040
#define ICR 0x044
#define ID  0xfe0 /* eight, a byte each: PeriphID0 to 3, PCellID0 to 3 */

#define DR_OE 0x800

#define RSR_OE 0x8

#define FR_CTS  0x001
#define FR_DSR  0x002
#define FR_DCD  0x004
#define FR_RXFE 0x010
#define FR_RXFF 0x040
#define FR_TXFE 0x080
#define FR_RI   0x100

#define LCR_H_FEN 0x10

#define CR_UARTEN 0x0001
#define CR_LBE    0x0080
#define CR_TXE    0x0100
#define CR_RXE    0x0200
#define CR_DTR    0x0400
#define CR_RTS    0x0800
#define CR_OUT1   0x1000
#define CR_OUT2   0x2000

#define INT_RI    0x001
#define INT_CTS   0x002
#define INT_DCD   0x004
#define INT_DSR   0x008
#define INT_MODEM 0x00f
#define INT_RX    0x010
#define INT_TX    0x020
#define INT_RT    0x040
#define INT_OE    0x400

/* What is stored, with the bits that it can have. */
enum { RSR, ILPR, IBRD, FBRD, LCR_H, CR, IFLS, IMSC, RIS, DMACR, REGISTERS };
static const struct {
	uint16_t offset, mask, reset;
	bool writable;
} table[REGISTERS] = {
	[RSR] = { ECR, RSR_OE, 0, false },
	[ILPR] = { 0x020, 0xff, 0, true },
	[IBRD] = { 0x024, 0xffff, 0, true },
	[FBRD] = { 0x028, 0x3f, 0, true },
	[LCR_H] = { 0x02c, 0xff, 0, true },
	[CR] = { 0x030, 0xff87, CR_TXE | CR_RXE, true },
	[IFLS] = { 0x034, 0x3f, 0x12, true },
	[IMSC] = { 0x038, 0x7ff, 0, true },
	[RIS] = { 0x03c, INT_MODEM | INT_RX | INT_TX | INT_RT | INT_OE, 0, false },
	[DMACR] = { 0x048, 0x7, 0, true },
};

static const uint8_t id[8] = { 0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1 };

struct port {
	struct sm_serial serial;
	uint16_t registers[REGISTERS];
	bool overrun; /* since the last byte that was read */
};

static struct port *port_of(struct sm_serial *serial)
{
	return (struct port *)serial;
}

static bool pending(const struct sm_serial *serial)
{
	const struct port *port = (const struct port *)serial;
	return port->registers[RIS] & port->registers[IMSC];
}

/* ---- the receiver ------------------------------------------------------------------------------------------- */

static unsigned capacity(const uint16_t registers[REGISTERS])
{
	return registers[LCR_H] & LCR_H_FEN ? 16 : 1;
}

/* How many bytes make a receive interrupt: 1/8, 1/4, 1/2, 3/4 or 7/8 of the FIFO. */
static unsigned trigger(const uint16_t registers[REGISTERS])
{
	static const uint8_t levels[8] = { 2, 4, 8, 12, 14, 14, 14, 14 };
	return registers[LCR_H] & LCR_H_FEN ? levels[registers[IFLS] >> 3 & 7] : 1;
}

static bool push(struct port *port, uint8_t byte)
{
	if (!sm_serial_push(&port->serial, capacity(port->registers), byte))
		return false;
	if (port->serial.fifo.count >= trigger(port->registers))
		port->registers[RIS] |= INT_RX;
	if (port->registers[LCR_H] & LCR_H_FEN)
		port->registers[RIS] |= INT_RT;
	return true;
}

/* Fewer bytes than before: their interrupts go with them. */
static void settle(struct port *port)
{
	if (port->serial.fifo.count < trigger(port->registers))
		port->registers[RIS] &= (uint16_t)~INT_RX;
	if (port->serial.fifo.count == 0)
		port->registers[RIS] &= (uint16_t)~INT_RT;
}

static uint16_t read_data(struct port *port)
{
	uint16_t data = sm_serial_pop(&port->serial) | (port->overrun ? DR_OE : 0);
	port->overrun = false;
	settle(port);
	return data;
}

static bool receiving(const struct port *port)
{
	return (port->registers[CR] & (CR_UARTEN | CR_RXE)) == (CR_UARTEN | CR_RXE);
}

static bool receive(struct sm_serial *serial, uint8_t byte)
{
	struct port *port = port_of(serial);
	/* In loopback the line from outside is cut off. */
	return receiving(port) && !(port->registers[CR] & CR_LBE) && push(port, byte);
}

/* ---- registers ---------------------------------------------------------------------------------------------- */

/* In loopback the four outputs are the four inputs; else somebody is at the other end: carrier, both sides ready. */
static uint16_t modem_inputs(uint16_t cr)
{
	if (!(cr & CR_LBE))
		return FR_CTS | FR_DSR | FR_DCD;
	return (uint16_t)((cr & CR_RTS ? FR_CTS : 0) | (cr & CR_DTR ? FR_DSR : 0) | (cr & CR_OUT1 ? FR_DCD : 0) |
	                  (cr & CR_OUT2 ? FR_RI : 0));
}

static uint16_t read_flags(const struct port *port)
{
	unsigned count = port->serial.fifo.count;
	return (uint16_t)(FR_TXFE | modem_inputs(port->registers[CR]) | (count ? 0 : FR_RXFE) |
	                  (count == capacity(port->registers) ? FR_RXFF : 0));
}

static uint64_t read_register(struct sm_serial *serial, uint64_t offset)
{
	struct port *port = port_of(serial);
	switch (offset) {
	case DR:
		return read_data(port);
	case FR:
		return read_flags(port);
	case MIS:
		return port->registers[RIS] & port->registers[IMSC];
	}
	for (unsigned i = 0; i < REGISTERS; i++)
		if (table[i].offset == offset)
			return port->registers[i];
	return offset >= ID && offset % 4 == 0 && (offset - ID) / 4 < sizeof id ? id[(offset - ID) / 4] : 0;
}

/* A port that was never enabled sends too: a kernel's first words come before its driver. */
static void transmit(struct port *port, uint8_t byte)
{
	if (!(port->registers[CR] & CR_LBE)) {
		sm_ring_write(port->serial.output, &byte, 1);
	} else if (receiving(port) && !push(port, byte)) {
		port->overrun = true;
		port->registers[RSR] |= RSR_OE;
		port->registers[RIS] |= INT_OE;
	}
	port->registers[RIS] |= INT_TX;
}

static void write_cr(struct port *port, uint16_t value)
{
	uint16_t changed = modem_inputs(port->registers[CR]) ^ modem_inputs(value);
	port->registers[CR] = value;
	port->registers[RIS] |= (uint16_t)((changed & FR_CTS ? INT_CTS : 0) | (changed & FR_DSR ? INT_DSR : 0) |
	                                   (changed & FR_DCD ? INT_DCD : 0) | (changed & FR_RI ? INT_RI : 0));
}

static void write_lcr_h(struct port *port, uint16_t value)
{
	bool fifo_changed = (port->registers[LCR_H] ^ value) & LCR_H_FEN;
	port->registers[LCR_H] = value;
	/* Turning the FIFO on or off empties it. */
	if (fifo_changed) {
		port->serial.fifo.count = 0;
		port->overrun = false;
		settle(port);
	}
}

static void write_register(struct sm_serial *serial, uint64_t offset, uint64_t value)
{
	struct port *port = port_of(serial);
	switch (offset) {
	case DR:
		transmit(port, (uint8_t)value);
		return;
	case ECR: /* of any value */
		port->registers[RSR] = 0;
		return;
	case ICR:
		port->registers[RIS] &= (uint16_t)~value;
		return;
	}
	for (unsigned i = 0; i < REGISTERS; i++) {
		if (table[i].offset != offset || !table[i].writable)
			continue;
		uint16_t bits = (uint16_t)value & table[i].mask;
		if (i == CR)
			write_cr(port, bits);
		else if (i == LCR_H)
			write_lcr_h(port, bits);
		else
			port->registers[i] = bits;
	}
}

/* ---- state -------------------------------------------------------------------------------------------------- */

static void save(const struct sm_serial *serial, struct sm_buf *out)
{
	const struct port *port = (const struct port *)serial;
	for (unsigned i = 0; i < REGISTERS; i++)
		sm_put_u16(out, port->registers[i]);
	sm_put_u8(out, port->overrun);
	sm_serial_put_fifo(out, serial);
}

static int load(struct sm_serial *serial, struct sm_reader *record, struct sm_error *err)
{
	struct port *port = port_of(serial);
	uint16_t registers[REGISTERS];
	struct sm_serial_fifo fifo;
	bool sound = true;
	for (unsigned i = 0; i < REGISTERS; i++) {
		registers[i] = sm_get_u16(record);
		sound = sound && !(registers[i] & ~table[i].mask);
	}
	uint8_t overrun = sm_get_u8(record);
	int code = sm_serial_get_fifo(record, capacity(registers), &fifo, err);
	if (code >= 0)
		code = sm_record_close(record, "serial port", err);
	if (code < 0)
		return code;
	if (!sound || overrun > 1 || (overrun && fifo.count < capacity(registers)) ||
	    (registers[RIS] & (INT_RX | INT_RT) && fifo.count == 0))
		return sm_error_set(err, EBADMSG, "serial port: registers that no port could have");
	for (unsigned i = 0; i < REGISTERS; i++)
		port->registers[i] = registers[i];
	port->overrun = overrun;
	serial->fifo = fifo;
	return 0;
}

static const struct sm_serial_model model = {
	.tag = SM_TAG('P', 'L', '1', '1'),
	.version = 1,
	.read = read_register,
	.write = write_register,
	.receive = receive,
	.pending = pending,
	.save = save,
	.load = load,
};

int sm_pl011_new(struct sm_ring *output, const struct sm_line *line, struct sm_serial **ret_serial,
                 struct sm_error *err)
{
	struct port *port = sm_serial_alloc(&model, sizeof *port, output, line);
	if (!port)
		return sm_error_set(err, ENOMEM, "serial port: out of memory");
	for (unsigned i = 0; i < REGISTERS; i++)
		port->registers[i] = table[i].reset;
	*ret_serial = &port->serial;
	return 0;
}
