#include "base/fd.h"
#include "base/path.h"
#include "base/time.h"
#include "snapshot/inside.h"
#include "snapshot/stores.h"
#include "snapshot/volumes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMPORARY ".tmp."

int sm_snapshot_create(const char *folder, const char *name, mode_t mode, struct sm_error *err)
{
	char path[PATH_MAX];
	int code = sm_path_format(path, err, "%s/%s", folder, name);
	if (code < 0)
		return code;
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	return fd < 0 ? sm_error_sys(err, errno, "%s", path) : fd;
}

static int finish_file(int fd, struct sm_format_file *file, uint64_t *hash_us, uint64_t *sync_us, struct sm_error *err)
{
	uint64_t start = sm_time_us();
	int code = sm_format_hash(fd, file->sha256, err);
	if (code < 0)
		return code;
	*hash_us += sm_time_us() - start;
	start = sm_time_us();
	if (fsync(fd) < 0)
		return sm_error_sys(err, errno, "fsync");
	*sync_us += sm_time_us() - start;
	return sm_format_stamp(fd, file, err);
}

static int write_file(const char *folder, const char *name, const void *data, size_t len, struct sm_error *err)
{
	int fd SM_FD_CLEANUP = sm_snapshot_create(folder, name, 0644, err);
	if (fd < 0)
		return fd;
	int code = sm_fd_write_full(fd, data, len);
	if (code >= 0 && fsync(fd) < 0)
		code = -errno;
	return code < 0 ? sm_error_sys(err, code, "%s", name) : 0;
}

static int write_meta(const char *folder, const struct sm_format_meta *meta, struct sm_error *err)
{
	char *manifest = NULL;
	int code = sm_format_manifest(meta, &manifest, err);
	if (code >= 0)
		code = write_file(folder, "manifest.json", manifest, strlen(manifest), err);
	free(manifest);
	if (code < 0)
		return code;
	struct sm_buf buf SM_BUF_CLEANUP;
	sm_buf_init(&buf, 16u << 20);
	sm_format_put(&buf, meta);
	if (sm_buf_failed(&buf))
		return sm_error_sys(err, buf.failed, "meta");
	return write_file(folder, "meta", buf.data, buf.len, err);
}

static int finish_all(int ram_fd, int state_fd, const int *volume_fds, struct sm_format_meta *meta,
                      struct sm_snapshot_times *times, struct sm_error *err)
{
	int code = finish_file(ram_fd, &meta->ram, &times->hash_us, &times->sync_us, err);
	if (code < 0)
		return sm_error_context(err, "ram");
	code = finish_file(state_fd, &meta->state, &times->hash_us, &times->sync_us, err);
	if (code < 0)
		return sm_error_context(err, "state");
	for (unsigned i = 0; i < meta->nvolumes; i++) {
		struct sm_format_volume *volume = &meta->volumes[i];
		if (finish_file(volume_fds[i], &volume->file, &times->hash_us, &times->sync_us, err) < 0)
			return sm_error_context(err, "volume %u", volume->index);
	}
	return 0;
}

static int write_all(struct sm_format_meta *meta, sm_snapshot_fill fill, void *arg, const char *folder,
                     struct sm_snapshot_times *times, struct sm_error *err)
{
	/* Nobody writes to them any more but through these descriptors. */
	int volume_fds[SM_PLAN_SLOTS_MAX];
	int ram_fd SM_FD_CLEANUP = sm_snapshot_create(folder, "ram", 0400, err);
	if (ram_fd < 0)
		return ram_fd;
	int state_fd SM_FD_CLEANUP = sm_snapshot_create(folder, "state", 0400, err);
	if (state_fd < 0)
		return state_fd;

	int code = sm_snapshot_volumes_create(meta, folder, volume_fds, err);
	uint64_t start = sm_time_us();
	if (code >= 0)
		code = fill(arg, ram_fd, state_fd, volume_fds, meta, err);
	times->capture_us = sm_time_us() - start;
	times->ram_bytes = meta->ram_data_bytes;
	if (code >= 0)
		code = finish_all(ram_fd, state_fd, volume_fds, meta, times, err);
	for (unsigned i = 0; i < meta->nvolumes; i++)
		sm_fd_close(&volume_fds[i]);
	if (code < 0)
		return code;
	code = write_meta(folder, meta, err);
	return code < 0 ? code : sm_path_sync_dir(folder, err);
}

/* A new folder, held: it is nobody else's leftover while *ret_fd is open. */
static int make_temporary(const char *path, char temporary[PATH_MAX], int *ret_fd, struct sm_error *err)
{
	for (;;) {
		int code = sm_path_format(temporary, err, "%s" TEMPORARY "XXXXXX", path);
		if (code < 0)
			return code;
		if (!mkdtemp(temporary))
			return sm_error_sys(err, errno, "snapshot %s", path);
		struct stat st;
		int fd = open(temporary, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 && errno != ENOENT) {
			code = sm_error_sys(err, errno, "%s", temporary);
			rmdir(temporary);
			return code;
		}
		/* Another save may have taken it for a leftover, before it was held. */
		if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && stat(temporary, &st) == 0) {
			*ret_fd = fd;
			return 0;
		}
		sm_fd_close(&fd);
	}
}

int sm_snapshot_publish(struct sm_format_meta *meta, sm_snapshot_fill fill, void *arg, const char *path,
                        struct sm_snapshot_times *ret_times, struct sm_error *err)
{
	uint64_t start = sm_time_us();
	struct sm_snapshot_times times = { 0 };
	char temporary[PATH_MAX];
	int held SM_FD_CLEANUP = -1;
	sm_path_remove_leftovers(path, TEMPORARY, true);
	int code = make_temporary(path, temporary, &held, err);
	if (code < 0)
		return code;
	sm_format_host(meta->host);
	code = write_all(meta, fill, arg, temporary, &times, err);
	if (code == 0 && chmod(temporary, 0755) < 0)
		code = sm_error_sys(err, errno, "%s", temporary);
	if (code == 0 && renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_NOREPLACE) < 0)
		code = sm_error_sys(err, errno, "rename");
	if (code < 0) {
		sm_path_remove_tree(temporary, NULL);
		return sm_error_context(err, "snapshot %s", path);
	}
	char parent[PATH_MAX];
	snprintf(parent, sizeof parent, "%s", path);
	char *slash = strrchr(parent, '/');
	if (slash == parent)
		slash++;
	if (slash)
		*slash = '\0';
	code = sm_path_sync_dir(slash ? parent : ".", err);
	times.total_us = sm_time_us() - start;
	if (ret_times)
		*ret_times = times;
	return code;
}

/* A child of what is no longer there could never be opened. */
static int check_parent(const struct sm_snapshot *parent, struct sm_error *err)
{
	struct sm_format_meta *meta = calloc(1, sizeof *meta);
	if (!meta)
		return sm_error_set(err, ENOMEM, "out of memory");
	int code = sm_format_read(parent->absolute, meta, err);
	if (code >= 0 && strcmp(meta->sha256, parent->meta.sha256))
		code = sm_error_set(err, EBADMSG, "meta: sha256 is %s, was %s: it was changed or replaced",
		                    meta->sha256, parent->meta.sha256);
	sm_format_meta_done(meta);
	free(meta);
	return code < 0 ? sm_error_context(err, "parent %s", parent->absolute) : 0;
}

/* One that was put behind a slot, and then could not be mounted, is known to the machine alone. */
static int check_mounts(const struct sm_plan *plan, const struct sm_sources *sources, struct sm_error *err)
{
	unsigned backed = 0;
	for (unsigned i = 0; i < plan->nslots; i++)
		backed += plan->slots[i].kind == SM_PLAN_FS && plan->slots[i].backed;
	if (backed == sources->mounts.count)
		return 0;
	return sm_error_set(err, EBUSY, "the machine has %u mounts, of which %u could be made: it cannot be saved",
	                    backed, sources->mounts.count);
}

struct capture {
	struct sm_control *control;
	struct sm_control_captured result;
};

static int capture_fill(void *arg, int ram_fd, int state_fd, const int *volume_fds, struct sm_format_meta *meta,
                        struct sm_error *err)
{
	struct capture *capture = arg;
	struct sm_control_volume volumes[SM_PLAN_SLOTS_MAX];
	for (unsigned i = 0; i < meta->nvolumes; i++)
		volumes[i] = (struct sm_control_volume){ meta->volumes[i].index, volume_fds[i] };
	int code = sm_control_capture(capture->control, ram_fd, state_fd, volumes, meta->nvolumes, &capture->result,
	                              meta->parent[0] ? &meta->extents : NULL, err);
	meta->ram_data_bytes = capture->result.ram_bytes;
	return code;
}

int sm_snapshot_save(struct sm_control *control, const struct sm_sources *sources, struct sm_snapshot *parent,
                     const void *metadata, size_t metadata_len, const char *path, struct sm_snapshot_times *ret_times,
                     struct sm_error *err)
{
	if (metadata_len > SM_SNAPSHOT_METADATA_MAX)
		return sm_error_set(err, E2BIG, "snapshot %s: %zu bytes of metadata, at most %u", path, metadata_len,
		                    SM_SNAPSHOT_METADATA_MAX);
	struct sm_snapshot_stores *stores = calloc(1, sizeof *stores);
	struct sm_format_meta *meta = calloc(1, sizeof *meta);
	int code = stores && meta ? 0 : sm_error_set(err, ENOMEM, "out of memory");
	if (code == 0)
		code = sm_snapshot_stores_begin(sources, path, stores, err);
	if (code >= 0)
		code = check_mounts(sm_control_plan(control), sources, err);
	if (code >= 0 && parent) {
		code = check_parent(parent, err);
		memcpy(meta->parent, parent->absolute, sizeof meta->parent);
		memcpy(meta->parent_sha256, parent->meta.sha256, sizeof meta->parent_sha256);
	}
	if (code >= 0)
		code = sm_snapshot_volumes_list(control, meta, err);
	if (code < 0) {
		sm_error_context(err, "snapshot %s", path);
	} else {
		/* Borrowed, but for the extents. */
		meta->plan = *sm_control_plan(control);
		meta->sources = *sources;
		meta->metadata = (uint8_t *)(uintptr_t)metadata;
		meta->metadata_len = metadata_len;
		struct capture capture = { .control = control };
		code = sm_snapshot_publish(meta, capture_fill, &capture, path, ret_times, err);
		sm_memory_extents_done(&meta->extents);
		if (code >= 0 && ret_times) {
			ret_times->pause_us = capture.result.pause_us;
			ret_times->volumes_us = capture.result.volumes_us;
			ret_times->written_bytes = capture.result.written_bytes;
			ret_times->rounds = capture.result.rounds;
		}
	}
	if (stores)
		sm_snapshot_stores_end(stores);
	free(stores);
	free(meta);
	return code;
}
