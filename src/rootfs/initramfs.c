#include "rootfs/initramfs.h"

#include "base/fd.h"
#include "rootfs/tree.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_BYTES     (64u << 10)
#define FILE_MAX       (1ull << 31) /* the format holds 32-bit sizes; the guest holds it all in memory */
#define ENTRIES_MAX    65536u
#define NAME_BYTES_MAX (64u << 20)

struct writer {
	int fd;
	struct archive *cpio;
	struct archive_entry *entry;
	struct sm_tree *tree; /* knows which paths were written */
	int64_t ino;
	uint8_t *buffer;
	bool abandoned;            /* nothing more is to be written */
	struct sm_error write_err; /* of the output, when code is set there */
};

/* Never fails: the library leaks its buffer after a failure.  What went wrong is kept, and nothing more is written. */
static la_ssize_t cpio_write(struct archive *cpio, void *arg, const void *data, size_t len)
{
	struct writer *writer = arg;
	(void)cpio;
	int code = writer->abandoned || writer->write_err.code ? 0 : sm_fd_write_full(writer->fd, data, len);
	if (code < 0)
		sm_error_sys(&writer->write_err, code, "write initramfs");
	return (la_ssize_t)len;
}

static int cpio_result(const struct writer *writer, bool fine, struct sm_error *err)
{
	if (writer->write_err.code) {
		*err = writer->write_err;
		return -err->code;
	}
	const char *why = archive_error_string(writer->cpio);
	return fine ? 0 : sm_error_set(err, EIO, "write initramfs: %s", why ? why : "failed");
}

static int put_header(struct writer *writer, const char *path, uint32_t mode, uint64_t size,
                      const struct sm_initramfs_entry *from, struct sm_error *err)
{
	struct archive_entry *entry = archive_entry_clear(writer->entry);
	archive_entry_set_pathname(entry, path);
	archive_entry_set_mode(entry, mode);
	archive_entry_set_ino64(entry, ++writer->ino);
	archive_entry_set_nlink(entry, S_ISDIR(mode) ? 2 : 1);
	archive_entry_set_mtime(entry, 0, 0);
	archive_entry_set_size(entry, (la_int64_t)size);
	if (S_ISCHR(mode) || S_ISBLK(mode)) {
		archive_entry_set_rdevmajor(entry, from->major);
		archive_entry_set_rdevminor(entry, from->minor);
	}
	if (S_ISLNK(mode))
		archive_entry_set_symlink(entry, from->data);
	return cpio_result(writer, archive_write_header(writer->cpio, entry) == ARCHIVE_OK, err);
}

static int put_data(struct writer *writer, const void *data, size_t len, struct sm_error *err)
{
	return cpio_result(writer, archive_write_data(writer->cpio, data, len) == (la_ssize_t)len, err);
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
	*ret_size = S_ISREG(from->mode) ? from->data_len : 0;
	if (S_ISLNK(from->mode) && (!from->data || !from->data_len || strlen(from->data) != from->data_len))
		return sm_error_set(err, EINVAL, "symlink without a proper target");
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
	if (code == 0 && S_ISREG(from->mode))
		code = from->fd >= 0 ? put_file(writer, size, from->fd, err)
		                     : put_data(writer, from->data, from->data_len, err);
	return code < 0 ? sm_error_context(err, "initramfs entry '%s'", from->path) : 0;
}

static int writer_open(struct writer *writer, struct sm_error *err)
{
	writer->buffer = malloc(COPY_BYTES);
	writer->entry = archive_entry_new();
	writer->cpio = archive_write_new();
	if (!writer->buffer || !writer->entry || !writer->cpio)
		return sm_error_sys(err, ENOMEM, "initramfs");
	int code = sm_tree_new(NAME_BYTES_MAX, ENTRIES_MAX, &writer->tree, err);
	if (code < 0)
		return code;
	bool fine = archive_write_set_format_cpio_newc(writer->cpio) == ARCHIVE_OK &&
	            archive_write_set_bytes_per_block(writer->cpio, COPY_BYTES) == ARCHIVE_OK &&
	            archive_write_set_bytes_in_last_block(writer->cpio, 512) == ARCHIVE_OK &&
	            archive_write_open(writer->cpio, writer, NULL, cpio_write, NULL) == ARCHIVE_OK;
	return cpio_result(writer, fine, err);
}

int sm_initramfs_write(int fd, const struct sm_initramfs_entry *entries, size_t nentries, struct sm_error *err)
{
	struct writer writer = { .fd = fd };
	/* Names are bytes: no conversion from whatever locale the program has. */
	locale_t locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	if (!locale)
		return sm_error_sys(err, errno, "locale C");
	locale_t before = uselocale(locale);
	int code = writer_open(&writer, err);
	for (size_t i = 0; i < nentries && code == 0; i++)
		code = put_entry(&writer, &entries[i], err);
	if (code == 0)
		code = cpio_result(&writer, archive_write_close(writer.cpio) == ARCHIVE_OK, err);
	writer.abandoned = true;
	archive_write_free(writer.cpio);
	archive_entry_free(writer.entry);
	sm_tree_free(writer.tree);
	free(writer.buffer);
	uselocale(before);
	freelocale(locale);
	return code;
}
