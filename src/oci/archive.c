#include "oci/archive.h"

#include "base/fd.h"
#include "base/path.h"
#include "oci/archive_stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK          (128u << 10)
#define MAX_MEMBERS    65536u      /* an image has one or three a layer, and at most 500 layers */
#define MAX_NAME_BYTES (16u << 20) /* of all names together */
#define MAX_LINKS      16

struct archive {
	struct sm_oci_files files;
	int fd;
	uint64_t size;
	bool plain;
	struct sm_oci_archive_member *members; /* sorted by name */
	size_t count, cap, name_bytes;
	struct sm_oci_archive_stream *stream; /* of a packed tar, where the last read came to; or NULL */
};

static struct archive *archive_of(struct sm_oci_files *files)
{
	return (struct archive *)files;
}

static int compare_members(const void *a, const void *b)
{
	return strcmp(((const struct sm_oci_archive_member *)a)->name, ((const struct sm_oci_archive_member *)b)->name);
}

/* "a/../b/./c" below folder -> "b/c".  -EXDEV for what is not inside the tar. */
static int clean(const char *folder, size_t folder_len, const char *name, char out[PATH_MAX])
{
	size_t len = folder_len;
	if (*name == '/')
		return -EXDEV;
	if (folder_len >= PATH_MAX)
		return -ENAMETOOLONG;
	memcpy(out, folder, folder_len);
	for (const char *part = name; *part;) {
		size_t part_len = strcspn(part, "/");
		bool up = part_len == 2 && !memcmp(part, "..", 2);
		if (up && !len)
			return -EXDEV;
		if (up) {
			while (len && out[--len] != '/')
				continue;
		} else if (part_len && !(part_len == 1 && *part == '.')) {
			if (len + part_len + 2 > PATH_MAX)
				return -ENAMETOOLONG;
			if (len)
				out[len++] = '/';
			memcpy(out + len, part, part_len);
			len += part_len;
		}
		part += part_len + (part[part_len] == '/');
	}
	out[len] = 0;
	return 0;
}

static char *keep_name(struct archive *archive, const char *name)
{
	archive->name_bytes += strlen(name) + 1;
	return strdup(name);
}

/* Where a link leads; from the tar's root, or for a symbolic link from its own folder. */
static int take_link(struct archive *archive, const struct sm_oci_archive_library *lib, struct archive_entry *entry,
                     struct sm_oci_archive_member *member)
{
	char target[PATH_MAX];
	const char *to = lib->entry_hardlink(entry);
	size_t folder = 0;
	if (!to && lib->entry_filetype(entry) == AE_IFLNK) {
		const char *slash = strrchr(member->name, '/');
		folder = slash ? (size_t)(slash - member->name) : 0;
		to = lib->entry_symlink(entry);
		if (!to)
			to = "/";
	}
	if (!to)
		return 0;
	if (clean(member->name, folder, to, target) < 0)
		member->fault = "is a link that leads out of the archive";
	else if (!(member->link = keep_name(archive, target)))
		return -ENOMEM;
	return 0;
}

static int take_content(struct archive *archive, struct sm_oci_archive_stream *stream, struct archive_entry *entry,
                        struct sm_oci_archive_member *member, struct sm_error *err)
{
	const struct sm_oci_archive_library *lib = sm_oci_archive_stream_library(stream);
	if (lib->entry_filetype(entry) != AE_IFREG) {
		member->fault = "is not a regular file";
		return 0;
	}
	if (lib->entry_sparse_reset(entry)) {
		member->fault = "is a sparse file";
		return 0;
	}
	la_int64_t size = lib->entry_size(entry);
	member->size = size > 0 ? (uint64_t)size : 0;
	member->offset = sm_oci_archive_stream_offset(stream);
	if (archive->plain && (member->offset > archive->size || member->size > archive->size - member->offset))
		return sm_error_set(err, EBADMSG,
		                    "'%s': member '%.200s' has %llu bytes from %llu on, but the file ends at %llu",
		                    archive->files.path, member->name, (unsigned long long)member->size,
		                    (unsigned long long)member->offset, (unsigned long long)archive->size);
	int code = sm_oci_archive_stream_head(stream, member->head, sizeof member->head, err);
	return code < 0 ? sm_error_context(err, "member '%.200s'", member->name) : 0;
}

/* What no program looks for in an image archive, such as a folder, is passed over. */
static int take_entry(struct archive *archive, struct sm_oci_archive_stream *stream, struct archive_entry *entry,
                      struct sm_error *err)
{
	char name[PATH_MAX];
	const struct sm_oci_archive_library *lib = sm_oci_archive_stream_library(stream);
	uint64_t number = sm_oci_archive_stream_number(stream) - 1;
	const char *raw = lib->entry_pathname(entry);
	if (number >= MAX_MEMBERS)
		return sm_error_set(err, EFBIG, "'%s': more than %u members", archive->files.path, MAX_MEMBERS);
	if (!raw || lib->entry_filetype(entry) == AE_IFDIR)
		return 0;
	int code = clean("", 0, raw, name);
	if (code == -EXDEV)
		return sm_error_set(err, EBADMSG, "'%s': member '%.200s' leads out of the archive", archive->files.path,
		                    raw);
	if (code < 0)
		return sm_error_sys(err, code, "'%s': member '%.200s'", archive->files.path, raw);
	if (archive->name_bytes > MAX_NAME_BYTES)
		return sm_error_set(err, EFBIG, "'%s': more than %u bytes of member names", archive->files.path,
		                    MAX_NAME_BYTES);
	if (archive->count == archive->cap) {
		size_t cap = archive->cap ? archive->cap * 2 : 64;
		struct sm_oci_archive_member *members = realloc(archive->members, cap * sizeof *members);
		if (!members)
			return sm_error_sys(err, ENOMEM, "'%s'", archive->files.path);
		archive->members = members;
		archive->cap = cap;
	}
	struct sm_oci_archive_member *member = &archive->members[archive->count];
	*member = (struct sm_oci_archive_member){ .name = keep_name(archive, name), .number = number };
	if (!member->name)
		return sm_error_sys(err, ENOMEM, "'%s'", archive->files.path);
	archive->count++;
	if (take_link(archive, lib, entry, member) < 0)
		return sm_error_sys(err, ENOMEM, "'%s'", archive->files.path);
	return member->link || member->fault ? 0 : take_content(archive, stream, entry, member, err);
}

static int read_index(struct archive *archive, struct sm_error *err)
{
	struct sm_oci_archive_stream *stream;
	struct archive_entry *entry;
	int code = sm_oci_archive_stream_open(archive->fd, archive->files.path, archive->files.cancel, &stream, err);
	if (code < 0)
		return code;
	archive->plain = sm_oci_archive_stream_is_plain(stream);
	while ((code = sm_oci_archive_stream_next(stream, &entry, err)) > 0)
		if ((code = take_entry(archive, stream, entry, err)) < 0)
			break;
	sm_oci_archive_stream_free(stream);
	if (code == 0 && archive->count)
		qsort(archive->members, archive->count, sizeof *archive->members, compare_members);
	return code;
}

int sm_oci_archive_find(struct sm_oci_files *files, const char *name, const struct sm_oci_archive_member **ret,
                        struct sm_error *err)
{
	struct archive *archive = archive_of(files);
	char wanted[PATH_MAX];
	struct sm_oci_archive_member key = { .name = wanted };
	int code = clean("", 0, name, wanted);
	if (code == -EXDEV)
		return sm_error_set(err, EBADMSG, "'%s': '%.200s' leads out of the archive", files->path, name);
	if (code < 0)
		return sm_error_sys(err, code, "'%s': '%.200s'", files->path, name);
	for (int links = 0; links <= MAX_LINKS; links++) {
		struct sm_oci_archive_member *member =
		    archive->count ? bsearch(&key, archive->members, archive->count, sizeof key, compare_members)
				   : NULL;
		if (!member)
			return sm_error_set(err, ENOENT, "'%s' has no member '%.200s'", files->path, key.name);
		size_t i = (size_t)(member - archive->members);
		if ((i && !compare_members(member, member - 1)) ||
		    (i + 1 < archive->count && !compare_members(member, member + 1)))
			return sm_error_set(err, EBADMSG, "'%s': member '%.200s' is there twice", files->path,
			                    member->name);
		if (member->fault)
			return sm_error_set(err, EBADMSG, "'%s': member '%.200s' %s", files->path, member->name,
			                    member->fault);
		if (!member->link) {
			*ret = member;
			return 0;
		}
		key.name = member->link;
	}
	return sm_error_set(err, EBADMSG, "'%s': member '%.200s': more than %d links, or a loop of them", files->path,
	                    name, MAX_LINKS);
}

static int read_plain(struct archive *archive, const struct sm_oci_archive_member *member, sm_oci_sink sink, void *arg,
                      struct sm_error *err)
{
	int code = 0;
	char *chunk = malloc(CHUNK);
	if (!chunk)
		return sm_error_sys(err, ENOMEM, "'%s'", archive->files.path);
	for (uint64_t done = 0; done < member->size && code == 0;) {
		uint64_t left = member->size - done;
		size_t len = left < CHUNK ? (size_t)left : CHUNK;
		if (archive->files.cancel && atomic_load(archive->files.cancel))
			code = sm_error_sys(err, ECANCELED, "read '%s'", archive->files.path);
		else if ((code = sm_fd_pread_full(archive->fd, chunk, len, member->offset + done)) < 0)
			sm_error_sys(err, code, "read '%s': member '%.200s'", archive->files.path, member->name);
		else
			code = sink(arg, chunk, len);
		done += len;
	}
	free(chunk);
	return code;
}

/* A packed tar is unpacked from where the last read came to, so that reads in the tar's order do so once. */
static int read_packed(struct archive *archive, const struct sm_oci_archive_member *member, sm_oci_sink sink, void *arg,
                       struct sm_error *err)
{
	struct archive_entry *entry;
	int code = 0;
	if (archive->stream && sm_oci_archive_stream_number(archive->stream) > member->number) {
		sm_oci_archive_stream_free(archive->stream);
		archive->stream = NULL;
	}
	if (!archive->stream)
		code = sm_oci_archive_stream_open(archive->fd, archive->files.path, archive->files.cancel,
		                                  &archive->stream, err);
	while (code == 0 && sm_oci_archive_stream_number(archive->stream) <= member->number) {
		code = sm_oci_archive_stream_next(archive->stream, &entry, err);
		if (code == 0)
			code = sm_error_set(err, EBADMSG, "'%s' was changed while it was read", archive->files.path);
		else if (code > 0)
			code = 0;
	}
	if (code == 0)
		code = sm_oci_archive_stream_content(archive->stream, sink, arg, err);
	if (code < 0) {
		sm_oci_archive_stream_free(archive->stream);
		archive->stream = NULL;
	}
	return code;
}

static int archive_read_file(struct sm_oci_files *files, const char *name, sm_oci_sink sink, void *arg,
                             struct sm_error *err)
{
	struct archive *archive = archive_of(files);
	const struct sm_oci_archive_member *member;
	int code = sm_oci_archive_find(files, name, &member, err);
	if (code < 0)
		return code;
	return archive->plain ? read_plain(archive, member, sink, arg, err)
	                      : read_packed(archive, member, sink, arg, err);
}

static void archive_close(struct sm_oci_files *files)
{
	struct archive *archive = archive_of(files);
	sm_oci_archive_stream_free(archive->stream);
	for (size_t i = 0; i < archive->count; i++) {
		free(archive->members[i].name);
		free(archive->members[i].link);
	}
	free(archive->members);
	sm_fd_close(&archive->fd);
	free(archive);
}

int sm_oci_archive_open(const char *path, const atomic_bool *cancel, struct sm_oci_files **ret, struct sm_error *err)
{
	static const struct sm_oci_files_ops ops = { .read = archive_read_file, .free = archive_close };
	struct archive *archive = calloc(1, sizeof *archive);
	if (!archive)
		return sm_error_sys(err, ENOMEM, "open '%s'", path);
	archive->files.ops = &ops;
	archive->files.cancel = cancel;
	snprintf(archive->files.path, sizeof archive->files.path, "%s", path);
	int code = archive->fd = sm_oci_files_open_regular(path, &archive->size, err);
	if (code < 0 || (code = read_index(archive, err)) < 0) {
		archive_close(&archive->files);
		return code;
	}
	*ret = &archive->files;
	return 0;
}
