/* A pool of machines restored from one snapshot, ready to be handed out.
 *
 * A thread keeps `min` machines ready: restored, resumed, and with an identity of their own (generation ID, clock,
 * entropy).  An acquire that finds none ready restores one itself as long as fewer than `max` exist, else it waits.  A
 * machine is handed out once: released, it is closed, because what a guest has seen cannot be unseen. */
#ifndef SM_POOL_POOL_H
#define SM_POOL_POOL_H

#include "base/error.h"
#include "machine/control.h"
#include "snapshot/snapshot.h"

#include <stdatomic.h>
#include <stdbool.h>

#define SM_POOL_MAX 4096

struct sm_pool;

struct sm_pool_options {
	unsigned min, max; /* 0 <= min <= max <= SM_POOL_MAX, 1 <= max */
	enum sm_control_transport transport;
	bool agent;      /* the guest runs the agent: it is told time and entropy */
	int identity_ms; /* how long a restored guest may take to answer */
};

struct sm_pool_stats {
	unsigned ready, in_use;
	uint64_t restored, handed_out, failed;
	uint64_t restore_us; /* the last restore: build, resume and identity */
};

/* Takes a reference to the snapshot; hv_fd is duplicated.  The first `min` machines are made in the background. */
int sm_pool_new(struct sm_snapshot *snapshot, int hv_fd, const struct sm_pool_options *options,
                struct sm_pool **ret_pool, struct sm_error *err);
/* Closes what is ready and waits for acquires to fail with -ECANCELED.  Machines handed out live on; their release is
 * still due. */
void sm_pool_close(struct sm_pool *pool);
/* The memory goes with the last of: close, unref of each ref, release of each machine. */
struct sm_pool *sm_pool_ref(struct sm_pool *pool);
void sm_pool_unref(struct sm_pool *pool);

/* A running machine.  timeout_ms < 0: wait for ever.  -ETIMEDOUT names the limit; -ECANCELED when the pool was closed
 * or *cancel (may be NULL) was set; or why a restore failed. */
int sm_pool_acquire(struct sm_pool *pool, int timeout_ms, const atomic_bool *cancel, struct sm_control **ret_control,
                    struct sm_error *err);
/* Give a machine back: it is closed, and its place is free. */
void sm_pool_release(struct sm_pool *pool, struct sm_control *control);
void sm_pool_stats(struct sm_pool *pool, struct sm_pool_stats *ret);

#endif
