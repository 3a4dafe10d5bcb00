#include "fuse/lock.h"

#include "base/fd.h"
#include "base/thread.h"
#include "fuse/internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

#define RETRY_MS 10

struct sm_fuse_waiter {
	struct sm_fuse_waiter *next;
	uint64_t unique, nodeid;
	void *cookie;
	struct fuse_lk_in in;
};

/* Owners; with the lock held -------------------------------------------------------------------------------------- */

static struct sm_fuse_owner **bucket(struct sm_fuse_locks *locks, const struct sm_fuse_node *node, uint64_t owner)
{
	return &locks->owners[(node->id * 31 + (owner ^ owner >> 32)) % SM_FUSE_LOCK_BUCKETS];
}

static struct sm_fuse_owner **find(struct sm_fuse_locks *locks, const struct sm_fuse_node *node, uint64_t owner)
{
	struct sm_fuse_owner **at = bucket(locks, node, owner);
	while (*at && ((*at)->node != node || (*at)->owner != owner))
		at = &(*at)->next;
	return at;
}

static void remove_owner(struct sm_fuse *fuse, struct sm_fuse_owner **at)
{
	struct sm_fuse_owner *owner = *at;
	*at = owner->next;
	fuse->locks->nowners--;
	sm_fd_close(&owner->fd);
	sm_fuse_node_opened(fuse, owner->node, -1);
	free(owner->ranges);
	free(owner);
}

struct sm_fuse_owner *sm_fuse_locks_restore(struct sm_fuse *fuse, struct sm_fuse_node *node, uint64_t owner)
{
	struct sm_fuse_locks *locks = fuse->locks;
	struct sm_fuse_owner **at = find(locks, node, owner);
	if (*at || locks->nowners >= SM_FUSE_OWNERS_MAX)
		return NULL;
	*at = calloc(1, sizeof **at);
	if (!*at)
		return NULL;
	(*at)->node = node;
	(*at)->owner = owner;
	(*at)->fd = -1;
	locks->nowners++;
	sm_fuse_node_opened(fuse, node, 1);
	return *at;
}

static int open_for(struct sm_fuse *fuse, struct sm_fuse_node *node)
{
	static const int modes[] = { O_RDWR, O_RDONLY, O_WRONLY };
	struct sm_fuse_hold hold;
	int fd = sm_fuse_hold_node(fuse, node, &hold);
	if (fd < 0)
		return fd;
	fd = -EACCES;
	for (unsigned i = 0; i < 3 && (fd == -EACCES || fd == -EROFS || fd == -EPERM); i++)
		if (modes[i] == O_RDONLY || !fuse->mount.readonly)
			fd = sm_fuse_reopen(fuse, hold.fd, S_IFREG, modes[i]);
	sm_fuse_drop(fuse, &hold);
	return fd;
}

/* The owner's descriptor; made if it has none. */
static int owner_of(struct sm_fuse *fuse, struct sm_fuse_node *node, uint64_t id, struct sm_fuse_owner **ret)
{
	struct sm_fuse_owner *owner = *find(fuse->locks, node, id);
	if (!owner) {
		if (node->is.type != S_IFREG)
			return -EBADF;
		int fd = open_for(fuse, node);
		if (fd < 0)
			return fd;
		owner = sm_fuse_locks_restore(fuse, node, id);
		if (!owner) {
			sm_fd_close(&fd);
			return -ENOLCK;
		}
		owner->fd = fd;
	}
	*ret = owner;
	return owner->lost ? -EIO : 0;
}

static struct flock host_lock(const struct sm_fuse_range *range)
{
	return (struct flock){
		.l_type = (short)range->type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)range->first,
		.l_len = range->last == INT64_MAX ? 0 : (off_t)(range->last - range->first + 1),
	};
}

/* 0; -EAGAIN: somebody else has it. */
static int set_posix(struct sm_fuse *fuse, struct sm_fuse_node *node, const struct fuse_lk_in *in)
{
	const struct sm_fuse_range range = { in->lk.start, in->lk.end, in->lk.type };
	struct sm_fuse_owner *owner;
	if (in->lk.type == F_UNLCK && !*find(fuse->locks, node, in->owner))
		return 0;
	int code = owner_of(fuse, node, in->owner, &owner);
	if (code < 0)
		return code;
	struct flock lock = host_lock(&range);
	if (fcntl(owner->fd, F_OFD_SETLK, &lock) < 0)
		code = errno == EACCES ? -EAGAIN : -errno;
	else
		code = sm_fuse_range_put(owner, &range);
	if (!owner->nranges)
		remove_owner(fuse, find(fuse->locks, node, in->owner));
	return code;
}

static int set_flock(struct sm_fuse_handle *handle, uint32_t type)
{
	int operation = type == F_RDLCK ? LOCK_SH : type == F_WRLCK ? LOCK_EX : LOCK_UN;
	if (flock(handle->fd, operation | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	__atomic_store_n(&handle->flock, type, __ATOMIC_RELAXED);
	return 0;
}

/* Try once.  With the lock held. */
static int set_lock(struct sm_fuse *fuse, uint64_t nodeid, const struct fuse_lk_in *in)
{
	struct sm_fuse_handle *handle;
	int code = sm_fuse_handle_get(fuse, in->fh, nodeid, false, &handle);
	if (code < 0)
		return code;
	code = in->lk_flags & FUSE_LK_FLOCK ? set_flock(handle, in->lk.type) : set_posix(fuse, handle->node, in);
	sm_fuse_handle_put(fuse, handle);
	return code;
}

/* Those that wait ------------------------------------------------------------------------------------------------- */

/* Takes *at out of the list, and answers it.  With the lock held, so that no reply comes when a pause has begun. */
static void answer(struct sm_fuse *fuse, struct sm_fuse_waiter **at, int code)
{
	struct sm_fuse_waiter *waiter = *at;
	*at = waiter->next;
	fuse->locks->nwaiters--;
	const struct fuse_out_header head = { .len = sizeof head, .error = code, .unique = waiter->unique };
	if (code < 0)
		sm_fuse_count(&fuse->counters.errors);
	fuse->later(fuse->later_arg, waiter->cookie, &head, sizeof head);
	free(waiter);
}

static void *try_again(void *arg)
{
	struct sm_fuse *fuse = arg;
	struct sm_fuse_locks *locks = fuse->locks;
	pthread_mutex_lock(&locks->lock);
	while (!locks->stopping) {
		if (!locks->first || locks->paused) {
			pthread_cond_wait(&locks->wake, &locks->lock);
			continue;
		}
		for (struct sm_fuse_waiter **at = &locks->first; *at;) {
			int code = set_lock(fuse, (*at)->nodeid, &(*at)->in);
			if (code == -EAGAIN)
				at = &(*at)->next;
			else
				answer(fuse, at, code);
		}
		if (!locks->first)
			continue;
		struct timespec until;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += RETRY_MS * 1000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&locks->wake, &locks->lock, &until);
	}
	pthread_mutex_unlock(&locks->lock);
	return NULL;
}

/* With the lock held. */
static int wait_for(struct sm_fuse_call *call, const struct fuse_lk_in *in)
{
	struct sm_fuse_locks *locks = call->fuse->locks;
	if (!call->fuse->later || locks->nwaiters >= SM_FUSE_WAITERS_MAX)
		return -ENOLCK;
	if (!locks->started && sm_thread_start(&locks->thread, "fuse-locks", try_again, call->fuse) < 0)
		return -ENOLCK;
	locks->started = true;
	struct sm_fuse_waiter *waiter = malloc(sizeof *waiter), **at = &locks->first;
	if (!waiter)
		return -ENOMEM;
	*waiter = (struct sm_fuse_waiter){
		.unique = call->head.unique, .nodeid = call->head.nodeid, .cookie = call->cookie, .in = *in
	};
	while (*at)
		at = &(*at)->next;
	*at = waiter;
	locks->nwaiters++;
	pthread_cond_signal(&locks->wake);
	return -EINPROGRESS;
}

int64_t sm_fuse_do_interrupt(struct sm_fuse_call *call)
{
	struct sm_fuse_locks *locks = call->fuse->locks;
	struct fuse_interrupt_in in;
	memcpy(&in, call->arg, sizeof in);
	if (!locks)
		return 0;
	pthread_mutex_lock(&locks->lock);
	struct sm_fuse_waiter **at = &locks->first;
	while (*at && (*at)->unique != in.unique)
		at = &(*at)->next;
	if (*at)
		answer(call->fuse, at, -EINTR);
	pthread_mutex_unlock(&locks->lock);
	return 0;
}

/* Requests -------------------------------------------------------------------------------------------------------- */

static int get_args(struct sm_fuse_call *call, struct fuse_lk_in *ret)
{
	memcpy(ret, call->arg, sizeof *ret);
	if (!call->fuse->locks)
		return -ENOSYS;
	bool flock = ret->lk_flags & FUSE_LK_FLOCK;
	if ((ret->lk.type != F_RDLCK && ret->lk.type != F_WRLCK && ret->lk.type != F_UNLCK) ||
	    (!flock && (ret->lk.end > INT64_MAX || ret->lk.start > ret->lk.end)))
		return sm_fuse_hostile(call->fuse, -EINVAL);
	return 0;
}

int64_t sm_fuse_do_getlk(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_lk_in in;
	struct fuse_lk_out *out = (void *)call->reply.body;
	struct sm_fuse_handle *handle;
	struct sm_fuse_owner *owner;
	int code = get_args(call, &in);
	if (code >= 0 && (in.lk_flags & FUSE_LK_FLOCK || in.lk.type == F_UNLCK))
		code = sm_fuse_hostile(fuse, -EINVAL);
	if (code >= 0)
		code = sm_fuse_handle_get(fuse, in.fh, call->head.nodeid, false, &handle);
	if (code < 0)
		return code;
	const struct sm_fuse_range range = { in.lk.start, in.lk.end, in.lk.type };
	struct flock lock = host_lock(&range);
	pthread_mutex_lock(&fuse->locks->lock);
	code = owner_of(fuse, handle->node, in.owner, &owner);
	if (code >= 0) {
		code = fcntl(owner->fd, F_OFD_GETLK, &lock) < 0 ? -errno : 0;
		if (!owner->nranges)
			remove_owner(fuse, find(fuse->locks, handle->node, in.owner));
	}
	pthread_mutex_unlock(&fuse->locks->lock);
	sm_fuse_handle_put(fuse, handle);
	if (code < 0)
		return code;
	*out = (struct fuse_lk_out){ .lk.type = (uint32_t)lock.l_type };
	if (lock.l_type != F_UNLCK) {
		/* Whose it is has no name in the guest. */
		out->lk.start = (uint64_t)lock.l_start;
		out->lk.end = lock.l_len ? (uint64_t)(lock.l_start + lock.l_len - 1) : INT64_MAX;
	}
	return sizeof *out;
}

static int64_t set(struct sm_fuse_call *call, bool wait)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_lk_in in;
	int code = get_args(call, &in);
	if (code < 0)
		return code;
	pthread_mutex_lock(&fuse->locks->lock);
	code = set_lock(fuse, call->head.nodeid, &in);
	if (code == -EAGAIN && wait)
		code = wait_for(call, &in);
	pthread_mutex_unlock(&fuse->locks->lock);
	return code;
}

int64_t sm_fuse_do_setlk(struct sm_fuse_call *call)
{
	return set(call, false);
}

int64_t sm_fuse_do_setlkw(struct sm_fuse_call *call)
{
	return set(call, true);
}

/* All of them ----------------------------------------------------------------------------------------------------- */

struct sm_fuse_locks *sm_fuse_locks_new(void)
{
	struct sm_fuse_locks *locks = calloc(1, sizeof *locks);
	if (!locks)
		return NULL;
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&locks->wake, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&locks->lock, NULL);
	return locks;
}

void sm_fuse_locks_flush(struct sm_fuse *fuse, struct sm_fuse_node *node, uint64_t owner)
{
	if (!fuse->locks)
		return;
	pthread_mutex_lock(&fuse->locks->lock);
	struct sm_fuse_owner **at = find(fuse->locks, node, owner);
	if (*at)
		remove_owner(fuse, at);
	pthread_mutex_unlock(&fuse->locks->lock);
}

void sm_fuse_locks_take(struct sm_fuse *fuse)
{
	struct sm_fuse_locks *locks = fuse->locks;
	pthread_mutex_lock(&locks->lock);
	for (size_t i = 0; i < SM_FUSE_LOCK_BUCKETS && locks->pending; i++)
		for (struct sm_fuse_owner *owner = locks->owners[i]; owner; owner = owner->next) {
			if (owner->fd >= 0 || owner->lost)
				continue;
			owner->fd = open_for(fuse, owner->node);
			owner->lost = owner->fd < 0;
			for (uint32_t k = 0; k < owner->nranges && !owner->lost; k++) {
				struct flock lock = host_lock(&owner->ranges[k]);
				owner->lost = fcntl(owner->fd, F_OFD_SETLK, &lock) < 0;
			}
			if (!owner->lost)
				continue;
			sm_fd_close(&owner->fd);
			owner->fd = -1;
			sm_fuse_count(&fuse->counters.stale);
		}
	locks->pending = false;
	pthread_mutex_unlock(&locks->lock);
}

void sm_fuse_locks_give_up(struct sm_fuse *fuse)
{
	if (!fuse->locks)
		return;
	pthread_mutex_lock(&fuse->locks->lock);
	while (fuse->locks->first)
		answer(fuse, &fuse->locks->first, -EINTR);
	pthread_mutex_unlock(&fuse->locks->lock);
}

void sm_fuse_locks_reset(struct sm_fuse *fuse)
{
	struct sm_fuse_locks *locks = fuse->locks;
	if (!locks)
		return;
	pthread_mutex_lock(&locks->lock);
	while (locks->first) {
		struct sm_fuse_waiter *next = locks->first->next;
		free(locks->first);
		locks->first = next;
	}
	locks->nwaiters = 0;
	for (size_t i = 0; i < SM_FUSE_LOCK_BUCKETS; i++)
		while (locks->owners[i])
			remove_owner(fuse, &locks->owners[i]);
	locks->pending = false;
	pthread_mutex_unlock(&locks->lock);
}

void sm_fuse_locks_free(struct sm_fuse *fuse)
{
	struct sm_fuse_locks *locks = fuse->locks;
	if (!locks)
		return;
	sm_fuse_locks_reset(fuse);
	pthread_mutex_lock(&locks->lock);
	locks->stopping = true;
	pthread_cond_signal(&locks->wake);
	pthread_mutex_unlock(&locks->lock);
	if (locks->started)
		pthread_join(locks->thread, NULL);
	pthread_cond_destroy(&locks->wake);
	pthread_mutex_destroy(&locks->lock);
	free(locks);
	fuse->locks = NULL;
}

void sm_fuse_pause(struct sm_fuse *fuse, bool paused)
{
	struct sm_fuse_locks *locks = fuse->locks;
	if (!locks)
		return;
	pthread_mutex_lock(&locks->lock);
	locks->paused = paused;
	pthread_cond_signal(&locks->wake);
	pthread_mutex_unlock(&locks->lock);
}
