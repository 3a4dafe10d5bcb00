/* What the guest has open.  A handle's ID is its slot and how often that was used, so old and forged ones are known.
 * Private to this room. */
#ifndef SM_FUSE_HANDLE_H
#define SM_FUSE_HANDLE_H

#include "fuse/node.h"

struct sm_fuse_handle {
	uint64_t id;
	struct sm_fuse_node *node; /* counted */
	bool folder;
	bool listed; /* in the table; it ends when it is not, and nobody uses it */
	uint32_t refs;
	uint32_t flags;       /* of open(2), as they are used on the host */
	uint32_t flock;       /* a BSD lock of the host's: F_RDLCK, F_WRLCK, F_UNLCK */
	int fd;               /* -1: loaded, not opened since */
	pthread_mutex_t lock; /* a folder's place is one; opening late is once */
	int64_t at;           /* a folder's place as the host knows it; -1: unknown, -2: never read */
};

struct sm_fuse_handles {
	pthread_mutex_t lock;
	struct sm_fuse_handle **slots;
	uint32_t *uses; /* of each slot */
	uint32_t *free; /* a stack of slots */
	size_t nslots, nfree, max, count;
};

int sm_fuse_handles_init(struct sm_fuse *fuse, size_t max);
void sm_fuse_handles_done(struct sm_fuse *fuse);
void sm_fuse_handles_reset(struct sm_fuse *fuse);

/* Takes fd in any case.  -ENFILE: too many. */
int sm_fuse_handle_new(struct sm_fuse *fuse, struct sm_fuse_node *node, int fd, uint32_t flags, bool folder,
                       uint64_t *ret_id);
/* To be put back.  -EBADF, counted as hostile: not open, of another node, or no file (folder).  Opens what was not
 * opened since it was loaded: -ESTALE. */
int sm_fuse_handle_get(struct sm_fuse *fuse, uint64_t id, uint64_t node, bool folder, struct sm_fuse_handle **ret);
void sm_fuse_handle_put(struct sm_fuse *fuse, struct sm_fuse_handle *handle); /* NULL is fine */
int sm_fuse_handle_close(struct sm_fuse *fuse, uint64_t id, uint64_t node, bool folder);
/* For load: as it was saved, not opened. */
int sm_fuse_handle_restore(struct sm_fuse *fuse, uint64_t id, struct sm_fuse_node *node, uint32_t flags, uint32_t flock,
                           bool folder);
void sm_fuse_handles_relist(struct sm_fuse *fuse); /* after the last of them */

#endif
