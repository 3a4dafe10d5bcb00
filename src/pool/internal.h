/* A pool inside.  Private to this room. */
#ifndef SM_POOL_INTERNAL_H
#define SM_POOL_INTERNAL_H

#include "pool/pool.h"

#include <pthread.h>
#include <sys/queue.h>

#define SM_POOL_THREADS_MAX 8
#define SM_POOL_SAMPLES     256

/* Somebody who waits: for a machine, or (drain) for all of them to come back. */
struct sm_pool_waiter {
	TAILQ_ENTRY(sm_pool_waiter) link;
	int event_fd;
	bool over; /* off the list; what follows says how */
	struct sm_control *control;
	struct sm_error err;
};

struct sm_pool_ready {
	struct sm_control *control;
	uint64_t since_us;
};

struct sm_pool_samples {
	uint64_t count; /* ever */
	uint32_t us[SM_POOL_SAMPLES];
};

struct sm_pool {
	struct sm_snapshot *snapshot;
	struct sm_pool_options options;
	struct sm_mounts_wish mounts; /* what options.mounts points to */
	int hv_fd;
	unsigned nthreads;
	pthread_t threads[SM_POOL_THREADS_MAX];
	pthread_mutex_t lock;
	pthread_cond_t changed; /* there may be something to do for a thread */
	bool closing, draining;
	unsigned references; /* the owner and each machine handed out */
	unsigned making;     /* restores under way */
	unsigned resetting;  /* resets under way */
	unsigned nwaiting;
	TAILQ_HEAD(, sm_pool_waiter) waiting; /* for a machine; the first is served first */
	struct sm_pool_waiter *drainer;
	unsigned nready, nreturned;
	struct sm_pool_ready *ready;  /* the newest last: it is the warmest in the caches */
	struct sm_control **returned; /* to be reset, the oldest first */
	bool failing;                 /* the last restore failed: no other is tried until somebody asks */
	struct sm_pool_stats stats;   /* what is counted up */
	struct sm_pool_samples reset, recycle;
};

/* keep.c: the threads' work. */
void *sm_pool_keep(void *pool);
/* A machine that is ready: to who waits longest, or among the ready ones.  Under the lock. */
void sm_pool_deliver(struct sm_pool *pool, struct sm_control *control);
/* A machine is somebody's from now on.  Under the lock. */
void sm_pool_count_out(struct sm_pool *pool);
/* One waiter's wait is over.  Under the lock. */
void sm_pool_end_wait(struct sm_pool *pool, struct sm_pool_waiter *waiter);

#endif
