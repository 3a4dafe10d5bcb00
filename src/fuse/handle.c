#include "fuse/internal.h"

#include "base/fd.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>

#define SLOTS_MIN 64

static uint32_t slot_of(uint64_t id)
{
	return (uint32_t)id;
}

static void end(struct sm_fuse *fuse, struct sm_fuse_handle *handle)
{
	sm_fd_close(&handle->fd);
	sm_fuse_node_opened(fuse, handle->node, -1);
	pthread_mutex_destroy(&handle->lock);
	free(handle);
}

int sm_fuse_handles_init(struct sm_fuse *fuse, size_t max)
{
	fuse->handles.max = max;
	return 0;
}

/* With the lock held.  More slots, up to `wanted` at least. */
static bool grow(struct sm_fuse_handles *handles, size_t wanted)
{
	size_t n = handles->nslots ? handles->nslots : SLOTS_MIN;
	while (n < wanted)
		n *= 2;
	if (n == handles->nslots)
		return true;
	struct sm_fuse_handle **slots = realloc(handles->slots, n * sizeof(struct sm_fuse_handle *));
	handles->slots = slots ? slots : handles->slots;
	uint32_t *uses = slots ? realloc(handles->uses, n * sizeof *uses) : NULL;
	handles->uses = uses ? uses : handles->uses;
	uint32_t *unused = uses ? realloc(handles->free, n * sizeof *unused) : NULL;
	handles->free = unused ? unused : handles->free;
	if (!unused)
		return false;
	for (size_t slot = n; slot-- > handles->nslots;) {
		handles->slots[slot] = NULL;
		handles->uses[slot] = 0;
		handles->free[handles->nfree++] = (uint32_t)slot;
	}
	handles->nslots = n;
	return true;
}

static struct sm_fuse_handle *make(struct sm_fuse_node *node, int fd, uint32_t flags, bool folder)
{
	struct sm_fuse_handle *handle = malloc(sizeof *handle);
	if (!handle)
		return NULL;
	*handle = (struct sm_fuse_handle){
		.node = node, .folder = folder, .listed = true, .flags = flags, .flock = F_UNLCK, .fd = fd, .at = -2
	};
	pthread_mutex_init(&handle->lock, NULL);
	return handle;
}

int sm_fuse_handle_new(struct sm_fuse *fuse, struct sm_fuse_node *node, int fd, uint32_t flags, bool folder,
                       uint64_t *ret_id)
{
	struct sm_fuse_handles *handles = &fuse->handles;
	struct sm_fuse_handle *handle = make(node, fd, flags, folder);
	if (!handle) {
		sm_fd_close(&fd);
		return -ENOMEM;
	}
	sm_fuse_node_opened(fuse, node, 1);
	pthread_mutex_lock(&handles->lock);
	bool fine = handles->count < handles->max && (handles->nfree || grow(handles, handles->nslots * 2));
	if (fine) {
		uint32_t slot = handles->free[--handles->nfree];
		handle->id = (uint64_t)++handles->uses[slot] << 32 | slot;
		handles->slots[slot] = handle;
		handles->count++;
		*ret_id = handle->id;
	}
	pthread_mutex_unlock(&handles->lock);
	if (fine)
		return 0;
	end(fuse, handle);
	return -ENFILE;
}

int sm_fuse_handle_restore(struct sm_fuse *fuse, uint64_t id, struct sm_fuse_node *node, uint32_t flags,
                           uint32_t flock_type, bool folder)
{
	struct sm_fuse_handles *handles = &fuse->handles;
	uint32_t slot = slot_of(id);
	if (!(id >> 32) || slot >= handles->max || handles->count >= handles->max)
		return -EBADMSG;
	if (slot >= handles->nslots && !grow(handles, (size_t)slot + 1))
		return -ENOMEM;
	struct sm_fuse_handle *handle = handles->slots[slot] ? NULL : make(node, -1, flags, folder);
	if (!handle)
		return handles->slots[slot] ? -EBADMSG : -ENOMEM;
	sm_fuse_node_opened(fuse, node, 1);
	handle->id = id;
	handle->flock = flock_type;
	handles->uses[slot] = (uint32_t)(id >> 32);
	handles->slots[slot] = handle;
	handles->count++;
	return 0;
}

void sm_fuse_handles_relist(struct sm_fuse *fuse)
{
	struct sm_fuse_handles *handles = &fuse->handles;
	handles->nfree = 0;
	for (size_t slot = handles->nslots; slot-- > 0;)
		if (!handles->slots[slot])
			handles->free[handles->nfree++] = (uint32_t)slot;
}

/* With the lock held: the listed one of that ID. */
static struct sm_fuse_handle *find(struct sm_fuse_handles *handles, uint64_t id, uint64_t node, bool folder)
{
	uint32_t slot = slot_of(id);
	struct sm_fuse_handle *handle = slot < handles->nslots ? handles->slots[slot] : NULL;
	return handle && handle->id == id && handle->node->id == node && handle->folder == folder ? handle : NULL;
}

/* What was loaded is opened when it is first used. */
static int open_late(struct sm_fuse *fuse, struct sm_fuse_handle *handle)
{
	int code = 0;
	pthread_mutex_lock(&handle->lock);
	if (handle->fd < 0) {
		struct sm_fuse_hold hold;
		code = sm_fuse_hold_node(fuse, handle->node, &hold);
		if (code >= 0) {
			code = sm_fuse_reopen(fuse, hold.fd, handle->node->is.type, (int)handle->flags);
			sm_fuse_drop(fuse, &hold);
		}
		/* Its lock went to somebody else: what it would read or write is no longer what it thinks. */
		if (code >= 0 && handle->flock != F_UNLCK &&
		    flock(code, (handle->flock == F_RDLCK ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0) {
			sm_fd_close(&code);
			code = -EIO;
		}
		if (code >= 0) {
			__atomic_store_n(&handle->fd, code, __ATOMIC_RELEASE);
			code = 0;
		}
	}
	pthread_mutex_unlock(&handle->lock);
	return code;
}

int sm_fuse_handle_get(struct sm_fuse *fuse, uint64_t id, uint64_t node, bool folder, struct sm_fuse_handle **ret)
{
	struct sm_fuse_handles *handles = &fuse->handles;
	pthread_mutex_lock(&handles->lock);
	struct sm_fuse_handle *handle = find(handles, id, node, folder);
	if (handle)
		handle->refs++;
	pthread_mutex_unlock(&handles->lock);
	*ret = handle;
	if (!handle)
		return sm_fuse_hostile(fuse, -EBADF);
	int code = __atomic_load_n(&handle->fd, __ATOMIC_ACQUIRE) < 0 ? open_late(fuse, handle) : 0;
	if (code < 0) {
		sm_fuse_handle_put(fuse, handle);
		*ret = NULL;
	}
	return code;
}

void sm_fuse_handle_put(struct sm_fuse *fuse, struct sm_fuse_handle *handle)
{
	if (!handle)
		return;
	pthread_mutex_lock(&fuse->handles.lock);
	bool last = !--handle->refs && !handle->listed;
	pthread_mutex_unlock(&fuse->handles.lock);
	if (last)
		end(fuse, handle);
}

/* With the lock held; true: it is to be ended. */
static bool unlist(struct sm_fuse_handles *handles, struct sm_fuse_handle *handle)
{
	uint32_t slot = slot_of(handle->id);
	handles->slots[slot] = NULL;
	handles->free[handles->nfree++] = slot;
	handles->count--;
	handle->listed = false;
	return !handle->refs;
}

int sm_fuse_handle_close(struct sm_fuse *fuse, uint64_t id, uint64_t node, bool folder)
{
	struct sm_fuse_handles *handles = &fuse->handles;
	pthread_mutex_lock(&handles->lock);
	struct sm_fuse_handle *handle = find(handles, id, node, folder);
	bool last = handle && unlist(handles, handle);
	pthread_mutex_unlock(&handles->lock);
	if (!handle)
		return sm_fuse_hostile(fuse, -EBADF);
	if (last)
		end(fuse, handle);
	return 0;
}

void sm_fuse_handles_reset(struct sm_fuse *fuse)
{
	struct sm_fuse_handles *handles = &fuse->handles;
	for (size_t slot = 0;; slot++) {
		pthread_mutex_lock(&handles->lock);
		bool more = slot < handles->nslots;
		struct sm_fuse_handle *handle = more ? handles->slots[slot] : NULL;
		bool last = handle && unlist(handles, handle);
		pthread_mutex_unlock(&handles->lock);
		if (last)
			end(fuse, handle);
		if (!more)
			break;
	}
}

void sm_fuse_handles_done(struct sm_fuse *fuse)
{
	sm_fuse_handles_reset(fuse);
	free(fuse->handles.slots);
	free(fuse->handles.uses);
	free(fuse->handles.free);
	fuse->handles.slots = NULL;
	fuse->handles.uses = fuse->handles.free = NULL;
}
