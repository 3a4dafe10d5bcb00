#include "rootfs/initramfs.h"

#include "base/fd.h"
#include "rootfs/tree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_BYTES     (64u << 10)
#define FILE_MAX       (1ull << 31) /* the format holds 32-bit sizes; the guest holds it all in memory */
#define ENTRIES_MAX    65536u
#define NAME_BYTES_MAX (64u << 20)
#define HEADER_BYTES   110u
#define BLOCK          512u /* what the whole is a multiple of */

struct writer {
	int fd;
	struct sm_tree *tree; /* knows which paths were written */
	uint32_t ino;
	uint64_t bytes; /* written so far */
	uint8_t *buffer;
};

static int put_data(struct writer *writer, const void *data, size_t len, struct sm_error *err)
{
	int code = sm_fd_write_full(writer->fd, data, len);
	writer->bytes += len;
	return code < 0 ? sm_error_sys(err, code, "write initramfs") : 0;
}

/* Zeros up to the next multiple of a power of two. */
static int put_padding(struct writer *writer, size_t unit, struct sm_error *err)
{
	static const uint8_t zeros[BLOCK];
	size_t len = (size_t)(-writer->bytes & (unit - 1));
	return len ? put_data(writer, zeros, len, err) : 0;
}

/* Thirteen fields of eight hexadecimal digits behind the magic, then the name with its NUL. */
static int put_header(struct writer *writer, const char *path, uint32_t mode, uint64_t size,
                      const struct sm_initramfs_entry *from, struct sm_error *err)
{
	char header[HEADER_BYTES + SM_TREE_PATH_MAX];
	bool device = S_ISCHR(mode) || S_ISBLK(mode);
	int len = snprintf(header, sizeof header, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s",
	                   mode ? ++writer->ino : 0, mode, 0, 0, S_ISDIR(mode) ? 2 : 1, 0, (uint32_t)size, 0, 0,
	                   device ? from->major : 0, device ? from->minor : 0, (uint32_t)strlen(path) + 1, 0, path);
	if ((size_t)len >= sizeof header)
		return sm_error_set(err, ENAMETOOLONG, "path of %zu bytes", strlen(path));
	int code = put_data(writer, header, (size_t)len + 1, err);
	return code < 0 ? code : put_padding(writer, 4, err);
}

static int put_file(struct writer *writer, uint64_t size, int fd, struct sm_error *err)
{
	for (uint64_t offset = 0; offset < size;) {
		size_t part = size - offset < COPY_BYTES ? (size_t)(size - offset) : COPY_BYTES;
		int code = sm_fd_pread_full(fd, writer->buffer, part, offset);
		if (code < 0)
			return sm_error_sys(err, code, "read content");
		code = put_data(writer, writer->buffer, part, err);
		if (code < 0)
			return code;
		offset += part;
	}
	return 0;
}

static int put_parents(struct writer *writer, const char *path, struct sm_error *err)
{
	char parent[SM_TREE_PATH_MAX];
	for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		uint32_t before = writer->tree->nnames;
		memcpy(parent, path, (size_t)(slash - path));
		parent[slash - path] = 0;
		int code = sm_tree_directory(writer->tree, parent, err);
		if (code == 0 && writer->tree->nnames != before)
			code = put_header(writer, parent, S_IFDIR | 0755, 0, NULL, err);
		if (code < 0)
			return code;
	}
	return 0;
}

static int entry_size(const struct sm_initramfs_entry *from, uint64_t *ret_size, struct sm_error *err)
{
	struct stat status;
	*ret_size = S_ISREG(from->mode) || S_ISLNK(from->mode) ? from->data_len : 0;
	if (S_ISLNK(from->mode) && (!from->data || !from->data_len || strlen(from->data) != from->data_len))
		return sm_error_set(err, EINVAL, "symlink without a proper target");
	if (*ret_size > FILE_MAX)
		return sm_error_set(err, EFBIG, "content of more than 2 GiB");
	if (!S_ISREG(from->mode) || from->fd < 0)
		return 0;
	if (fstat(from->fd, &status) < 0)
		return sm_error_sys(err, errno, "read content");
	if (!S_ISREG(status.st_mode) || (uint64_t)status.st_size > FILE_MAX)
		return sm_error_set(err, EINVAL, "content is no regular file below 2 GiB");
	*ret_size = (uint64_t)status.st_size;
	return 0;
}

static int put_entry(struct writer *writer, const struct sm_initramfs_entry *from, struct sm_error *err)
{
	char path[SM_TREE_PATH_MAX];
	uint64_t size;
	/* The tree is for the names alone: it is not to follow symlinks. */
	struct sm_tree_attributes attributes = { .mode = S_ISLNK(from->mode) ? S_IFREG : from->mode };
	struct sm_tree_node *node;
	int code = sm_tree_path_clean(from->path, "path", path, err);
	if (code == 0)
		code = entry_size(from, &size, err);
	if (code == 0 && !path[0])
		code = sm_error_set(err, EINVAL, "the root needs no entry");
	if (code == 0)
		code = put_parents(writer, path, err);
	/* Its parents are there, so that a new path is one more name. */
	uint32_t before = writer->tree->nnames;
	if (code == 0)
		code = sm_tree_add(writer->tree, path, &attributes, &node, err);
	if (code == 0 && writer->tree->nnames == before)
		code = sm_error_set(err, EINVAL, "given twice");
	if (code == 0)
		code = put_header(writer, path, from->mode, size, from, err);
	if (code == 0 && S_ISREG(from->mode) && from->fd >= 0)
		code = put_file(writer, size, from->fd, err);
	else if (code == 0)
		code = put_data(writer, from->data, (size_t)size, err);
	if (code == 0)
		code = put_padding(writer, 4, err);
	return code < 0 ? sm_error_context(err, "initramfs entry '%s'", from->path) : 0;
}

int sm_initramfs_write(int fd, const struct sm_initramfs_entry *entries, size_t nentries, struct sm_error *err)
{
	struct writer writer = { .fd = fd, .buffer = malloc(COPY_BYTES) };
	if (!writer.buffer)
		return sm_error_sys(err, ENOMEM, "initramfs");
	int code = sm_tree_new(NAME_BYTES_MAX, ENTRIES_MAX, &writer.tree, err);
	for (size_t i = 0; i < nentries && code == 0; i++)
		code = put_entry(&writer, &entries[i], err);
	if (code == 0)
		code = put_header(&writer, "TRAILER!!!", 0, 0, NULL, err);
	if (code == 0)
		code = put_padding(&writer, BLOCK, err);
	sm_tree_free(writer.tree);
	free(writer.buffer);
	return code;
}
