#include "fuse/internal.h"

#include <fcntl.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define DAX_MIN (1u << 20) /* a smaller file is copied faster than it is mapped */

void sm_fuse_attr(struct sm_fuse *fuse, const struct statx *st, const struct sm_fuse_node *node, struct fuse_attr *ret)
{
	bool dax =
	    fuse->dax && S_ISREG(st->stx_mode) && st->stx_size >= DAX_MIN && sm_fuse_agreed(fuse, FUSE_HAS_INODE_DAX);
	bool submount = sm_fuse_agreed(fuse, FUSE_SUBMOUNTS) && __atomic_load_n(&node->submount, __ATOMIC_RELAXED);
	*ret = (struct fuse_attr){
		.ino = st->stx_ino,
		.size = st->stx_size,
		.blocks = st->stx_blocks,
		.atime = (uint64_t)st->stx_atime.tv_sec,
		.mtime = (uint64_t)st->stx_mtime.tv_sec,
		.ctime = (uint64_t)st->stx_ctime.tv_sec,
		.atimensec = st->stx_atime.tv_nsec,
		.mtimensec = st->stx_mtime.tv_nsec,
		.ctimensec = st->stx_ctime.tv_nsec,
		.mode = st->stx_mode,
		.nlink = st->stx_nlink,
		.uid = sm_fuse_owner_out(fuse, st->stx_uid, false),
		.gid = sm_fuse_owner_out(fuse, st->stx_gid, true),
		.rdev = (st->stx_rdev_major & 0xfff) << 8 | (st->stx_rdev_minor & 0xff) |
		        (st->stx_rdev_minor & ~0xffu) << 12,
		.blksize = st->stx_blksize,
		.flags = (submount ? FUSE_ATTR_SUBMOUNT : 0) | (dax ? FUSE_ATTR_DAX : 0),
	};
	/* The folder of a single file is not the guest's business. */
	if (fuse->only && node == &fuse->nodes.root) {
		ret->mode = S_IFDIR | 0555;
		ret->nlink = 2;
		ret->uid = ret->gid = 0;
		ret->size = ret->blocks = 0;
	}
}

/* What a request names: an open handle, or the node's descriptor. */
struct named {
	struct sm_fuse_handle *handle;
	struct sm_fuse_hold hold;
	struct sm_fuse_node *node;
	int fd;
};

static int open_named(struct sm_fuse_call *call, bool by_handle, uint64_t fh, struct named *ret)
{
	struct sm_fuse *fuse = call->fuse;
	*ret = (struct named){ 0 };
	/* The kernel does not say what kind its handle is; a folder's are not used for this. */
	if (by_handle) {
		int code = sm_fuse_handle_get(fuse, fh, call->head.nodeid, false, &ret->handle);
		if (code < 0)
			return code;
		ret->node = ret->handle->node;
		ret->fd = ret->handle->fd;
		return 0;
	}
	int code = sm_fuse_hold(fuse, call->head.nodeid, &ret->hold);
	ret->node = ret->hold.node;
	ret->fd = ret->hold.fd;
	return code;
}

static void close_named(struct sm_fuse_call *call, struct named *named)
{
	sm_fuse_handle_put(call->fuse, named->handle);
	sm_fuse_drop(call->fuse, &named->hold);
}

static int64_t reply_attr(struct sm_fuse_call *call, const struct named *named)
{
	struct fuse_attr_out *out = (void *)call->reply.body;
	struct statx st;
	int code = sm_fuse_stat(named->fd, &st);
	if (code < 0)
		return code;
	*out = (struct fuse_attr_out){ .attr_valid = call->fuse->valid };
	sm_fuse_attr(call->fuse, &st, named->node, &out->attr);
	return sizeof *out;
}

int64_t sm_fuse_do_getattr(struct sm_fuse_call *call)
{
	struct fuse_getattr_in in;
	struct named named;
	memcpy(&in, call->arg, sizeof in);
	int64_t result = open_named(call, in.getattr_flags & FUSE_GETATTR_FH, in.fh, &named);
	if (result < 0)
		return result;
	result = reply_attr(call, &named);
	close_named(call, &named);
	return result;
}

/* Setting -------------------------------------------------------------------------------------------------------- */

static int set_owner(struct sm_fuse_call *call, const struct named *named, const struct fuse_setattr_in *in)
{
	struct sm_fuse *fuse = call->fuse;
	struct statx st;
	uint32_t uid = UINT32_MAX, gid = UINT32_MAX;
	int code = sm_fuse_stat(named->fd, &st);
	if (code < 0)
		return code;
	/* What it is already may always be asked for. */
	if (in->valid & FATTR_UID && in->uid != sm_fuse_owner_out(fuse, st.stx_uid, false))
		code = sm_fuse_owner_in(fuse, in->uid, false, &uid);
	if (code >= 0 && in->valid & FATTR_GID && in->gid != sm_fuse_owner_out(fuse, st.stx_gid, true))
		code = sm_fuse_owner_in(fuse, in->gid, true, &gid);
	if (code < 0)
		return code;
	return fchownat(named->fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int set_size(struct sm_fuse_call *call, const struct named *named, const struct fuse_setattr_in *in)
{
	if (named->node->is.type != S_IFREG)
		return named->node->is.type == S_IFDIR ? -EISDIR : -EINVAL;
	if (in->size > INT64_MAX)
		return sm_fuse_hostile(call->fuse, -EFBIG);
	int code = named->handle ? ftruncate(named->fd, (off_t)in->size)
	                         : truncate(sm_fuse_proc(named->fd).path, (off_t)in->size);
	if (code < 0)
		return -errno;
	return in->valid & FATTR_KILL_SUIDGID ? sm_fuse_kill_priv(named->fd) : 0;
}

static struct timespec time_of(uint32_t valid, uint32_t set, uint32_t now, uint64_t sec, uint32_t nsec)
{
	if (valid & now)
		return (struct timespec){ .tv_nsec = UTIME_NOW };
	if (valid & set)
		return (struct timespec){ .tv_sec = (time_t)sec, .tv_nsec = nsec < 1000000000 ? nsec : 999999999 };
	return (struct timespec){ .tv_nsec = UTIME_OMIT };
}

static int set_times(const struct named *named, const struct fuse_setattr_in *in)
{
	const struct timespec times[2] = {
		time_of(in->valid, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec),
		time_of(in->valid, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec),
	};
	return utimensat(AT_FDCWD, sm_fuse_proc(named->fd).path, times, 0) < 0 ? -errno : 0;
}

int64_t sm_fuse_do_setattr(struct sm_fuse_call *call)
{
	struct fuse_setattr_in in;
	struct named named;
	memcpy(&in, call->arg, sizeof in);
	if (call->fuse->only && call->head.nodeid == FUSE_ROOT_ID)
		return -EPERM;
	int64_t result = open_named(call, in.valid & FATTR_FH, in.fh, &named);
	if (result < 0)
		return result;
	if (in.valid & FATTR_MODE && chmod(sm_fuse_proc(named.fd).path, in.mode & 07777) < 0)
		result = -errno;
	if (result >= 0 && in.valid & (FATTR_UID | FATTR_GID))
		result = set_owner(call, &named, &in);
	if (result >= 0 && in.valid & FATTR_SIZE)
		result = set_size(call, &named, &in);
	else if (result >= 0 && in.valid & FATTR_KILL_SUIDGID)
		result = sm_fuse_kill_priv(named.fd);
	if (result >= 0 && in.valid & (FATTR_ATIME | FATTR_MTIME))
		result = set_times(&named, &in);
	if (result >= 0)
		result = reply_attr(call, &named);
	close_named(call, &named);
	return result;
}

/* statx, access, statfs ------------------------------------------------------------------------------------------ */

static struct sm_fuse_sx_time sx_time(const struct statx_timestamp *time)
{
	return (struct sm_fuse_sx_time){ .sec = time->tv_sec, .nsec = time->tv_nsec };
}

int64_t sm_fuse_do_statx(struct sm_fuse_call *call)
{
	struct sm_fuse_statx_in in;
	struct sm_fuse_statx_out *out = (void *)call->reply.body;
	struct named named;
	struct statx st;
	struct fuse_attr attr;
	memcpy(&in, call->arg, sizeof in);
	int code = open_named(call, in.getattr_flags & FUSE_GETATTR_FH, in.fh, &named);
	if (code < 0)
		return code;
	code = sm_fuse_stat(named.fd, &st);
	if (code >= 0)
		sm_fuse_attr(call->fuse, &st, named.node, &attr);
	close_named(call, &named);
	if (code < 0)
		return code;
	*out = (struct sm_fuse_statx_out){
		.attr_valid = call->fuse->valid,
		.stat = {
			.mask = st.stx_mask & (STATX_BASIC_STATS | STATX_BTIME),
			.blksize = attr.blksize,
			.nlink = attr.nlink,
			.uid = attr.uid,
			.gid = attr.gid,
			.mode = (uint16_t)attr.mode,
			.ino = attr.ino,
			.size = attr.size,
			.blocks = attr.blocks,
			.atime = sx_time(&st.stx_atime),
			.btime = sx_time(&st.stx_btime),
			.ctime = sx_time(&st.stx_ctime),
			.mtime = sx_time(&st.stx_mtime),
			.rdev_major = st.stx_rdev_major,
			.rdev_minor = st.stx_rdev_minor,
		},
	};
	return sizeof *out;
}

int64_t sm_fuse_do_access(struct sm_fuse_call *call)
{
	struct fuse_access_in in;
	struct sm_fuse_hold hold;
	memcpy(&in, call->arg, sizeof in);
	int code = sm_fuse_hold(call->fuse, call->head.nodeid, &hold);
	if (code < 0)
		return code;
	if (in.mask & W_OK && call->fuse->mount.readonly)
		code = -EROFS;
	else if (hold.node->is.type != S_IFLNK &&
	         faccessat(AT_FDCWD, sm_fuse_proc(hold.fd).path, in.mask & 7, AT_EACCESS))
		code = -errno;
	sm_fuse_drop(call->fuse, &hold);
	return code;
}

int64_t sm_fuse_do_statfs(struct sm_fuse_call *call)
{
	struct fuse_statfs_out *out = (void *)call->reply.body;
	struct sm_fuse_hold hold;
	struct statfs st;
	int code = sm_fuse_hold(call->fuse, call->head.nodeid, &hold);
	if (code < 0)
		return code;
	if (fstatfs(hold.fd, &st) < 0)
		code = -errno;
	sm_fuse_drop(call->fuse, &hold);
	if (code < 0)
		return code;
	*out = (struct fuse_statfs_out){ .st = {
					     .blocks = st.f_blocks,
					     .bfree = st.f_bfree,
					     .bavail = st.f_bavail,
					     .files = st.f_files,
					     .ffree = st.f_ffree,
					     .bsize = (uint32_t)st.f_bsize,
					     .namelen = (uint32_t)st.f_namelen,
					     .frsize = (uint32_t)st.f_frsize,
					 } };
	return sizeof *out;
}
