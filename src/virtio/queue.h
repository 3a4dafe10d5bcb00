/* The device's side of a split virtqueue (virtio 1.2, section 2.7) in hostile guest memory.
 *
 * Every descriptor is copied once and then checked; a chain has at most as many descriptors as the queue, so a
 * loop ends.  Callers hold the device's lock. */
#ifndef SM_VIRTIO_QUEUE_H
#define SM_VIRTIO_QUEUE_H

#include "memory/memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define SM_QUEUE_NUM_MAX 256

/* Rings and device structures are little-endian, and so are both architectures. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "guest structures are used in place");

/* A descriptor chain: device-readable parts first, then device-writable ones.  Popping checks that each part is in RAM
 * or in a window, whose memory is for system calls and the functions below alone (memory/memory.h).  Writable pages are
 * marked dirty only when sm_chain_write or sm_chain_slice takes them, because a driver may offer far more than is used.
 */
struct sm_chain {
	struct sm_memory *memory;
	uint16_t head;
	unsigned nread;  /* iov[0] .. iov[nread - 1] */
	unsigned nwrite; /* iov[nread] .. iov[nread + nwrite - 1] */
	uint64_t read_bytes;
	uint64_t write_bytes;
	bool windows; /* some of it is in a window */
	struct iovec iov[SM_QUEUE_NUM_MAX];
	uint64_t gpa[SM_QUEUE_NUM_MAX]; /* of each part */
};

struct sm_queue {
	struct sm_memory *memory;
	/* Set by the driver while the queue is not ready. */
	uint16_t num;
	uint64_t desc, avail, used; /* guest physical addresses */
	bool ready;
	uint64_t generation; /* of the ring: goes up with each reset */
	/* Negotiated. */
	bool event_idx;
	bool indirect;
	/* Ring positions, free-running. */
	uint16_t next_avail; /* the next entry to take */
	uint16_t next_used;  /* the next entry to fill */
	uint16_t signalled;  /* next_used when an interrupt was last considered */
	/* While ready.  The used ring is looked up at each write, which marks it dirty. */
	const uint8_t *desc_at;
	const uint16_t *avail_at; /* flags, idx, ring[num], used_event */
};

/* Check size and addresses and make the queue ready.  -EINVAL for a bad size or alignment, -EFAULT for a ring that
 * is not in RAM. */
int sm_queue_start(struct sm_queue *queue);
/* Back to the state after reset. */
void sm_queue_reset(struct sm_queue *queue);

/* Take the next chain: 1; 0 when there is none, and then the driver will notify of the next one.
 * -EPROTO or -EFAULT when the driver broke the ring. */
int sm_queue_pop(struct sm_queue *queue, struct sm_chain *ret_chain);
/* The chain at `head` as the ring has it, which was popped before and not returned: 0, -EPROTO, -EFAULT. */
int sm_queue_again(struct sm_queue *queue, uint16_t head, struct sm_chain *ret_chain);
/* Give back the chain that was popped last. */
void sm_queue_undo(struct sm_queue *queue);
/* Return a chain with `written` bytes in its writable part.  -EFAULT cannot happen on a queue that started. */
int sm_queue_push(struct sm_queue *queue, uint16_t head, uint32_t written);
/* Whether the driver wants an interrupt for what was pushed since the last call. */
bool sm_queue_wants_interrupt(struct sm_queue *queue);
/* Have the driver notify of its next buffer; returns the available index that it has reached. */
uint16_t sm_queue_arm(struct sm_queue *queue);

/* Copy out of the readable, into the writable part at `offset`, or make that zero.  Returns the bytes done, fewer at
 * the end, or where a window has nothing. */
size_t sm_chain_read(const struct sm_chain *chain, uint64_t offset, void *data, size_t len);
size_t sm_chain_write(const struct sm_chain *chain, uint64_t offset, const void *data, size_t len);
size_t sm_chain_zero(const struct sm_chain *chain, uint64_t offset, size_t len);
/* [offset, offset + len) of the readable or writable part, which is about to be written, as an iovec; returns its
 * length. */
unsigned sm_chain_slice(const struct sm_chain *chain, bool write, uint64_t offset, uint64_t len,
                        struct iovec ret_iov[SM_QUEUE_NUM_MAX]);

#endif
