/* Copy on write by blocks of 4 KiB: which blocks of a volume are in its overlay, at the same place as in the base.
 * Private to this folder.
 *
 * A block that is there stays there until all is emptied, so whoever finds it there needs no lock.  One comes to be
 * there under its stripe's lock: two requests that write to parts of a block both keep what they wrote. */
#ifndef SM_VIRTIO_OVERLAY_H
#define SM_VIRTIO_OVERLAY_H

#include "virtio/blocks.h"
#include "virtio/queue.h"

#include <pthread.h>

#define SM_OVERLAY_STRIPES 16u
#define SM_OVERLAY_STRIPE  256u /* neighbouring blocks of one stripe */

struct sm_overlay {
	int fd, base_fd; /* borrowed */
	uint64_t bytes;  /* of the disk */
	struct sm_blocks present;
	pthread_mutex_t stripes[SM_OVERLAY_STRIPES];
};

/* The file is empty.  -ENOMEM, or what ftruncate(2) says. */
int sm_overlay_new(int fd, int base_fd, uint64_t bytes, struct sm_overlay **ret_overlay);
void sm_overlay_free(struct sm_overlay *overlay); /* NULL is fine */

/* Between disk bytes [offset, offset + bytes) and the chain's data from `at` on, the writable or the readable part.
 * Any threads; -ENOSPC and the like, and then what was to be written is there in part. */
int sm_overlay_read(struct sm_overlay *overlay, const struct sm_chain *chain, uint64_t at, uint64_t offset,
                    uint64_t bytes);
int sm_overlay_write(struct sm_overlay *overlay, const struct sm_chain *chain, uint64_t at, uint64_t offset,
                     uint64_t bytes);
/* Zeros from now on. */
int sm_overlay_zero(struct sm_overlay *overlay, uint64_t offset, uint64_t bytes);

/* What the disk holds in [offset, end) to a file that holds nothing there: of blocks that are written to meanwhile,
 * what was there before or after. */
int sm_overlay_copy(const struct sm_overlay *overlay, int to, uint64_t offset, uint64_t end);
/* While nothing else uses it: back to the base. */
int sm_overlay_empty(struct sm_overlay *overlay);

#endif
