/* Locks that are shared with the host.
 *
 * A POSIX lock belongs to a process of the guest: each (file, owner) has a descriptor of its own here, whose OFD locks
 * are that process's.  A BSD lock belongs to the open file, and so to its handle's descriptor.  No request waits in a
 * lock: one that would is kept, and a thread tries it again until it has it; the reply then comes by `later`.  It has
 * to try because the host tells nobody but who sleeps in it.  Private to this room. */
#ifndef SM_FUSE_LOCK_H
#define SM_FUSE_LOCK_H

#include "fuse/node.h"

#include <pthread.h>

#define SM_FUSE_LOCK_BUCKETS 256
#define SM_FUSE_OWNERS_MAX   4096 /* processes that hold locks, a file each */
#define SM_FUSE_RANGES_MAX   1024 /* of one owner */
#define SM_FUSE_WAITERS_MAX  1024

struct sm_fuse_range {
	uint64_t first, last;
	uint32_t type; /* F_RDLCK, F_WRLCK */
};

struct sm_fuse_owner {
	struct sm_fuse_owner *next;
	struct sm_fuse_node *node; /* counted, and its descriptor kept */
	uint64_t owner;
	int fd;    /* -1: loaded, not opened since */
	bool lost; /* loaded, and somebody else had one of them by then: EIO until all are given back */
	uint32_t nranges;
	struct sm_fuse_range *ranges; /* by place, without overlap */
};

struct sm_fuse_waiter;

struct sm_fuse_locks {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct sm_fuse_owner *owners[SM_FUSE_LOCK_BUCKETS];
	size_t nowners;
	struct sm_fuse_waiter *first; /* in the order that they came */
	size_t nwaiters;
	pthread_t thread;
	bool started, stopping, paused;
	_Atomic bool pending; /* some were loaded, and are not held yet */
};

struct sm_fuse_locks *sm_fuse_locks_new(void);
void sm_fuse_locks_free(struct sm_fuse *fuse); /* NULL is fine */
/* Nothing is held, and what waits has no reply; give_up: it has one, EINTR. */
void sm_fuse_locks_reset(struct sm_fuse *fuse);
void sm_fuse_locks_give_up(struct sm_fuse *fuse);
/* The process closed the file, and with it gives its locks on it back. */
void sm_fuse_locks_flush(struct sm_fuse *fuse, struct sm_fuse_node *node, uint64_t owner);
/* Take what was loaded. */
void sm_fuse_locks_take(struct sm_fuse *fuse);
/* For load: NULL: too many, or no memory. */
struct sm_fuse_owner *sm_fuse_locks_restore(struct sm_fuse *fuse, struct sm_fuse_node *node, uint64_t owner);
/* What the owner holds when it has taken one more (or, F_UNLCK, given it back).  -ENOLCK, -ENOMEM. */
int sm_fuse_range_put(struct sm_fuse_owner *owner, const struct sm_fuse_range *range);

#endif
