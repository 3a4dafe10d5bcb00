#include "oci/store_census.h"

#include "base/fd.h"
#include "base/json.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REF_MAX_BYTES (64u << 10)

/* ---- folders -------------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct sm_oci_entry *)a)->name, ((const struct sm_oci_entry *)b)->name);
}

static bool is_hex(const char *name)
{
	return strlen(name) == SM_SHA256_HEX && strspn(name, "0123456789abcdef") == SM_SHA256_HEX;
}

/* PREFIX HEX ".erofs"; the digits are NULL for another name. */
static const char *erofs_hex(const char *name)
{
	size_t len = strlen(name), tail = SM_SHA256_HEX + strlen(".erofs");
	if (len < tail || strcmp(name + len - strlen(".erofs"), ".erofs") ||
	    strspn(name + len - tail, "0123456789abcdef") != SM_SHA256_HEX)
		return NULL;
	return name + len - tail;
}

static bool is_erofs(const char *name)
{
	return erofs_hex(name) != NULL;
}

static bool is_snapshot(const char *name)
{
	return !strstr(name, ".tmp.");
}

static bool is_never(const char *name)
{
	(void)name;
	return false;
}

/* What a folder holds, and one level below. */
static uint64_t folder_bytes(int parent, const char *name)
{
	struct stat status;
	uint64_t bytes = 0;
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	for (const struct dirent *entry; dir && (entry = readdir(dir));)
		if (fstatat(dirfd(dir), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(status.st_mode))
			bytes += (uint64_t)status.st_blocks * 512;
	if (dir)
		closedir(dir);
	else
		sm_fd_close(&fd);
	return bytes;
}

static int add_entry(struct sm_oci_folder *folder, size_t *capacity, int fd, const char *name, bool temporary)
{
	struct stat status;
	if (fstatat(fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno; /* gone meanwhile */
	if (folder->count == *capacity) {
		size_t more = *capacity ? *capacity * 2 : 64;
		struct sm_oci_entry *list = realloc(folder->list, more * sizeof *list);
		if (!list)
			return -ENOMEM;
		folder->list = list;
		*capacity = more;
	}
	uint64_t bytes = (uint64_t)status.st_blocks * 512;
	if (S_ISDIR(status.st_mode))
		bytes += folder_bytes(fd, name);
	struct sm_oci_entry entry = {
		.name = strdup(name), .temporary = temporary, .bytes = bytes, .mtime_s = status.st_mtim.tv_sec
	};
	if (!entry.name)
		return -ENOMEM;
	folder->list[folder->count++] = entry;
	return 0;
}

/* A folder that is not there is empty. */
static int read_folder(const struct sm_oci_store *store, const char *name, bool (*is_proper)(const char *),
                       struct sm_oci_folder *folder, struct sm_error *err)
{
	size_t capacity = 0;
	int code = sm_path_format(folder->path, err, "%s/%s", store->path, name);
	if (code < 0)
		return code;
	DIR *dir = opendir(folder->path);
	if (!dir)
		return errno == ENOENT ? 0 : sm_error_sys(err, errno, "image store: '%s'", folder->path);
	while (code == 0) {
		errno = 0;
		const struct dirent *entry = readdir(dir);
		if (!entry) {
			code = -errno;
			break;
		}
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			code = add_entry(folder, &capacity, dirfd(dir), entry->d_name, !is_proper(entry->d_name));
	}
	closedir(dir);
	if (code < 0)
		return sm_error_sys(err, code, "image store: '%s'", folder->path);
	if (folder->count)
		qsort(folder->list, folder->count, sizeof *folder->list, by_name);
	return 0;
}

static void folder_done(struct sm_oci_folder *folder)
{
	for (size_t i = 0; i < folder->count; i++)
		free(folder->list[i].name);
	free(folder->list);
}

static struct sm_oci_entry *find(const struct sm_oci_folder *folder, const char *name)
{
	const struct sm_oci_entry key = { .name = (char *)(uintptr_t)name };
	return folder->count ? bsearch(&key, folder->list, folder->count, sizeof *folder->list, by_name) : NULL;
}

struct sm_oci_entry *sm_oci_census_blob(const struct sm_oci_census *census, const char *digest)
{
	return find(&census->blobs, sm_oci_digest_hex(digest));
}

struct sm_oci_entry *sm_oci_census_erofs_file(const struct sm_oci_census *census, const char *path)
{
	const char *slash = strrchr(path, '/');
	return find(&census->erofs, slash ? slash + 1 : path);
}

/* ---- references and snapshots --------------------------------------------------------------------------------- */

int sm_oci_ref_read(const struct sm_oci_folder *folder, const struct sm_oci_entry *entry, struct sm_oci_ref *ref)
{
	char path[PATH_MAX], *text = NULL;
	const char *reference, *platform, *digest;
	struct sm_error *err = &ref->error;
	size_t len;
	memset(ref, 0, sizeof *ref);
	ref->entry = entry;
	int code = sm_path_format(path, err, "%s/%s", folder->path, entry->name);
	if (code < 0 || (code = sm_path_read(path, REF_MAX_BYTES, &text, &len, err)) < 0)
		return code;
	SM_JSON_CLEANUP cJSON *root = NULL;
	code = sm_json_parse(text, len, path, &root, err);
	free(text);
	if (code < 0 || (code = sm_json_get_string(root, "reference", path, &reference, err)) < 0 ||
	    (code = sm_json_get_string(root, "platform", path, &platform, err)) < 0 ||
	    (code = sm_json_get_string(root, "manifest", path, &digest, err)) < 0 ||
	    (code = sm_oci_digest_check(digest, path, err)) < 0)
		return code;
	snprintf(ref->digest, sizeof ref->digest, "%s", digest);
	ref->reference = strdup(reference);
	ref->platform = strdup(platform);
	if (ref->reference && ref->platform)
		return 0;
	sm_oci_ref_done(ref);
	return sm_error_sys(err, ENOMEM, "%s", path);
}

void sm_oci_ref_done(struct sm_oci_ref *ref)
{
	free(ref->reference);
	free(ref->platform);
	ref->reference = ref->platform = NULL;
}

static int read_refs(struct sm_oci_census *census, struct sm_error *err)
{
	const struct sm_oci_folder *folder = &census->refs_folder;
	census->refs = calloc(folder->count + 1, sizeof *census->refs);
	if (!census->refs)
		return sm_error_sys(err, ENOMEM, "image store");
	for (size_t i = 0; i < folder->count; i++) {
		if (folder->list[i].temporary)
			continue;
		struct sm_oci_ref *ref = &census->refs[census->nrefs];
		int code = sm_oci_ref_read(folder, &folder->list[i], ref);
		if (code == -ENOMEM)
			return sm_error_sys(err, ENOMEM, "image store");
		if (code == -ENOENT)
			memset(ref, 0, sizeof *ref); /* removed meanwhile */
		else
			census->nrefs++;
	}
	return 0;
}

static void read_facts(struct sm_oci_snapshot *snapshot, sm_oci_facts_read facts)
{
	char meta[PATH_MAX];
	struct stat status;
	if (sm_path_format(meta, &snapshot->error, "%s/meta", snapshot->path) < 0)
		return;
	if (!snapshot->baked && lstat(meta, &status) < 0 && (errno == ENOENT || errno == ENOTDIR))
		snapshot->gone = true;
	else
		facts(snapshot->path, &snapshot->facts, &snapshot->error);
}

/* An entry of roots/ holds a path. */
static int root_path(const char *file, char **ret_path, struct sm_error *err)
{
	size_t len;
	int code = sm_path_read(file, PATH_MAX, ret_path, &len, err);
	if (code < 0)
		return code;
	if (**ret_path == '/' && strlen(*ret_path) == len)
		return 0;
	return sm_error_set(err, EBADMSG, "%s: not a path", file);
}

static int add_snapshots(struct sm_oci_census *census, struct sm_oci_folder *folder, sm_oci_facts_read facts,
                         struct sm_error *err)
{
	char path[PATH_MAX];
	for (size_t i = 0; i < folder->count; i++) {
		if (folder->list[i].temporary)
			continue;
		struct sm_oci_snapshot *snapshot = &census->snapshots[census->nsnapshots++];
		snapshot->entry = &folder->list[i];
		snapshot->baked = folder == &census->snapshots_folder;
		int code = sm_path_format(path, err, "%s/%s", folder->path, folder->list[i].name);
		if (code < 0)
			return code;
		if (snapshot->baked)
			snapshot->path = strdup(path);
		else if (root_path(path, &snapshot->path, &snapshot->error) < 0)
			continue;
		if (!snapshot->path)
			return sm_error_sys(err, ENOMEM, "image store");
		read_facts(snapshot, facts);
	}
	return 0;
}

int sm_oci_census_take(const struct sm_oci_store *store, sm_oci_facts_read facts, struct sm_oci_census *ret,
                       struct sm_error *err)
{
	memset(ret, 0, sizeof *ret);
	ret->store = store;
	int code = read_folder(store, "refs", is_hex, &ret->refs_folder, err);
	if (code < 0 || (code = read_folder(store, "blobs/sha256", is_hex, &ret->blobs, err)) < 0 ||
	    (code = read_folder(store, "erofs", is_erofs, &ret->erofs, err)) < 0 ||
	    (code = read_folder(store, "snapshots", is_snapshot, &ret->snapshots_folder, err)) < 0 ||
	    (code = read_folder(store, "partial", is_never, &ret->partial, err)) < 0 ||
	    (code = read_folder(store, "roots", is_hex, &ret->roots, err)) < 0 || (code = read_refs(ret, err)) < 0 ||
	    !facts)
		return code;
	ret->snapshots = calloc(ret->snapshots_folder.count + ret->roots.count + 1, sizeof *ret->snapshots);
	if (!ret->snapshots)
		return sm_error_sys(err, ENOMEM, "image store");
	code = add_snapshots(ret, &ret->snapshots_folder, facts, err);
	return code < 0 ? code : add_snapshots(ret, &ret->roots, facts, err);
}

void sm_oci_census_done(struct sm_oci_census *census)
{
	for (size_t i = 0; i < census->nrefs; i++)
		sm_oci_ref_done(&census->refs[i]);
	for (size_t i = 0; i < census->nsnapshots; i++) {
		struct sm_oci_facts *facts = &census->snapshots[i].facts;
		free(census->snapshots[i].path);
		for (size_t j = 0; j < facts->nfiles; j++)
			free(facts->files[j]);
		free(facts->files);
		free(facts->parent);
	}
	free(census->refs);
	free(census->snapshots);
	folder_done(&census->refs_folder);
	folder_done(&census->blobs);
	folder_done(&census->erofs);
	folder_done(&census->snapshots_folder);
	folder_done(&census->partial);
	folder_done(&census->roots);
	memset(census, 0, sizeof *census);
}

int sm_oci_store_add_root(const struct sm_oci_store *store, const char *snapshot, struct sm_error *err)
{
	char path[PATH_MAX], own[PATH_MAX], hex[SM_SHA256_HEX + 1];
	const char *slash = strrchr(snapshot, '/');
	struct sm_path_new file;
	int code = sm_path_format(path, err, "%s/snapshots", store->path);
	if (code < 0)
		return code;
	if (realpath(path, own) && strlen(own) == (size_t)(slash - snapshot) && !strncmp(own, snapshot, strlen(own)))
		return 0;
	if (sm_sha256_hex(snapshot, strlen(snapshot), hex) < 0)
		return sm_error_sys(err, ENOMEM, "image store");
	if ((code = sm_path_format(path, err, "%s/roots", store->path)) < 0 ||
	    (code = sm_path_make_dirs(path, 0755, err)) < 0 ||
	    (code = sm_path_format(path, err, "%s/roots/%s", store->path, hex)) < 0 ||
	    (code = sm_path_new_begin(&file, path, 0644, err)) < 0)
		return code;
	code = sm_fd_write_full(file.fd, snapshot, strlen(snapshot));
	if (code < 0)
		sm_error_sys(err, code, "write '%s'", file.temporary);
	else
		code = sm_path_new_commit(&file, err);
	sm_path_new_discard(&file);
	return code;
}
