#include "rootfs/tree_path.h"

#include <errno.h>
#include <string.h>

#define WHITEOUT        ".wh."
#define WHITEOUT_META   ".wh..wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"

static bool is_name(const char *at, size_t len, const char *name)
{
	return len == strlen(name) && !memcmp(at, name, len);
}

static bool has_prefix(const char *at, size_t len, const char *prefix)
{
	return len >= strlen(prefix) && !memcmp(at, prefix, strlen(prefix));
}

int sm_tree_path_clean(const char *raw, const char *what, char out[SM_TREE_PATH_MAX], struct sm_error *err)
{
	size_t used = 0;
	if (!raw[0])
		return sm_error_set(err, EBADMSG, "%s is empty", what);
	for (const char *at = raw; *at;) {
		size_t len = strcspn(at, "/");
		if (is_name(at, len, ".."))
			return sm_error_set(err, EBADMSG, "%s leads out of the image by '..'", what);
		if (len && !is_name(at, len, ".")) {
			size_t skip = has_prefix(at, len, WHITEOUT) ? strlen(WHITEOUT) : 0;
			if (len - skip > SM_TREE_NAME_MAX)
				return sm_error_set(err, ENAMETOOLONG,
				                    "%s has a component of %zu bytes, at most %d fit", what, len,
				                    SM_TREE_NAME_MAX);
			if (used + len + 2 > SM_TREE_PATH_MAX)
				return sm_error_set(err, ENAMETOOLONG, "%s is longer than %d bytes", what,
				                    SM_TREE_PATH_MAX - 1);
			if (used)
				out[used++] = '/';
			memcpy(out + used, at, len);
			used += len;
		}
		at += len;
		at += strspn(at, "/");
	}
	out[used] = 0;
	return 0;
}

const char *sm_tree_path_split(const char *path, char parent[SM_TREE_PATH_MAX])
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;
	memcpy(parent, path, len);
	parent[len] = 0;
	return slash ? slash + 1 : path;
}

int sm_tree_path_whiteout(char path[SM_TREE_PATH_MAX], enum sm_tree_whiteout *ret_kind, struct sm_error *err)
{
	*ret_kind = SM_TREE_PLAIN;
	for (char *at = path; *at;) {
		size_t len = strcspn(at, "/");
		bool last = !at[len];
		if (last && is_name(at, len, WHITEOUT_OPAQUE)) {
			*ret_kind = SM_TREE_OPAQUE;
			at[at == path ? 0 : -1] = 0;
			return 0;
		}
		if (has_prefix(at, len, WHITEOUT_META)) {
			*ret_kind = SM_TREE_IGNORED;
			return 0;
		}
		if (has_prefix(at, len, WHITEOUT)) {
			size_t skip = strlen(WHITEOUT);
			const char *name = at + skip;
			if (!last)
				return sm_error_set(err, EBADMSG, "path goes through a whiteout");
			if (is_name(name, len - skip, "") || is_name(name, len - skip, ".") ||
			    is_name(name, len - skip, ".."))
				return sm_error_set(err, EBADMSG, "whiteout names nothing that can be hidden");
			*ret_kind = SM_TREE_HIDE;
			memmove(at, name, len - skip + 1);
			return 0;
		}
		at += len + !last;
	}
	return 0;
}

const char *sm_tree_path_shown(const char *path, char out[SM_TREE_SHOWN_MAX])
{
	size_t len = 0;
	for (; path[len] && len < SM_TREE_SHOWN_MAX - 4; len++)
		out[len] = (unsigned char)path[len] < ' ' || path[len] == 0x7f ? '?' : path[len];
	const char *end = path[len] ? "..." : "";
	memcpy(out + len, end, strlen(end) + 1);
	return out;
}
