/* The last bytes of an endless stream, by absolute position: what a guest wrote on its console.
 *
 * Any thread; one lock, held for a copy. */
#ifndef SM_DEVICE_RING_H
#define SM_DEVICE_RING_H

#include "base/buf.h"
#include "base/error.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SM_RING_DEFAULT_BYTES (64u << 10)

struct sm_ring {
	pthread_mutex_t lock;
	uint8_t *data;
	size_t capacity;
	uint64_t end; /* bytes ever written */
};

int sm_ring_init(struct sm_ring *ring, size_t capacity, struct sm_error *err); /* capacity 0: the default */
void sm_ring_done(struct sm_ring *ring);                                       /* safe on a zeroed ring and twice */

void sm_ring_write(struct sm_ring *ring, const void *data, size_t len);
uint64_t sm_ring_end(struct sm_ring *ring);
/* As new: the next byte has position 0. */
void sm_ring_clear(struct sm_ring *ring);

/* Append what was written from absolute position *cursor on, and advance it.  What the ring no longer holds is
 * skipped: *ret_lost (may be NULL) bytes.  A cursor past the end is set to the end.  0, or the buffer's failure with
 * the cursor where it was. */
int sm_ring_read(struct sm_ring *ring, uint64_t *cursor, struct sm_buf *out, uint64_t *ret_lost);

/* The last bytes, at most size - 1, with NUL; returns how many. */
size_t sm_ring_tail(struct sm_ring *ring, char *out, size_t size);

/* The last line in the ring that contains `text`, from `text` on, cut to fit, without its line end, with NUL.  False:
 * no such line (out is empty).  `text` is at most 64 bytes. */
bool sm_ring_last_line(struct sm_ring *ring, const char *text, char *out, size_t size);

#endif
