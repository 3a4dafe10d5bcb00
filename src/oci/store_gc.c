#include "oci/store_gc.h"

#include "base/fd.h"
#include "oci/store_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct gc {
	const struct sm_oci_gc_options *options;
	struct sm_oci_census census;
	int64_t now_s;
	bool keep_erofs; /* a snapshot's needs are unknown */
	unsigned held, young;
	uint64_t removed_bytes;
	cJSON *report, *removed, *unreadable;
};

/* ---- what stays ----------------------------------------------------------------------------------------------- */

static void mark(void *arg, struct sm_oci_entry *entry, bool is_blob)
{
	(void)arg;
	(void)is_blob;
	entry->uses++;
}

static int mark_refs(struct gc *gc, struct sm_error *err)
{
	for (size_t i = 0; i < gc->census.nrefs; i++) {
		const struct sm_oci_ref *ref = &gc->census.refs[i];
		if (!ref->reference)
			return sm_error_set(err, EBADMSG, "reference %s: %s", ref->entry->name, ref->error.message);
		int code = sm_oci_census_walk(&gc->census, ref->digest, mark, NULL, NULL, err);
		if (code < 0)
			return sm_error_context(err, "'%.200s'", ref->reference);
	}
	return 0;
}

/* Opened for writing: where flock is made of POSIX locks, only that can be locked alone. */
static int open_file(const char *path)
{
	int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && (errno == EACCES || errno == EROFS))
		fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

static int open_entry(const struct sm_oci_folder *folder, const char *name)
{
	char path[PATH_MAX];
	int code = sm_path_format(path, NULL, "%s/%s", folder->path, name);
	return code < 0 ? code : open_file(path);
}

static bool is_held(const struct sm_oci_folder *folder, const char *name)
{
	SM_FD_CLEANUP int fd = open_entry(folder, name);
	return fd >= 0 ? sm_oci_is_held(fd) : fd != -ENOENT && fd != -ELOOP && fd != -EISDIR;
}

static bool is_young(const struct gc *gc, const struct sm_oci_entry *entry)
{
	return gc->options->min_age_s &&
	       (gc->now_s < entry->mtime_s || (uint64_t)(gc->now_s - entry->mtime_s) < gc->options->min_age_s);
}

/* A blob that somebody holds is a manifest, and with it all it names is in use. */
static int mark_held(struct gc *gc, struct sm_error *err)
{
	for (size_t i = 0; i < gc->census.blobs.count; i++) {
		struct sm_oci_entry *entry = &gc->census.blobs.list[i];
		if (entry->uses || entry->temporary || !is_held(&gc->census.blobs, entry->name))
			continue;
		char digest[SM_OCI_DIGEST_SIZE];
		gc->held++;
		snprintf(digest, sizeof digest, "sha256:%s", entry->name);
		int code = sm_oci_census_walk(&gc->census, digest, mark, NULL, NULL, err);
		entry->uses++;
		if (code < 0)
			return sm_error_context(err, "an open image");
	}
	return 0;
}

/* Is a snapshot's RAM file in use?  On success *ret_fd keeps others out until it is closed; -1: there is none. */
static bool is_snapshot_held(const struct sm_oci_snapshot *snapshot, int *ret_fd)
{
	char ram[PATH_MAX];
	*ret_fd = -1;
	if (sm_path_format(ram, NULL, "%s/ram", snapshot->path) < 0)
		return true;
	*ret_fd = open_file(ram);
	if (*ret_fd < 0)
		return *ret_fd != -ENOENT;
	if (!sm_oci_is_held(*ret_fd))
		return false;
	sm_fd_close(ret_fd);
	return true;
}

static bool has_reference(const struct gc *gc, const char *digest)
{
	for (size_t i = 0; i < gc->census.nrefs; i++)
		if (!strcmp(gc->census.refs[i].digest, digest))
			return true;
	return false;
}

/* Does any other lean on it?  By the last part of the path, wherever the store was when it was written down.  What
 * cannot be read may lean on anything.  Of a chain that nobody needs each run takes the last. */
static bool is_parent(const struct gc *gc, const struct sm_oci_snapshot *snapshot)
{
	for (size_t i = 0; i < gc->census.nsnapshots; i++) {
		const struct sm_oci_snapshot *other = &gc->census.snapshots[i];
		if (other->gone)
			continue;
		const char *slash = other->facts.parent ? strrchr(other->facts.parent, '/') : NULL;
		if (other->error.code || (slash && !strcmp(slash + 1, snapshot->entry->name)))
			return true;
	}
	return false;
}

/* ---- what goes ------------------------------------------------------------------------------------------------ */

static int note(struct gc *gc, const char *kind, const char *name, uint64_t bytes, struct sm_error *err)
{
	cJSON *item = cJSON_CreateObject();
	gc->removed_bytes += bytes;
	if (cJSON_AddStringToObject(item, "kind", kind) && cJSON_AddStringToObject(item, "name", name) &&
	    cJSON_AddNumberToObject(item, "bytes", (double)bytes) && cJSON_AddItemToArray(gc->removed, item))
		return 0;
	cJSON_Delete(item);
	return sm_error_sys(err, ENOMEM, "image store");
}

static int remove_temporary(struct gc *gc, const struct sm_oci_folder *folder, const struct sm_oci_entry *entry,
                            struct sm_error *err)
{
	char path[PATH_MAX];
	int code = sm_path_format(path, err, "%s/%s", folder->path, entry->name);
	if (code == 0 && !gc->options->dry_run)
		code = sm_path_remove_tree(path, err);
	return code < 0 ? code : note(gc, "temporary", path, entry->bytes, err);
}

/* One file, unless it is held. */
static int remove_file(struct gc *gc, const struct sm_oci_folder *folder, const struct sm_oci_entry *entry,
                       const char *kind, struct sm_error *err)
{
	char path[PATH_MAX], digest[SM_OCI_DIGEST_SIZE];
	bool is_blob = folder == &gc->census.blobs;
	int code = sm_path_format(path, err, "%s/%s", folder->path, entry->name);
	if (code < 0)
		return code;
	/* Locked while it goes: who opened it before waits, and then sees that it is gone. */
	SM_FD_CLEANUP int fd = open_entry(folder, entry->name);
	if (fd < 0 || sm_oci_is_held(fd)) {
		gc->held++;
		return 0;
	}
	if (!gc->options->dry_run && unlink(path) < 0 && errno != ENOENT)
		return sm_error_sys(err, errno, "remove '%s'", path);
	if (is_blob)
		snprintf(digest, sizeof digest, "sha256:%s", entry->name);
	return note(gc, kind, is_blob ? digest : path, entry->bytes, err);
}

static int sweep(struct gc *gc, const struct sm_oci_folder *folder, const char *kind, struct sm_error *err)
{
	int code = 0;
	for (size_t i = 0; i < folder->count && code == 0; i++) {
		const struct sm_oci_entry *entry = &folder->list[i];
		if (gc->options->cancel && atomic_load(gc->options->cancel))
			return sm_error_sys(err, ECANCELED, "gc");
		if (entry->uses || (!kind && !entry->temporary))
			continue;
		if (is_young(gc, entry))
			gc->young++;
		else if (entry->temporary)
			code = remove_temporary(gc, folder, entry, err);
		else
			code = remove_file(gc, folder, entry, kind, err);
	}
	return code;
}

/* By a new name first, so that a snapshot is there whole or not at all. */
static int remove_snapshot(struct gc *gc, const struct sm_oci_snapshot *snapshot, struct sm_error *err)
{
	char away[PATH_MAX];
	int code = sm_path_format(away, err, "%s.tmp.gc", snapshot->path);
	if (code == 0 && !gc->options->dry_run) {
		code = sm_path_remove_tree(away, err);
		if (code == 0 && rename(snapshot->path, away) < 0)
			code = sm_error_sys(err, errno, "remove '%s'", snapshot->path);
		if (code == 0)
			code = sm_path_remove_tree(away, err);
	}
	return code < 0 ? code : note(gc, "snapshot", snapshot->path, snapshot->entry->bytes, err);
}

/* Remove the snapshot if it is to go; otherwise mark what it needs. */
static int judge_snapshot(struct gc *gc, const struct sm_oci_snapshot *snapshot, struct sm_error *err)
{
	if (snapshot->gone)
		return 0;
	snapshot->entry->uses++;
	if (snapshot->error.code) {
		gc->keep_erofs = true;
		const char *name = snapshot->path ? snapshot->path : snapshot->entry->name;
		return cJSON_AddItemToArray(gc->unreadable, cJSON_CreateString(name)) ? 0
		                                                                      : sm_error_sys(err, ENOMEM, "gc");
	}
	if (gc->options->snapshots && snapshot->baked && snapshot->facts.image[0] &&
	    !has_reference(gc, snapshot->facts.image)) {
		SM_FD_CLEANUP int fd = -1;
		if (is_young(gc, snapshot->entry))
			gc->young++;
		else if (is_parent(gc, snapshot) || is_snapshot_held(snapshot, &fd))
			gc->held++;
		else
			return remove_snapshot(gc, snapshot, err);
	}
	for (size_t i = 0; i < snapshot->facts.nfiles; i++) {
		struct sm_oci_entry *entry = sm_oci_census_erofs_file(&gc->census, snapshot->facts.files[i]);
		if (entry)
			entry->uses++;
	}
	return 0;
}

static int run(struct gc *gc, struct sm_error *err)
{
	struct sm_oci_census *census = &gc->census;
	int code = mark_refs(gc, err);
	if (code < 0 || (code = mark_held(gc, err)) < 0)
		return code;
	for (size_t i = 0; i < census->nsnapshots && code == 0; i++)
		code = judge_snapshot(gc, &census->snapshots[i], err);
	if (code < 0 || (code = sweep(gc, &census->snapshots_folder, NULL, err)) < 0 ||
	    (code = sweep(gc, &census->partial, NULL, err)) < 0 ||
	    (code = sweep(gc, &census->roots, "root", err)) < 0 ||
	    (code = sweep(gc, &census->refs_folder, NULL, err)) < 0 ||
	    (code = sweep(gc, &census->erofs, gc->keep_erofs ? NULL : "erofs", err)) < 0)
		return code;
	return sweep(gc, &census->blobs, "blob", err);
}

int sm_oci_store_gc(const struct sm_oci_store *store, sm_oci_facts_read facts, const struct sm_oci_gc_options *options,
                    cJSON **ret_report, struct sm_error *err)
{
	struct gc gc = { .options = options, .now_s = time(NULL) };
	struct sm_oci_store_lock lock;
	int code = sm_oci_store_lock(store, SM_OCI_LOCK_EXCLUSIVE, options->cancel, &lock, err);
	if (code < 0)
		return sm_error_context(err, "gc");
	gc.report = cJSON_CreateObject();
	gc.removed = cJSON_AddArrayToObject(gc.report, "removed");
	gc.unreadable = cJSON_AddArrayToObject(gc.report, "unreadable");
	if (!gc.removed || !gc.unreadable)
		code = sm_error_sys(err, ENOMEM, "image store");
	if (code == 0)
		code = sm_oci_census_take(store, facts, &gc.census, err);
	if (code == 0)
		code = run(&gc, err);
	if (code == 0 && (!cJSON_AddNumberToObject(gc.report, "removed_bytes", (double)gc.removed_bytes) ||
	                  !cJSON_AddNumberToObject(gc.report, "held", gc.held) ||
	                  !cJSON_AddNumberToObject(gc.report, "young", gc.young) ||
	                  !cJSON_AddBoolToObject(gc.report, "dry_run", options->dry_run)))
		code = sm_error_sys(err, ENOMEM, "image store");
	sm_oci_census_done(&gc.census);
	sm_oci_store_unlock(&lock);
	if (code < 0) {
		cJSON_Delete(gc.report);
		return sm_error_context(err, "gc");
	}
	*ret_report = gc.report;
	return 0;
}
