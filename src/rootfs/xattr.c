#include "rootfs/xattr.h"

#include "rootfs/erofs_format.h"
#include "rootfs/tree_path.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XATTRS_MAX      1024
#define XATTR_BYTES_MAX (128u << 10) /* of one file; the format could hold 256 KiB */
#define XATTR_VALUE_MAX 65535u

struct xattr {
	uint8_t index;
	uint8_t len;
	const char *name; /* after the prefix */
	const void *value;
	size_t size;
};

static const struct {
	const char *prefix;
	uint8_t index;
	bool whole; /* the prefix is the whole name */
} prefixes[] = {
	{ "user.", EROFS_XATTR_INDEX_USER, false },
	{ "system.posix_acl_access", EROFS_XATTR_INDEX_POSIX_ACL_ACCESS, true },
	{ "system.posix_acl_default", EROFS_XATTR_INDEX_POSIX_ACL_DEFAULT, true },
	{ "trusted.", EROFS_XATTR_INDEX_TRUSTED, false },
	{ "security.", EROFS_XATTR_INDEX_SECURITY, false },
};

const uint8_t sm_xattr_opaque[SM_XATTR_OPAQUE_BYTES] = {
	14, EROFS_XATTR_INDEX_TRUSTED, 1, 0, 'o', 'v', 'e', 'r', 'l', 'a', 'y', '.', 'o', 'p', 'a', 'q', 'u', 'e', 'y',
	0,
};

/* 1 when the name has a place in the format, 0 when not. */
static int take_name(const char *name, struct xattr *xattr, struct sm_error *err)
{
	char shown[SM_TREE_SHOWN_MAX];
	for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
		size_t skip = strlen(prefixes[i].prefix);
		if (strncmp(name, prefixes[i].prefix, skip))
			continue;
		size_t len = strlen(name + skip);
		if (prefixes[i].whole != !len)
			return 0;
		sm_tree_path_shown(name, shown);
		if (prefixes[i].index == EROFS_XATTR_INDEX_TRUSTED && !strncmp(name + skip, "overlay.", 8))
			return sm_error_set(err, EBADMSG, "extended attribute '%s' is not a layer's to set", shown);
		if (len + skip > 255)
			return sm_error_set(err, E2BIG, "extended attribute '%s' has too long a name", shown);
		xattr->index = prefixes[i].index;
		xattr->name = name + skip;
		xattr->len = (uint8_t)len;
		return 1;
	}
	return 0;
}

static int compare(const void *left, const void *right)
{
	const struct xattr *a = left, *b = right;
	if (a->index != b->index)
		return a->index - b->index;
	return strcmp(a->name, b->name);
}

static size_t encoded_bytes(const struct xattr *xattr)
{
	return (sizeof(struct erofs_xattr_entry) + xattr->len + xattr->size + 3) & ~(size_t)3;
}

/* Archivers write one attribute under more than one key, so equal twins are one; unequal ones have no answer. */
static int drop_twins(struct xattr *xattrs, size_t *count, struct sm_error *err)
{
	size_t kept = 0;
	for (size_t i = 0; i < *count; i++) {
		struct xattr *last = kept ? &xattrs[kept - 1] : NULL;
		if (!last || compare(last, &xattrs[i])) {
			xattrs[kept++] = xattrs[i];
			continue;
		}
		char shown[SM_TREE_SHOWN_MAX];
		if (last->size != xattrs[i].size || memcmp(last->value, xattrs[i].value, last->size))
			return sm_error_set(err, EBADMSG, "extended attribute '%s' is there twice, with two values",
			                    sm_tree_path_shown(last->name, shown));
	}
	*count = kept;
	return 0;
}

static int collect(const struct sm_oci_archive_library *lib, struct archive_entry *entry, struct xattr *xattrs,
                   size_t *ret_count, uint64_t *dropped, struct sm_error *err)
{
	const char *name;
	const void *value;
	size_t size;
	lib->entry_xattr_reset(entry);
	while (lib->entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
		if (!name) { /* a name that the library could not decode */
			++*dropped;
			continue;
		}
		int taken = take_name(name, &xattrs[*ret_count], err);
		if (taken < 0)
			return taken;
		if (!taken) {
			++*dropped;
			continue;
		}
		if (size > XATTR_VALUE_MAX)
			return sm_error_set(err, E2BIG, "an extended attribute has %zu bytes", size);
		xattrs[*ret_count].value = size ? value : "";
		xattrs[*ret_count].size = size;
		++*ret_count;
	}
	return 0;
}

static int encode(struct xattr *xattrs, size_t count, struct sm_arena *arena, const void **ret_xattrs,
                  uint32_t *ret_bytes, struct sm_error *err)
{
	size_t bytes = 0;
	for (size_t i = 0; i < count; i++)
		bytes += encoded_bytes(&xattrs[i]);
	if (bytes > XATTR_BYTES_MAX)
		return sm_error_set(err, E2BIG, "the extended attributes have %zu bytes, at most %u fit", bytes,
		                    XATTR_BYTES_MAX);
	uint8_t *out = bytes ? sm_arena_alloc(arena, bytes) : NULL;
	if (bytes && !out)
		return sm_error_sys(err, errno, "extended attributes");
	*ret_xattrs = out;
	*ret_bytes = (uint32_t)bytes;
	for (size_t i = 0; i < count; i++) {
		const struct xattr *xattr = &xattrs[i];
		struct erofs_xattr_entry header = { xattr->len, xattr->index, htole16((uint16_t)xattr->size) };
		memcpy(out, &header, sizeof header);
		memcpy(out + sizeof header, xattr->name, xattr->len);
		memcpy(out + sizeof header + xattr->len, xattr->value, xattr->size);
		out += encoded_bytes(xattr);
	}
	return 0;
}

int sm_xattr_encode(const struct sm_oci_archive_library *lib, struct archive_entry *entry, struct sm_arena *arena,
                    const void **ret_xattrs, uint32_t *ret_bytes, uint64_t *dropped, struct sm_error *err)
{
	*ret_xattrs = NULL;
	*ret_bytes = 0;
	int total = lib->entry_xattr_count(entry);
	if (total <= 0)
		return 0;
	if (total > XATTRS_MAX)
		return sm_error_set(err, E2BIG, "%d extended attributes, at most %d fit", total, XATTRS_MAX);
	struct xattr *xattrs = calloc((size_t)total, sizeof *xattrs);
	if (!xattrs)
		return sm_error_sys(err, ENOMEM, "extended attributes");
	size_t count = 0;
	int code = collect(lib, entry, xattrs, &count, dropped, err);
	if (code == 0 && count > 1)
		qsort(xattrs, count, sizeof *xattrs, compare);
	if (code == 0)
		code = drop_twins(xattrs, &count, err);
	if (code == 0)
		code = encode(xattrs, count, arena, ret_xattrs, ret_bytes, err);
	free(xattrs);
	return code;
}
