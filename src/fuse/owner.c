/* Whose files are, and whose new ones become. */
#include "fuse/internal.h"

#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#define NOBODY 65534u /* an ID that the other side has no name for */

uint32_t sm_fuse_owner_out(struct sm_fuse *fuse, uint32_t id, bool group)
{
	const struct sm_mount *mount = &fuse->mount;
	if (mount->owners == SM_MOUNT_OWNERS_PASSTHROUGH)
		return id;
	if (mount->owners == SM_MOUNT_OWNERS_SQUASH)
		return id == (group ? (uint32_t)fuse->gid : (uint32_t)fuse->uid) ? 0 : NOBODY;
	for (unsigned i = 0; i < mount->nranges; i++)
		if (id >= mount->ranges[i].host && id - mount->ranges[i].host < mount->ranges[i].count)
			return mount->ranges[i].guest + (id - mount->ranges[i].host);
	return NOBODY;
}

int sm_fuse_owner_in(struct sm_fuse *fuse, uint32_t id, bool group, uint32_t *ret)
{
	const struct sm_mount *mount = &fuse->mount;
	*ret = id;
	if (mount->owners == SM_MOUNT_OWNERS_PASSTHROUGH)
		return id == UINT32_MAX ? -EINVAL : 0; /* "leave it" to chown(2) */
	if (mount->owners == SM_MOUNT_OWNERS_SQUASH) {
		*ret = group ? fuse->gid : fuse->uid;
		return id ? -EPERM : 0;
	}
	for (unsigned i = 0; i < mount->nranges; i++)
		if (id >= mount->ranges[i].guest && id - mount->ranges[i].guest < mount->ranges[i].count) {
			*ret = mount->ranges[i].host + (id - mount->ranges[i].guest);
			return *ret == UINT32_MAX ? -EOVERFLOW : 0;
		}
	return -EOVERFLOW;
}

int sm_fuse_owner_made(struct sm_fuse_call *call, int parent, int fd, mode_t mode, struct statx *st)
{
	struct sm_fuse *fuse = call->fuse;
	struct statx above;
	bool link = S_ISLNK(st->stx_mode);
	int code = sm_fuse_stat(parent, &above);
	if (code < 0)
		return code;
	bool inherits = above.stx_mode & S_ISGID;
	if (fuse->mount.owners != SM_MOUNT_OWNERS_SQUASH) {
		uint32_t uid, gid = st->stx_gid;
		code = sm_fuse_owner_in(fuse, call->head.uid, false, &uid);
		if (code >= 0 && !inherits)
			code = sm_fuse_owner_in(fuse, call->head.gid, true, &gid);
		if (code < 0)
			return code;
		/* Only what is ours can be what we made. */
		if (st->stx_uid != fuse->uid)
			return -ESTALE;
		if ((uid != st->stx_uid || gid != st->stx_gid) &&
		    fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
			return -errno;
	}
	/* The guest's umask has been applied, ours should not have been; and a change of owner clears bits.  A folder's
	 * default ACL takes the umask's place on both sides, and stays. */
	mode_t lost = mode & 07777 & ~(st->stx_mode & 07777u), wanted = st->stx_mode & 07777u;
	if (lost & fuse->umask && getxattr(sm_fuse_proc(parent).path, "system.posix_acl_default", NULL, 0) <= 0)
		wanted |= lost & fuse->umask;
	code = sm_fuse_stat(fd, st);
	if (code < 0 || link || (st->stx_mode & 07777u) == wanted)
		return code;
	if (chmod(sm_fuse_proc(fd).path, wanted) < 0)
		return -errno;
	return sm_fuse_stat(fd, st);
}

int sm_fuse_kill_priv(int fd)
{
	struct statx st;
	int code = sm_fuse_stat(fd, &st);
	if (code < 0 || !S_ISREG(st.stx_mode))
		return code;
	mode_t kill = S_ISUID | (st.stx_mode & S_IXGRP ? S_ISGID : 0);
	if (!(st.stx_mode & kill))
		return 0;
	return chmod(sm_fuse_proc(fd).path, st.stx_mode & 07777 & ~kill) < 0 ? -errno : 0;
}
