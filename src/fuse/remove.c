/* What takes a name away, or to another place. */
#include "fuse/internal.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A name is about to go.  A node that is found by it has a descriptor first: the guest's kernel may have it written to,
 * or its times set, after the last name is gone. */
static void keep(struct sm_fuse *fuse, const struct sm_fuse_hold *parent, const char *name)
{
	struct statx st;
	struct sm_fuse_hold hold;
	if (statx(parent->fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
	          STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID, &st) < 0)
		return;
	struct sm_fuse_node *node = sm_fuse_node_known(fuse, parent->node, name, &st);
	if (node && sm_fuse_hold_node(fuse, node, &hold) >= 0)
		sm_fuse_drop(fuse, &hold);
	sm_fuse_node_put(fuse, node);
}

static int64_t remove_name(struct sm_fuse_call *call, int flags)
{
	struct sm_fuse_hold parent;
	const char *name;
	size_t at = 0;
	int code = sm_fuse_name(call, &at, &name);
	if (code >= 0 && at != call->arg_len)
		code = sm_fuse_hostile(call->fuse, -EINVAL);
	if (code >= 0)
		code = sm_fuse_parent(call->fuse, call->head.nodeid, name, -EPERM, &parent);
	if (code < 0)
		return code;
	keep(call->fuse, &parent, name);
	if (unlinkat(parent.fd, name, flags) < 0)
		code = -errno;
	sm_fuse_drop(call->fuse, &parent);
	return code;
}

int64_t sm_fuse_do_unlink(struct sm_fuse_call *call)
{
	return remove_name(call, 0);
}

int64_t sm_fuse_do_rmdir(struct sm_fuse_call *call)
{
	return remove_name(call, AT_REMOVEDIR);
}

/* What is there now, if it is a node of ours, knows it. */
static void found_at(struct sm_fuse *fuse, const struct sm_fuse_hold *parent, const char *name)
{
	struct statx st;
	if (statx(parent->fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
	          STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID, &st) == 0)
		sm_fuse_node_moved(fuse, parent->node, name, &st);
}

static int64_t rename_name(struct sm_fuse_call *call, size_t at, uint64_t newdir, unsigned flags)
{
	struct sm_fuse *fuse = call->fuse;
	struct sm_fuse_hold from, to;
	const char *name, *newname;
	int code = sm_fuse_name(call, &at, &name);
	if (code >= 0)
		code = sm_fuse_name(call, &at, &newname);
	if (code >= 0 && at != call->arg_len)
		code = sm_fuse_hostile(fuse, -EINVAL);
	if (code >= 0)
		code = sm_fuse_parent(fuse, call->head.nodeid, name, -EPERM, &from);
	if (code < 0)
		return code;
	code = sm_fuse_parent(fuse, newdir, newname, -EPERM, &to);
	if (code >= 0) {
		if (!(flags & (RENAME_NOREPLACE | RENAME_EXCHANGE)))
			keep(fuse, &to, newname);
		if (renameat2(from.fd, name, to.fd, newname, flags) < 0)
			code = -errno;
		if (code >= 0)
			found_at(fuse, &to, newname);
		if (code >= 0 && flags & RENAME_EXCHANGE)
			found_at(fuse, &from, name);
		sm_fuse_drop(fuse, &to);
	}
	sm_fuse_drop(fuse, &from);
	return code;
}

int64_t sm_fuse_do_rename(struct sm_fuse_call *call)
{
	struct fuse_rename_in in;
	memcpy(&in, call->arg, sizeof in);
	return rename_name(call, sizeof in, in.newdir, 0);
}

int64_t sm_fuse_do_rename2(struct sm_fuse_call *call)
{
	struct fuse_rename2_in in;
	memcpy(&in, call->arg, sizeof in);
	/* A whiteout is a device. */
	if (in.flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	return rename_name(call, sizeof in, in.newdir, in.flags);
}
