/* A serial port without its registers: where output goes, input that waits, one interrupt line, state as a record.
 *
 * Output goes to a ring at once; input waits in a FIFO.  Interrupts are edges: one on its line whenever a cause
 * appears while none was pending.  Any thread. */
#ifndef SM_DEVICE_SERIAL_H
#define SM_DEVICE_SERIAL_H

#include "base/codec.h"
#include "base/error.h"
#include "base/line.h"
#include "device/ring.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SM_SERIAL_FIFO 64 /* most bytes of input that a model lets wait */

struct sm_serial;

/* A chip's registers.  All are called with the lock held. */
struct sm_serial_model {
	uint32_t tag; /* of its record */
	uint16_t version;
	uint64_t (*read)(struct sm_serial *serial, uint64_t offset);
	void (*write)(struct sm_serial *serial, uint64_t offset, uint64_t value);
	/* A byte from outside; false: not now. */
	bool (*receive)(struct sm_serial *serial, uint8_t byte);
	/* Whether a cause for an interrupt is there and not masked. */
	bool (*pending)(const struct sm_serial *serial);
	void (*save)(const struct sm_serial *serial, struct sm_buf *out);
	/* All of the record, or nothing is changed. */
	int (*load)(struct sm_serial *serial, struct sm_reader *record, struct sm_error *err);
};

struct sm_serial_fifo {
	unsigned head, count;
	uint8_t bytes[SM_SERIAL_FIFO];
};

/* A model's own structure begins with it. */
struct sm_serial {
	const struct sm_serial_model *model;
	pthread_mutex_t lock;
	struct sm_ring *output; /* borrowed */
	struct sm_line line;
	bool level; /* of the interrupt: edges are made from it */
	struct sm_serial_fifo fifo;
};

/* Any model's `new`, and this. */
void sm_serial_free(struct sm_serial *serial); /* NULL is fine */

/* Guest access.  An access wider than the register is served as the register at `offset`. */
uint64_t sm_serial_read(struct sm_serial *serial, uint64_t offset, unsigned size);
void sm_serial_write(struct sm_serial *serial, uint64_t offset, unsigned size, uint64_t value);

/* Type at the guest: returns how many bytes were taken. */
size_t sm_serial_input(struct sm_serial *serial, const void *data, size_t len);

/* Registers and FIFO as a record; the ring is not part of it.  load: -EBADMSG for what no port could have saved. */
void sm_serial_save(struct sm_serial *serial, struct sm_buf *out);
int sm_serial_load(struct sm_serial *serial, struct sm_reader *in, struct sm_error *err);
/* After a restore, when the interrupt controller has its state: a pending interrupt is raised again. */
void sm_serial_restored(struct sm_serial *serial);

/* For models: `size` bytes, zeroed, that begin with a struct sm_serial.  NULL: out of memory. */
void *sm_serial_alloc(const struct sm_serial_model *model, size_t size, struct sm_ring *output,
                      const struct sm_line *line);
/* push: false when there are `capacity` bytes already.  pop: 0 when there is none. */
bool sm_serial_push(struct sm_serial *serial, unsigned capacity, uint8_t byte);
uint8_t sm_serial_pop(struct sm_serial *serial);
/* In a record: count u32, bytes.  get: -EBADMSG for more than `capacity`. */
void sm_serial_put_fifo(struct sm_buf *out, const struct sm_serial *serial);
int sm_serial_get_fifo(struct sm_reader *record, unsigned capacity, struct sm_serial_fifo *ret_fifo,
                       struct sm_error *err);

#endif
