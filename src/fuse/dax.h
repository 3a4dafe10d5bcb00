/* Files mapped into the window that the guest sees.  Private to this room. */
#ifndef SM_FUSE_DAX_H
#define SM_FUSE_DAX_H

#include "fuse/node.h"

#define SM_FUSE_GRANULE (2u << 20)

struct sm_fuse_granule {
	struct sm_fuse_node *node; /* counted; NULL: anonymous memory */
	uint64_t offset;           /* in the file */
	uint32_t valid;            /* bytes that the file had here when it was mapped */
	bool writes;
	bool mended; /* zeros of ours, from where the file ended */
};

struct sm_fuse_dax {
	pthread_mutex_t lock;
	size_t count, mapped;
	struct sm_fuse_granule granules[];
};

/* NULL: no window, or none is wanted; *ret_code is -ENOMEM if that is why. */
struct sm_fuse_dax *sm_fuse_dax_new(struct sm_fuse *fuse, int *ret_code);
void sm_fuse_dax_reset(struct sm_fuse *fuse);
void sm_fuse_dax_free(struct sm_fuse *fuse); /* NULL is fine */
/* For load: map that granule as it was; where its file cannot be had, its place is kept and reads as zeros. */
void sm_fuse_dax_restore(struct sm_fuse *fuse, size_t index, struct sm_fuse_node *node, uint64_t offset, bool writes);

#endif
