/* A pool of machines restored from one snapshot, ready to be handed out.
 *
 * Threads keep `min` machines ready: restored, resumed, and with an identity of their own (generation ID, clock,
 * entropy).  While somebody waits, and fewer than `max` exist, more are made.  Who asks first is served first.
 *
 * A machine that comes back is made what it was when it was restored (sm_control_reset), gets a new identity, and is
 * ready again: nothing of what its guest saw is left in it.  Where that fails it is closed and another one is made.  A
 * machine that has ended is never handed out. */
#ifndef SM_POOL_POOL_H
#define SM_POOL_POOL_H

#include "base/error.h"
#include "machine/control.h"
#include "pool/identity.h"
#include "pool/mounts.h"
#include "snapshot/snapshot.h"

#include <stdatomic.h>
#include <stdbool.h>

#define SM_POOL_MAX 4096

struct sm_pool;

enum sm_pool_reset {
	SM_POOL_RESET_ALWAYS,
	SM_POOL_RESET_NEVER, /* handed out again as it is: all who get it trust each other */
	SM_POOL_RESET_CLOSE, /* closed, and a new one made */
};

struct sm_pool_options {
	struct sm_identity_options identity; /* of each machine, without hostname and secrets; the hook is copied */
	const struct sm_mounts_wish *mounts; /* of each machine; copied.  NULL: the snapshot's own */
	unsigned min, max;                   /* 0 <= min <= max <= SM_POOL_MAX, 1 <= max */
	enum sm_control_transport transport;
	enum sm_pool_reset reset;
	int idle_ms; /* a ready machine beyond `min` that nobody wanted for so long is closed; negative: never */
};

struct sm_pool_stats {
	unsigned ready, in_use, recycling, waiting; /* waiting: acquires */
	uint64_t restored, recycled, handed_out;
	uint64_t failed;     /* restores and resets that failed, and machines that ended while they were ready */
	uint64_t restore_us; /* the last restore: build, resume and identity */
	/* Of the last resets, until everything is as it was, and until the machine is ready: the agent has answered. */
	uint32_t reset_p50_us, reset_p99_us, recycle_p50_us, recycle_p99_us;
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

/* A machine that is ready, if nobody waits for it; else -EAGAIN, with err left alone.  Never blocks. */
int sm_pool_try_acquire(struct sm_pool *pool, struct sm_control **ret_control);
/* A running machine.  timeout_ms < 0: wait for ever.  -ETIMEDOUT names the limit; -ECANCELED when the pool was closed
 * or cancel_fd (-1: none) became readable; -ESHUTDOWN when it is drained; or why a restore failed. */
int sm_pool_acquire(struct sm_pool *pool, int timeout_ms, int cancel_fd, struct sm_control **ret_control,
                    struct sm_error *err);
/* Give a machine back.  One that somebody else still refers to is closed. */
void sm_pool_release(struct sm_pool *pool, struct sm_control *control);

/* Hand out no more, wait until all have come back, and close them.  -ETIMEDOUT says how many are out; the pool stays
 * as it is then, drained: only close is left to do. */
int sm_pool_drain(struct sm_pool *pool, int timeout_ms, int cancel_fd, struct sm_error *err);
/* What its machines have, from the beginning. */
const struct sm_mounts_wish *sm_pool_mounts(const struct sm_pool *pool);
void sm_pool_stats(struct sm_pool *pool, struct sm_pool_stats *ret);

#endif
