/* Requests of the file system device that wait for a lock: kept until the file server has a reply.  Private to this
 * folder.
 *
 * The list has a lock of its own, because replies come from threads of the server, which may hold what a reset under
 * the device's lock waits for.  A reply is put down there, and the driver gets it from a thread of the device. */
#ifndef SM_VIRTIO_FS_WAIT_H
#define SM_VIRTIO_FS_WAIT_H

#include "virtio/device.h"

struct sm_fs_kept;
struct sm_fs_waiting {
	pthread_mutex_t lock;
	atomic_uint count; /* written with the lock held */
	struct sm_fs_kept *first;
};

void sm_fs_waiting_init(struct sm_fs_waiting *waiting);
void sm_fs_waiting_done(struct sm_fs_waiting *waiting); /* drops */

/* About to be served; NULL: there are as many as there may be, or no memory. */
struct sm_fs_kept *sm_fs_keep(struct sm_fs_waiting *waiting, struct sm_virtio *device, unsigned queue,
                              const struct sm_chain *chain);
/* It had its reply at once. */
void sm_fs_unkeep(struct sm_fs_waiting *waiting, struct sm_fs_kept *kept);
/* Its reply; any thread. */
void sm_fs_reply(struct sm_fs_waiting *waiting, struct sm_fs_kept *kept, const void *reply, size_t len);

/* All that follow with the device's lock held.  complete: give the driver what has its reply. */
void sm_fs_complete(struct sm_fs_waiting *waiting, struct sm_virtio *device);
/* Forget all; nobody serves one, and no reply comes any more. */
void sm_fs_drop(struct sm_fs_waiting *waiting);
/* While the server is paused, after complete: what waits, by its place in the ring.  load reads it from there again. */
void sm_fs_waiting_save(struct sm_fs_waiting *waiting, const struct sm_virtio *device, struct sm_buf *out);
int sm_fs_waiting_load(struct sm_fs_waiting *waiting, struct sm_virtio *device, struct sm_reader *in,
                       struct sm_error *err);
/* One that was loaded and not served since: it is off the list then.  ret_chain NULL: is there one? */
bool sm_fs_again(struct sm_fs_waiting *waiting, struct sm_chain *ret_chain, unsigned *ret_queue);

#endif
