#include "fuse/internal.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

int sm_fuse_lookup(struct sm_fuse *fuse, const struct sm_fuse_hold *parent, const char *name,
                   struct fuse_entry_out *ret)
{
	struct statx st;
	bool linked;
	int code = sm_fuse_look(fuse, parent->fd, name, &st, &linked);
	if (code < 0)
		return code;
	if (S_ISLNK(st.stx_mode) && (code = sm_fuse_link_allowed(fuse, parent, name)) < 0)
		return code;
	if (fuse->only && !S_ISREG(st.stx_mode))
		return -ENOENT; /* it was a file when the mount was made */
	return sm_fuse_node_enter(fuse, parent->node, name, &st, linked, -1, ret);
}

int64_t sm_fuse_do_lookup(struct sm_fuse_call *call)
{
	const char *name;
	size_t at = 0;
	struct sm_fuse_hold parent;
	struct fuse_entry_out *out = (void *)call->reply.body;
	int code = sm_fuse_name(call, &at, &name);
	if (code < 0)
		return code;
	code = sm_fuse_parent(call->fuse, call->head.nodeid, name, 0, &parent);
	if (code < 0)
		return code;
	code = sm_fuse_lookup(call->fuse, &parent, name, out);
	sm_fuse_drop(call->fuse, &parent);
	/* That there is none is remembered only where nobody else can make one. */
	if (code == -ENOENT && call->fuse->mount.cache == SM_MOUNT_CACHE_ALWAYS) {
		*out = (struct fuse_entry_out){ .entry_valid = call->fuse->valid };
		code = 0;
	}
	return code < 0 ? code : (int)sizeof *out;
}

int64_t sm_fuse_do_forget(struct sm_fuse_call *call)
{
	struct fuse_forget_in in;
	memcpy(&in, call->arg, sizeof in);
	if (!sm_fuse_node_forget(call->fuse, call->head.nodeid, in.nlookup))
		return sm_fuse_hostile(call->fuse, -EINVAL);
	return 0;
}

int64_t sm_fuse_do_batch_forget(struct sm_fuse_call *call)
{
	struct fuse_batch_forget_in in;
	struct fuse_forget_one some[64];
	memcpy(&in, call->arg, sizeof in);
	while (in.count) {
		unsigned n = in.count < 64 ? in.count : 64;
		if (sm_fuse_span_get(&call->in, some, n * sizeof *some) < 0)
			return sm_fuse_hostile(call->fuse, -EINVAL);
		for (unsigned i = 0; i < n; i++)
			if (!sm_fuse_node_forget(call->fuse, some[i].nodeid, some[i].nlookup))
				sm_fuse_hostile(call->fuse, 0);
		in.count -= n;
	}
	return 0;
}

int64_t sm_fuse_do_readlink(struct sm_fuse_call *call)
{
	char target[PATH_MAX];
	struct sm_fuse_hold hold;
	int code = sm_fuse_hold(call->fuse, call->head.nodeid, &hold);
	if (code < 0)
		return code;
	ssize_t len = hold.node->is.type == S_IFLNK ? readlinkat(hold.fd, "", target, sizeof target) : -1;
	code = len >= 0 ? 0 : hold.node->is.type == S_IFLNK ? -errno : -EINVAL;
	sm_fuse_drop(call->fuse, &hold);
	if (code < 0)
		return code;
	if ((size_t)len > call->room)
		return sm_fuse_hostile(call->fuse, -EINVAL);
	code = sm_fuse_body(call);
	if (code >= 0)
		code = sm_fuse_span_put(&call->out, target, (size_t)len);
	return code < 0 ? code : len;
}
