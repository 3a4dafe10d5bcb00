/* What makes a name. */
#include "fuse/internal.h"

#include "base/fd.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Whatever was just made by that name: it gets its owner and mode, and is a node that the guest knows.  fd: of it,
 * taken; -1: to be looked up.  On failure the name is taken away again. */
static int made(struct sm_fuse_call *call, struct sm_fuse_hold *parent, const char *name, mode_t mode, int fd,
                struct fuse_entry_out *ret)
{
	struct sm_fuse *fuse = call->fuse;
	struct statx st;
	if (fd < 0)
		fd = sm_fuse_walk(fuse, parent->fd, name, false);
	int code = fd < 0 ? fd : sm_fuse_stat(fd, &st);
	if (code >= 0 && (st.stx_mode & S_IFMT) != (mode & S_IFMT))
		code = -ESTALE; /* somebody put another thing there */
	if (code >= 0)
		code = sm_fuse_owner_made(call, parent->fd, fd, mode, &st);
	if (code >= 0)
		code = sm_fuse_node_enter(fuse, parent->node, name, &st, false, sm_fd_take(&fd), ret);
	sm_fd_close(&fd);
	if (code < 0 && code != -ESTALE)
		unlinkat(parent->fd, name, S_ISDIR(mode) ? AT_REMOVEDIR : 0);
	return code;
}

/* A name to be made, at `at` of the arguments. */
static int begin(struct sm_fuse_call *call, size_t at, const char **ret_name, struct sm_fuse_hold *ret_parent)
{
	int code = sm_fuse_name(call, &at, ret_name);
	if (code < 0)
		return code;
	if (at != call->arg_len)
		return sm_fuse_hostile(call->fuse, -EINVAL);
	return sm_fuse_parent(call->fuse, call->head.nodeid, *ret_name, -EPERM, ret_parent);
}

int64_t sm_fuse_do_mknod(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_mknod_in in;
	struct sm_fuse_hold parent;
	const char *name;
	memcpy(&in, call->arg, sizeof in);
	int code = begin(call, sizeof in, &name, &parent);
	if (code < 0)
		return code;
	mode_t type = in.mode & S_IFMT;
	if (!type)
		in.mode |= type = S_IFREG;
	if (type == S_IFCHR || type == S_IFBLK)
		code = fuse->mount.owners == SM_MOUNT_OWNERS_PASSTHROUGH ? 0 : -EPERM;
	else if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK)
		code = -EINVAL;
	dev_t dev = makedev(in.rdev >> 8 & 0xfff, (in.rdev & 0xff) | (in.rdev >> 12 & 0xfff00));
	if (code >= 0 && mknodat(parent.fd, name, in.mode & (S_IFMT | 07777), dev) < 0)
		code = -errno;
	if (code >= 0)
		code = made(call, &parent, name, in.mode, -1, (void *)call->reply.body);
	sm_fuse_drop(fuse, &parent);
	return code < 0 ? code : (int)sizeof(struct fuse_entry_out);
}

int64_t sm_fuse_do_mkdir(struct sm_fuse_call *call)
{
	struct fuse_mkdir_in in;
	struct sm_fuse_hold parent;
	const char *name;
	memcpy(&in, call->arg, sizeof in);
	int code = begin(call, sizeof in, &name, &parent);
	if (code < 0)
		return code;
	if (mkdirat(parent.fd, name, in.mode & 07777) < 0)
		code = -errno;
	else
		code = made(call, &parent, name, S_IFDIR | (in.mode & 07777), -1, (void *)call->reply.body);
	sm_fuse_drop(call->fuse, &parent);
	return code < 0 ? code : (int)sizeof(struct fuse_entry_out);
}

int64_t sm_fuse_do_symlink(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct sm_fuse_hold parent;
	const char *name;
	size_t at = 0;
	int code = sm_fuse_name(call, &at, &name);
	if (code < 0)
		return code;
	const char *target = (const char *)call->arg + at;
	size_t left = call->arg_len - at, len = strnlen(target, left);
	if (len + 1 != left)
		return sm_fuse_hostile(fuse, -EINVAL);
	if (fuse->mount.symlinks == SM_MOUNT_SYMLINKS_DENY)
		return -EPERM;
	code = sm_fuse_parent(fuse, call->head.nodeid, name, -EPERM, &parent);
	if (code < 0)
		return code;
	if (symlinkat(target, parent.fd, name) < 0)
		code = -errno;
	else
		code = made(call, &parent, name, S_IFLNK | 0777, -1, (void *)call->reply.body);
	sm_fuse_drop(fuse, &parent);
	return code < 0 ? code : (int)sizeof(struct fuse_entry_out);
}

int64_t sm_fuse_do_link(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_link_in in;
	struct sm_fuse_hold parent, old;
	struct statx st;
	const char *name;
	memcpy(&in, call->arg, sizeof in);
	if (fuse->mount.symlinks == SM_MOUNT_SYMLINKS_DENY)
		return -EPERM;
	int code = begin(call, sizeof in, &name, &parent);
	if (code < 0)
		return code;
	code = sm_fuse_hold(fuse, in.oldnodeid, &old);
	if (code >= 0) {
		if (old.node->is.type == S_IFDIR)
			code = -EPERM;
		else if (linkat(AT_FDCWD, sm_fuse_proc(old.fd).path, parent.fd, name, AT_SYMLINK_FOLLOW) < 0)
			code = -errno;
		else
			code = sm_fuse_stat(old.fd, &st);
		if (code >= 0)
			code = sm_fuse_node_enter(fuse, parent.node, name, &st, false, -1, (void *)call->reply.body);
		sm_fuse_drop(fuse, &old);
	}
	sm_fuse_drop(fuse, &parent);
	return code < 0 ? code : (int)sizeof(struct fuse_entry_out);
}

/* Files that are made and opened at once ------------------------------------------------------------------------- */

struct both {
	struct fuse_entry_out entry;
	struct fuse_open_out open;
};

/* The node that ret->entry names gets a handle; without one it is forgotten.  fd is taken. */
static int open_made(struct sm_fuse_call *call, int fd, uint32_t flags, struct both *ret)
{
	struct sm_fuse *fuse = call->fuse;
	struct sm_fuse_node *node = sm_fuse_node_get(fuse, ret->entry.nodeid);
	int code = node ? 0 : -ESTALE;
	ret->open = (struct fuse_open_out){ .open_flags = sm_fuse_open_flags(fuse, flags) };
	if (code >= 0)
		code = sm_fuse_handle_new(fuse, node, sm_fd_take(&fd), flags, false, &ret->open.fh);
	sm_fd_close(&fd);
	if (code < 0)
		sm_fuse_node_forget(fuse, ret->entry.nodeid, 1);
	sm_fuse_node_put(fuse, node);
	return code;
}

/* It was there already. */
static int open_found(struct sm_fuse_call *call, const struct sm_fuse_hold *parent, const char *name,
                      const struct fuse_create_in *in, struct both *ret)
{
	struct sm_fuse *fuse = call->fuse;
	struct sm_fuse_hold hold;
	int code = sm_fuse_lookup(fuse, parent, name, &ret->entry);
	if (code < 0)
		return code;
	code = sm_fuse_hold(fuse, ret->entry.nodeid, &hold);
	if (code >= 0) {
		/* A link or a fifo: the guest thought there was nothing, and looks again. */
		if (hold.node->is.type != S_IFREG)
			code = hold.node->is.type == S_IFDIR ? -EISDIR : -ESTALE;
		else
			code = sm_fuse_open_file(fuse, hold.fd, in->flags, in->open_flags);
		sm_fuse_drop(fuse, &hold);
	}
	if (code < 0) {
		sm_fuse_node_forget(fuse, ret->entry.nodeid, 1);
		return code;
	}
	return open_made(call, code, sm_fuse_host_flags(fuse, in->flags), ret);
}

int64_t sm_fuse_do_create(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_create_in in;
	struct sm_fuse_hold parent;
	struct both *out = (void *)call->reply.body;
	const char *name;
	memcpy(&in, call->arg, sizeof in);
	size_t at = sizeof in;
	int code = sm_fuse_name(call, &at, &name);
	if (code >= 0 && at != call->arg_len)
		code = sm_fuse_hostile(fuse, -EINVAL);
	/* What is there may be opened where nothing can be made. */
	bool only = code >= 0 && fuse->only && call->head.nodeid == FUSE_ROOT_ID;
	if (code >= 0)
		code = sm_fuse_parent(fuse, call->head.nodeid, name, only && !strcmp(name, fuse->only) ? 0 : -EPERM,
		                      &parent);
	if (code < 0)
		return code;
	uint32_t flags = sm_fuse_host_flags(fuse, in.flags);
	int fd = only ? -EEXIST : sm_fuse_create(fuse, parent.fd, name, (int)flags, in.mode & 07777);
	if (fd == -EEXIST && !(in.flags & O_EXCL)) {
		code = open_found(call, &parent, name, &in, out);
	} else if (fd < 0) {
		code = fd;
	} else {
		/* The node keeps one of its own: the guest may take the name away and still ask for the file's size. */
		int path = sm_fuse_reopen(fuse, fd, S_IFREG, O_PATH);
		code = path < 0 ? path : made(call, &parent, name, S_IFREG | (in.mode & 07777), path, &out->entry);
		if (code >= 0)
			code = open_made(call, sm_fd_take(&fd), flags, out);
		sm_fd_close(&fd);
	}
	sm_fuse_drop(fuse, &parent);
	return code < 0 ? code : (int)sizeof *out;
}

int64_t sm_fuse_do_tmpfile(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_create_in in;
	struct sm_fuse_hold parent;
	struct statx st;
	struct both *out = (void *)call->reply.body;
	memcpy(&in, call->arg, sizeof in);
	/* The name is Linux's own for a file without one. */
	int code = sm_fuse_parent(fuse, call->head.nodeid, "", -EPERM, &parent);
	if (code < 0)
		return code;
	uint32_t flags = sm_fuse_host_flags(fuse, in.flags);
	int fd = sm_fuse_tmpfile(fuse, parent.fd, (int)flags, in.mode & 07777);
	int path = fd < 0 ? fd : sm_fuse_reopen(fuse, fd, S_IFREG, O_PATH);
	code = path < 0 ? path : sm_fuse_stat(path, &st);
	if (code >= 0)
		code = sm_fuse_owner_made(call, parent.fd, path, in.mode, &st);
	if (code >= 0)
		code = sm_fuse_node_enter(fuse, parent.node, "", &st, false, sm_fd_take(&path), &out->entry);
	if (code >= 0)
		code = open_made(call, sm_fd_take(&fd), flags, out);
	sm_fd_close(&path);
	sm_fd_close(&fd);
	sm_fuse_drop(fuse, &parent);
	return code < 0 ? code : (int)sizeof *out;
}
