/* Threads that serve one device's requests, where these may block (device.h, `serve`).  Private to this folder.
 *
 * Idle ones wait in one epoll for the driver's notifications: the kernel wakes one of them for each, with no other
 * thread in between.  It takes a chain under the device's lock, sees to it that somebody looks for the next one, and
 * serves without the lock.  One more than have ever been inside at once is kept, up to SM_WORKERS_MAX; the loop watches
 * for the first chain, so a device that nobody uses has none. */
#ifndef SM_VIRTIO_WORKERS_H
#define SM_VIRTIO_WORKERS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define SM_WORKERS_MAX 4

struct sm_virtio;

/* Under the device's lock. */
struct sm_workers {
	unsigned nthreads, idle;
	unsigned inside; /* a request: serve, or what comes of it */
	unsigned paused; /* nested: no chain is taken */
	bool stopping;   /* likewise */
	bool reset_due;  /* likewise, until the last of the old driver's requests is over */
	int poll_fd, stop_fd;
	pthread_t threads[SM_WORKERS_MAX];
	pthread_cond_t changed; /* nobody is inside, or a reset was made */
};

/* -errno.  done: every thread has ended. */
int sm_workers_init(struct sm_virtio *device);
void sm_workers_done(struct sm_virtio *device);

/* The rest with the lock held.  wanted: the driver's notification came while the loop still watched for it, and there
 * is a chain.  start: from the loop; -errno when there is no thread at all. */
bool sm_workers_wanted(struct sm_virtio *device);
int sm_workers_start(struct sm_virtio *device);
/* No chain is taken any more; wakes all. */
void sm_workers_stop(struct sm_virtio *device);
/* Return when nobody is inside. */
void sm_workers_pause(struct sm_virtio *device);
void sm_workers_resume(struct sm_virtio *device);
/* Have the device's reset called while nobody is inside: now, or, where a request takes longer than a vCPU may wait, by
 * whoever comes out last. */
void sm_workers_reset(struct sm_virtio *device);

#endif
