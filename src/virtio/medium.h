/* What a volume's bytes are in: a file, or a file and an overlay of what was written since.  Private to this folder. */
#ifndef SM_VIRTIO_MEDIUM_H
#define SM_VIRTIO_MEDIUM_H

#include "plan/volume.h"
#include "virtio/overlay.h"
#include "virtio/queue.h"

struct sm_medium {
	int fd;         /* our own */
	int overlay_fd; /* likewise; -1: none */
	bool readonly;
	uint64_t bytes;             /* 0: nothing is there */
	struct sm_overlay *overlay; /* NULL: none */
	struct sm_blocks changed;   /* tracked: what was written to since */
	bool tracked;
};

/* `volume` NULL: nothing is there.  -errno; done: whatever came of init. */
int sm_medium_init(struct sm_medium *medium, const struct sm_volume *volume);
void sm_medium_done(struct sm_medium *medium);

/* Disk bytes [offset, offset + bytes), which are inside.  Any threads.  Data goes straight between file and guest
 * memory: to the start of the chain's writable part, and from the readable part's `at` on.  -errno. */
int sm_medium_read(struct sm_medium *medium, const struct sm_chain *chain, uint64_t offset, uint64_t bytes);
int sm_medium_write(struct sm_medium *medium, const struct sm_chain *chain, uint64_t at, uint64_t offset,
                    uint64_t bytes);
/* unmap: the host's blocks may go, too. */
int sm_medium_zero(struct sm_medium *medium, uint64_t offset, uint64_t bytes, bool unmap);
/* A hint: what the blocks hold then is anything.  Parts of blocks stay as they are. */
int sm_medium_discard(struct sm_medium *medium, uint64_t offset, uint64_t bytes);
/* What was written is on the disk.  An overlay lives no longer than its process, so there it is no promise. */
int sm_medium_flush(struct sm_medium *medium);

/* A copy of all that it holds, as it is at one moment, in a file that holds nothing: track, while nothing else uses it;
 * copy, at any time, until *offset has come from 0 to the medium's end; finish, while nothing else uses it again,
 * copies what was written to since.  -errno; untrack: whatever came of it.
 *
 * Where the file system can, the file's blocks are shared.  A copy is of at most about max_bytes. */
int sm_medium_track(struct sm_medium *medium);
void sm_medium_untrack(struct sm_medium *medium);
int sm_medium_copy(const struct sm_medium *medium, int to, uint64_t *offset, uint64_t max_bytes);
int sm_medium_finish(const struct sm_medium *medium, int to, uint64_t *ret_bytes);

/* While nothing else uses it: of an overlay, back to the base. */
int sm_medium_empty(struct sm_medium *medium);

#endif
