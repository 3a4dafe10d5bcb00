/* The flags of files, as chattr sets them; no other ioctl passes. */
#include "fuse/internal.h"

#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

/* What even root of the guest may not put on files of ours: we could not remove them. */
#define HELD_FLAGS  (FS_IMMUTABLE_FL | FS_APPEND_FL)
#define HELD_XFLAGS (FS_XFLAG_IMMUTABLE | FS_XFLAG_APPEND | FS_XFLAG_PROJINHERIT)

static bool is_held(struct sm_fuse *fuse, uint32_t changed, uint32_t held)
{
	return changed & held && fuse->mount.owners != SM_MOUNT_OWNERS_PASSTHROUGH;
}

static int set_flags(struct sm_fuse *fuse, int fd, unsigned flags)
{
	unsigned now = 0;
	if (ioctl(fd, FS_IOC_GETFLAGS, &now) < 0)
		return -errno;
	if (is_held(fuse, now ^ flags, HELD_FLAGS))
		return -EPERM;
	return ioctl(fd, FS_IOC_SETFLAGS, &flags) < 0 ? -errno : 0;
}

static int set_attributes(struct sm_fuse *fuse, int fd, const struct fsxattr *to)
{
	struct fsxattr now = { 0 };
	if (ioctl(fd, FS_IOC_FSGETXATTR, &now) < 0)
		return -errno;
	if (is_held(fuse, now.fsx_xflags ^ to->fsx_xflags, HELD_XFLAGS) ||
	    is_held(fuse, now.fsx_projid ^ to->fsx_projid, UINT32_MAX))
		return -EPERM; /* a project is a quota */
	return ioctl(fd, FS_IOC_FSSETXATTR, to) < 0 ? -errno : 0;
}

int64_t sm_fuse_do_ioctl(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_ioctl_in in;
	struct fuse_ioctl_out *out = (void *)call->reply.body;
	struct sm_fuse_handle *handle;
	union {
		unsigned flags;
		struct fsxattr attributes;
	} data = { 0 };
	memcpy(&in, call->arg, sizeof in);
	bool gets = in.cmd == FS_IOC_GETFLAGS || in.cmd == FS_IOC32_GETFLAGS, xgets = in.cmd == FS_IOC_FSGETXATTR;
	bool sets = in.cmd == FS_IOC_SETFLAGS || in.cmd == FS_IOC32_SETFLAGS, xsets = in.cmd == FS_IOC_FSSETXATTR;
	if (!gets && !sets && !xgets && !xsets)
		return -ENOTTY;
	size_t size = gets || sets ? sizeof data.flags : sizeof data.attributes;
	if (in.in_size != call->arg_len - sizeof in || ((sets || xsets) && in.in_size < size) ||
	    ((gets || xgets) && (in.out_size < size || call->room < sizeof *out + size)))
		return sm_fuse_hostile(fuse, -EINVAL);
	if (fuse->mount.readonly && (sets || xsets))
		return -EROFS;
	int code = sm_fuse_handle_get(fuse, in.fh, call->head.nodeid, in.flags & FUSE_IOCTL_DIR, &handle);
	if (code < 0)
		return code;
	if (sets || xsets)
		memcpy(&data, call->arg + sizeof in, size);
	if (sets)
		code = set_flags(fuse, handle->fd, data.flags);
	else if (xsets)
		code = set_attributes(fuse, handle->fd, &data.attributes);
	else if (gets ? ioctl(handle->fd, FS_IOC_GETFLAGS, &data.flags) < 0
	              : ioctl(handle->fd, FS_IOC_FSGETXATTR, &data.attributes) < 0)
		code = -errno;
	sm_fuse_handle_put(fuse, handle);
	if (code < 0)
		return code;
	*out = (struct fuse_ioctl_out){ 0 };
	if (sets || xsets)
		return sizeof *out;
	memcpy(out + 1, &data, size);
	return (int64_t)(sizeof *out + size);
}
