/* Extended attributes: of the names that the mount lets through. */
#include "fuse/internal.h"

#include <limits.h>
#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

int sm_fuse_xattr_parse(struct sm_fuse *fuse)
{
	for (const char *at = fuse->xattrs; *at;) {
		size_t len = strcspn(at, ",");
		if (fuse->npatterns == SM_FUSE_XATTRS || !len || len > XATTR_NAME_MAX)
			return -EINVAL;
		bool prefix = at[len - 1] == '*';
		fuse->patterns[fuse->npatterns].text = at;
		fuse->patterns[fuse->npatterns].len = len - prefix;
		fuse->patterns[fuse->npatterns++].prefix = prefix;
		at += len;
		if (*at == ',' && !*++at)
			return -EINVAL;
	}
	return 0;
}

static bool passes(const struct sm_fuse *fuse, const char *name)
{
	size_t len = strlen(name);
	for (unsigned i = 0; i < fuse->npatterns; i++)
		if ((fuse->patterns[i].prefix ? len > fuse->patterns[i].len : len == fuse->patterns[i].len) &&
		    !memcmp(name, fuse->patterns[i].text, fuse->patterns[i].len))
			return true;
	return false;
}

/* The name at `at` of len bytes; what it is not. */
static int check_name(struct sm_fuse *fuse, const char *name, size_t len, size_t *ret_len)
{
	*ret_len = strnlen(name, len);
	if (*ret_len == len || !*ret_len)
		return sm_fuse_hostile(fuse, -EINVAL);
	return *ret_len > XATTR_NAME_MAX ? -ERANGE : 0;
}

/* Common to all: a mount without any says so once, and is not asked again. */
static int begin(struct sm_fuse_call *call, struct sm_fuse_hold *ret)
{
	*ret = (struct sm_fuse_hold){ NULL, -1 };
	if (!call->fuse->npatterns)
		return -ENOSYS;
	if (call->fuse->only && call->head.nodeid == FUSE_ROOT_ID)
		return -EOPNOTSUPP;
	return sm_fuse_hold(call->fuse, call->head.nodeid, ret);
}

/* A reply of len bytes, or how many it would be. */
static int64_t reply(struct sm_fuse_call *call, uint32_t size, const void *data, size_t len)
{
	if (!size) {
		struct fuse_getxattr_out *out = (void *)call->reply.body;
		*out = (struct fuse_getxattr_out){ .size = (uint32_t)len };
		return call->room < sizeof *out ? -EINVAL : (int64_t)sizeof *out;
	}
	if (len > size || len > call->room)
		return -ERANGE;
	int code = sm_fuse_body(call);
	if (code >= 0)
		code = sm_fuse_span_put(&call->out, data, len);
	return code < 0 ? code : (int64_t)len;
}

int64_t sm_fuse_do_getxattr(struct sm_fuse_call *call)
{
	struct fuse_getxattr_in in;
	struct sm_fuse_hold hold;
	size_t len;
	const char *name = (const char *)call->arg + sizeof in;
	memcpy(&in, call->arg, sizeof in);
	int code = check_name(call->fuse, name, call->arg_len - sizeof in, &len);
	if (code >= 0 && sizeof in + len + 1 != call->arg_len)
		code = sm_fuse_hostile(call->fuse, -EINVAL);
	if (code < 0)
		return code;
	code = begin(call, &hold);
	if (code < 0)
		return code;
	size_t size = in.size < XATTR_SIZE_MAX ? in.size : XATTR_SIZE_MAX;
	char *value = size ? malloc(size) : NULL;
	int64_t result = size && !value ? -ENOMEM : passes(call->fuse, name) ? 0 : -ENODATA;
	if (result >= 0) {
		result = getxattr(sm_fuse_proc(hold.fd).path, name, value, size);
		result = result < 0 ? -errno : reply(call, in.size, value, (size_t)result);
	}
	free(value);
	sm_fuse_drop(call->fuse, &hold);
	return result;
}

int64_t sm_fuse_do_listxattr(struct sm_fuse_call *call)
{
	struct fuse_getxattr_in in;
	struct sm_fuse_hold hold;
	memcpy(&in, call->arg, sizeof in);
	int code = begin(call, &hold);
	if (code < 0)
		return code;
	char *list = malloc(XATTR_LIST_MAX + 1);
	int64_t result = list ? listxattr(sm_fuse_proc(hold.fd).path, list, XATTR_LIST_MAX) : -1;
	result = !list ? -ENOMEM : result < 0 ? -errno : result;
	if (result >= 0) {
		size_t kept = 0, all = (size_t)result;
		list[all] = 0;
		for (size_t at = 0, len; at < all; at += len) {
			len = strlen(list + at) + 1;
			if (!passes(call->fuse, list + at))
				continue;
			memmove(list + kept, list + at, len);
			kept += len;
		}
		result = reply(call, in.size, list, kept);
	}
	free(list);
	sm_fuse_drop(call->fuse, &hold);
	return result;
}

int64_t sm_fuse_do_setxattr(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_setxattr_in in = { 0 };
	struct sm_fuse_hold hold;
	size_t len, fixed = sm_fuse_agreed(fuse, FUSE_SETXATTR_EXT) ? sizeof in : FUSE_COMPAT_SETXATTR_IN_SIZE;
	if (sm_fuse_span_get(&call->in, &in, fixed) < 0)
		return sm_fuse_hostile(fuse, -EINVAL);
	size_t rest = sm_fuse_span_len(&call->in);
	if (in.size > XATTR_SIZE_MAX)
		return -E2BIG;
	if (rest < (size_t)in.size + 2 || rest > (size_t)in.size + 65536 || in.flags & ~(XATTR_CREATE | XATTR_REPLACE))
		return sm_fuse_hostile(fuse, -EINVAL);
	int code = begin(call, &hold);
	if (code < 0)
		return code;
	char *text = malloc(rest);
	code = !text ? -ENOMEM : sm_fuse_span_get(&call->in, text, rest);
	if (code >= 0)
		code = check_name(fuse, text, rest, &len);
	if (code >= 0 && len + 1 + in.size != rest)
		code = sm_fuse_hostile(fuse, -EINVAL);
	/* What copies files takes this for "not here", and goes on. */
	if (code >= 0 && !passes(fuse, text))
		code = -EOPNOTSUPP;
	if (code >= 0 && setxattr(sm_fuse_proc(hold.fd).path, text, text + len + 1, in.size, (int)in.flags) < 0)
		code = -errno;
	free(text);
	sm_fuse_drop(fuse, &hold);
	return code;
}

int64_t sm_fuse_do_removexattr(struct sm_fuse_call *call)
{
	struct sm_fuse_hold hold;
	size_t len;
	const char *name = (const char *)call->arg;
	int code = check_name(call->fuse, name, call->arg_len, &len);
	if (code >= 0 && len + 1 != call->arg_len)
		code = sm_fuse_hostile(call->fuse, -EINVAL);
	if (code < 0)
		return code;
	code = begin(call, &hold);
	if (code < 0)
		return code;
	if (!passes(call->fuse, name))
		code = -ENODATA;
	else if (removexattr(sm_fuse_proc(hold.fd).path, name) < 0)
		code = -errno;
	sm_fuse_drop(call->fuse, &hold);
	return code;
}
