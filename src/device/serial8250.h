/* A 16550A serial port (National Semiconductor PC16550D), as much of it as a console needs.
 *
 * What the guest writes goes to a ring at once, so the transmitter is always empty; input waits in a FIFO.
 * Interrupts are edges: one write to irq_fd whenever a cause appears while none was pending.  Any thread. */
#ifndef SM_DEVICE_SERIAL8250_H
#define SM_DEVICE_SERIAL8250_H

#include "base/codec.h"
#include "base/error.h"
#include "device/ring.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SM_SERIAL8250_PORTS 8  /* registers, one byte each */
#define SM_SERIAL8250_FIFO  64 /* bytes of input that can wait */

struct sm_serial8250 {
	pthread_mutex_t lock;
	struct sm_ring *output; /* borrowed */
	int irq_fd;             /* borrowed eventfd, or -1: no interrupts */
	uint8_t ier, fcr, lcr, mcr, lsr, scr, dll, dlm;
	bool thr_empty_pending; /* the "transmitter empty" interrupt was not seen yet */
	bool line;              /* the interrupt's level */
	unsigned head, count;   /* of the FIFO */
	uint8_t fifo[SM_SERIAL8250_FIFO];
};

void sm_serial8250_init(struct sm_serial8250 *serial, struct sm_ring *output, int irq_fd);
void sm_serial8250_done(struct sm_serial8250 *serial);

/* Guest access: offset 0 to 7.  Wider accesses than a byte are served as the byte at `offset`. */
uint64_t sm_serial8250_read(struct sm_serial8250 *serial, uint64_t offset, unsigned size);
void sm_serial8250_write(struct sm_serial8250 *serial, uint64_t offset, unsigned size, uint64_t value);

/* Type at the guest: returns how many bytes the FIFO took. */
size_t sm_serial8250_input(struct sm_serial8250 *serial, const void *data, size_t len);

/* Registers and FIFO as a record; the ring is not part of it.  load: -EBADMSG for what no port could have saved. */
void sm_serial8250_save(struct sm_serial8250 *serial, struct sm_buf *out);
int sm_serial8250_load(struct sm_serial8250 *serial, struct sm_reader *in, struct sm_error *err);
/* After a restore, when the interrupt controller has its state: a pending interrupt is raised again. */
void sm_serial8250_restored(struct sm_serial8250 *serial);

#endif
