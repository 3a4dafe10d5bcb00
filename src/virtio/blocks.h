/* A set of a disk's blocks of 4 KiB, which any threads add to and look at.  Private to this folder. */
#ifndef SM_VIRTIO_BLOCKS_H
#define SM_VIRTIO_BLOCKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SM_BLOCK 4096u

struct sm_blocks {
	_Atomic uint64_t *bits; /* memory for those parts alone that were added to */
	size_t map_bytes;
};

/* An empty set for a disk of `bytes`.  -ENOMEM.  done: a zeroed one is fine. */
int sm_blocks_init(struct sm_blocks *blocks, uint64_t bytes);
void sm_blocks_done(struct sm_blocks *blocks);
void sm_blocks_clear(struct sm_blocks *blocks); /* while nobody else uses it */

/* Each block that has a byte of [offset, end).  Who finds a block in the set sees what was written before it was added.
 */
void sm_blocks_add(struct sm_blocks *blocks, uint64_t offset, uint64_t end);
bool sm_blocks_has(const struct sm_blocks *blocks, uint64_t offset);
/* How far from `offset` on, up to `end`, blocks are all in the set, or all not: *ret_has. */
uint64_t sm_blocks_run(const struct sm_blocks *blocks, uint64_t offset, uint64_t end, bool *ret_has);

#endif
