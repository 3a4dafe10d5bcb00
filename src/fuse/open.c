/* Files being opened, written back and closed. */
#include "fuse/internal.h"

#include "base/fd.h"
#include "fuse/lock.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* O_DIRECT asks for an alignment that the guest's pages may not have here; creation and links are ours to decide. */
#define PASSED (O_ACCMODE | O_APPEND | O_SYNC | O_DSYNC)

uint32_t sm_fuse_host_flags(struct sm_fuse *fuse, uint32_t flags)
{
	flags &= PASSED;
	if (sm_fuse_agreed(fuse, FUSE_WRITEBACK_CACHE)) {
		/* It fills pages that are written in part, and says itself where the end is. */
		flags &= ~(uint32_t)O_APPEND;
		if ((flags & O_ACCMODE) == O_WRONLY)
			flags = (flags & ~(uint32_t)O_ACCMODE) | O_RDWR;
	}
	return flags;
}

uint32_t sm_fuse_open_flags(struct sm_fuse *fuse, uint32_t flags)
{
	uint32_t out = FOPEN_PARALLEL_DIRECT_WRITES;
	if (fuse->mount.cache == SM_MOUNT_CACHE_ALWAYS)
		out |= FOPEN_KEEP_CACHE;
	/* A FLUSH of what was only read is a round for nothing. */
	if ((flags & O_ACCMODE) == O_RDONLY && !fuse->locks)
		out |= FOPEN_NOFLUSH;
	return out;
}

int sm_fuse_open_file(struct sm_fuse *fuse, int fd, uint32_t flags, uint32_t open_flags)
{
	bool writes = (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
	if (fuse->mount.readonly && writes)
		return -EROFS;
	int host = (int)(sm_fuse_host_flags(fuse, flags) | (flags & O_TRUNC));
	int file = sm_fuse_reopen(fuse, fd, S_IFREG, host);
	if (file == -EACCES && (flags & O_ACCMODE) == O_WRONLY && (host & O_ACCMODE) == O_RDWR)
		file = sm_fuse_reopen(fuse, fd, S_IFREG, (host & ~O_ACCMODE) | O_WRONLY);
	if (file >= 0 && open_flags & FUSE_OPEN_KILL_SUIDGID && flags & O_TRUNC)
		sm_fuse_kill_priv(file);
	return file;
}

int64_t sm_fuse_do_open(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_open_in in;
	struct fuse_open_out *out = (void *)call->reply.body;
	struct sm_fuse_hold hold;
	memcpy(&in, call->arg, sizeof in);
	int code = sm_fuse_hold(fuse, call->head.nodeid, &hold);
	if (code < 0)
		return code;
	if (hold.node->is.type == S_IFREG)
		code = sm_fuse_open_file(fuse, hold.fd, in.flags, in.open_flags);
	else
		code = hold.node->is.type == S_IFDIR ? -EISDIR : hold.node->is.type == S_IFLNK ? -ELOOP : -ENXIO;
	uint32_t flags = sm_fuse_host_flags(fuse, in.flags);
	*out = (struct fuse_open_out){ .open_flags = sm_fuse_open_flags(fuse, in.flags) };
	if (code >= 0)
		code = sm_fuse_handle_new(fuse, hold.node, code, flags, false, &out->fh);
	sm_fuse_drop(fuse, &hold);
	return code < 0 ? code : (int)sizeof *out;
}

int64_t sm_fuse_do_release(struct sm_fuse_call *call)
{
	struct fuse_release_in in;
	memcpy(&in, call->arg, sizeof in);
	return sm_fuse_handle_close(call->fuse, in.fh, call->head.nodeid, false);
}

int64_t sm_fuse_do_flush(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_flush_in in;
	struct sm_fuse_handle *handle;
	memcpy(&in, call->arg, sizeof in);
	int code = sm_fuse_handle_get(fuse, in.fh, call->head.nodeid, false, &handle);
	if (code < 0)
		return code;
	sm_fuse_locks_flush(fuse, handle->node, in.lock_owner);
	/* What a close would have to say: of a network's file system, or a quota. */
	int copy = sm_fd_dup(handle->fd);
	code = copy < 0 ? copy : close(copy) < 0 ? -errno : 0;
	sm_fuse_handle_put(fuse, handle);
	return code == -EINTR ? 0 : code;
}

static int64_t sync_handle(struct sm_fuse_call *call, bool folder)
{
	struct fuse_fsync_in in;
	struct sm_fuse_handle *handle;
	memcpy(&in, call->arg, sizeof in);
	int code = sm_fuse_handle_get(call->fuse, in.fh, call->head.nodeid, folder, &handle);
	if (code < 0)
		return code;
	code = in.fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(handle->fd) : fsync(handle->fd);
	code = code < 0 ? -errno : 0;
	sm_fuse_handle_put(call->fuse, handle);
	return code;
}

int64_t sm_fuse_do_fsync(struct sm_fuse_call *call)
{
	return sync_handle(call, false);
}

int64_t sm_fuse_do_fsyncdir(struct sm_fuse_call *call)
{
	return sync_handle(call, true);
}

int64_t sm_fuse_do_syncfs(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct sm_fuse_hold hold;
	int code = sm_fuse_hold(fuse, call->head.nodeid, &hold);
	if (code < 0)
		return code;
	int fd = sm_fuse_reopen(fuse, hold.fd, hold.node->is.type, O_RDONLY);
	sm_fuse_drop(fuse, &hold);
	code = fd < 0 ? fd : syncfs(fd) < 0 ? -errno : 0;
	sm_fd_close(&fd);
	return code;
}
