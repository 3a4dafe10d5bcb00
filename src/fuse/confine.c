/* Where names and links of the guest meet the host: one component at a time, below a folder that is open already. */
#include "fuse/internal.h"

#include "base/fd.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STAT_MASK (STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID)

int sm_fuse_name(struct sm_fuse_call *call, size_t *at, const char **ret_name)
{
	const char *name = (const char *)call->arg + *at;
	size_t left = call->arg_len - *at, len = strnlen(name, left);
	if (len == left)
		return sm_fuse_hostile(call->fuse, -EINVAL);
	if (len > SM_FUSE_NAME_MAX)
		return -ENAMETOOLONG;
	if (!len || memchr(name, '/', len) || !strcmp(name, ".") || !strcmp(name, ".."))
		return sm_fuse_hostile(call->fuse, -EINVAL);
	*at += len + 1;
	*ret_name = name;
	return 0;
}

int sm_fuse_parent(struct sm_fuse *fuse, uint64_t id, const char *name, int change, struct sm_fuse_hold *ret)
{
	*ret = (struct sm_fuse_hold){ NULL, -1 };
	if (fuse->only && id == FUSE_ROOT_ID) {
		if (change)
			return strcmp(name, fuse->only) ? change : -EBUSY;
		if (strcmp(name, fuse->only))
			return -ENOENT;
	}
	int code = sm_fuse_hold(fuse, id, ret);
	if (code < 0)
		return code;
	if (ret->node->is.type == S_IFDIR)
		return 0;
	sm_fuse_drop(fuse, ret);
	return sm_fuse_hostile(fuse, -ENOTDIR);
}

int sm_fuse_stat(int fd, struct statx *ret)
{
	return statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STAT_MASK, ret) < 0 ? -errno : 0;
}

/* A descriptor more; those that are only kept in case make room where the host has none. */
static int open_more(struct sm_fuse *fuse, int at, const char *path, const struct open_how *how)
{
	for (unsigned again = 0;;) {
		int fd = (int)syscall(SYS_openat2, at, path, how, sizeof *how);
		if (fd >= 0)
			return fd;
		int code = -errno;
		if (code == -EINTR || (code == -EAGAIN && ++again < 64))
			continue; /* EAGAIN: a rename crossed RESOLVE_BENEATH */
		if ((code != -EMFILE && code != -ENFILE) || !sm_fuse_nodes_shed(fuse))
			return code;
	}
}

int sm_fuse_walk(struct sm_fuse *fuse, int parent, const char *name, bool follow)
{
	const struct open_how how = {
		.flags = O_PATH | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW),
		.resolve = RESOLVE_NO_MAGICLINKS | (follow ? 0 : RESOLVE_BENEATH),
	};
	return open_more(fuse, parent, name, &how);
}

int sm_fuse_create(struct sm_fuse *fuse, int parent, const char *name, int flags, mode_t mode)
{
	const struct open_how how = {
		.flags = (uint64_t)(flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC),
		.mode = mode,
		.resolve = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
	};
	return open_more(fuse, parent, name, &how);
}

int sm_fuse_tmpfile(struct sm_fuse *fuse, int parent, int flags, mode_t mode)
{
	const struct open_how how = {
		.flags = (uint64_t)(flags | O_TMPFILE | O_CLOEXEC),
		.mode = mode,
		.resolve = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
	};
	return open_more(fuse, parent, ".", &how);
}

int sm_fuse_look(struct sm_fuse *fuse, int parent, const char *name, struct statx *ret, bool *ret_linked)
{
	*ret_linked = false;
	/* One component that is not followed is as confined as openat2 makes it, and a descriptor less. */
	if (statx(parent, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STAT_MASK, ret) < 0)
		return -errno;
	if (fuse->mount.symlinks != SM_MOUNT_SYMLINKS_FOLLOW || !S_ISLNK(ret->stx_mode))
		return 0;
	int fd = sm_fuse_walk(fuse, parent, name, true);
	struct statx st;
	if (fd >= 0 && sm_fuse_stat(fd, &st) == 0) {
		*ret = st;
		*ret_linked = true;
	}
	sm_fd_close(&fd);
	return 0; /* one that leads nowhere is shown as it is */
}

struct sm_fuse_proc sm_fuse_proc(int fd)
{
	struct sm_fuse_proc proc = { "/proc/self/fd/" };
	char digits[12];
	size_t n = 0, at = sizeof "/proc/self/fd/" - 1;
	do
		digits[n++] = (char)('0' + fd % 10);
	while ((fd /= 10) > 0);
	while (n)
		proc.path[at++] = digits[--n];
	proc.path[at] = 0;
	return proc;
}

int sm_fuse_reopen(struct sm_fuse *fuse, int fd, uint32_t type, int flags)
{
	/* A fifo would block, a device would do whatever it does. */
	if (type != S_IFREG && type != S_IFDIR)
		return type == S_IFLNK ? -ELOOP : -ENXIO;
	const struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC | (type == S_IFDIR ? O_DIRECTORY : 0)),
	};
	return open_more(fuse, AT_FDCWD, sm_fuse_proc(fd).path, &how);
}

/* The node's path from the root, with a NUL behind it that ends at out + end; its start, or 0: too long. */
static size_t path_of(struct sm_fuse *fuse, const struct sm_fuse_node *folder, char *out, size_t end)
{
	size_t at = end - 1;
	out[at] = 0;
	pthread_mutex_lock(&fuse->nodes.lock);
	for (const struct sm_fuse_node *node = folder; at && node && node->parent; node = node->parent) {
		size_t len = strlen(node->name);
		if (len + 2 > at) {
			at = 0;
			break;
		}
		if (out[at])
			out[--at] = '/';
		at -= len;
		memcpy(out + at, node->name, len);
	}
	pthread_mutex_unlock(&fuse->nodes.lock);
	return at;
}

/* Where that leads, below the root. */
static int resolve(struct sm_fuse *fuse, const char *path, uint64_t more)
{
	const struct open_how how = { .flags = O_PATH | O_CLOEXEC,
		                      .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | more };
	return open_more(fuse, fuse->nodes.root.fd, *path ? path : ".", &how);
}

int sm_fuse_link_allowed(struct sm_fuse *fuse, const struct sm_fuse_hold *parent, const char *name)
{
	if (fuse->mount.symlinks != SM_MOUNT_SYMLINKS_DENY)
		return 0;
	char path[PATH_MAX + SM_FUSE_NAME_MAX + 2];
	size_t start = path_of(fuse, parent->node, path, PATH_MAX);
	if (!start)
		return -EACCES;
	/* The folder that the name is in is still there: else the host has moved it, and the guest asks for it anew. */
	struct statx here, there;
	int fd = resolve(fuse, path + start, RESOLVE_NO_SYMLINKS);
	bool same = fd >= 0 && sm_fuse_stat(fd, &there) == 0 && sm_fuse_stat(parent->fd, &here) == 0 &&
	            here.stx_ino == there.stx_ino && here.stx_mnt_id == there.stx_mnt_id;
	sm_fd_close(&fd);
	if (!same)
		return -EACCES;
	/* Only asked, never used: where it leads may change the next moment, and we follow none. */
	size_t end = PATH_MAX - 1;
	if (path[start])
		path[end++] = '/';
	else
		start = end;
	memcpy(path + end, name, strlen(name) + 1);
	fd = resolve(fuse, path + start, 0);
	int code = fd;
	sm_fd_close(&fd);
	return code == -EXDEV || code == -ELOOP || code == -EACCES ? -EACCES : 0;
}
