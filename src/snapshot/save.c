#include "base/fd.h"
#include "base/path.h"
#include "snapshot/format.h"
#include "snapshot/snapshot.h"
#include "snapshot/stores.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static int create(const char *folder, const char *name, struct sm_error *err)
{
	char path[PATH_MAX];
	int code = sm_path_format(path, err, "%s/%s", folder, name);
	if (code < 0)
		return code;
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	return fd < 0 ? sm_error_sys(err, errno, "%s", path) : fd;
}

static int finish_file(int fd, struct sm_format_file *file, uint64_t *hash_us, uint64_t *sync_us, struct sm_error *err)
{
	uint64_t start = now_us();
	int code = sm_format_hash(fd, file->sha256, err);
	if (code < 0)
		return code;
	*hash_us += now_us() - start;
	start = now_us();
	if (fsync(fd) < 0)
		return sm_error_sys(err, errno, "fsync");
	*sync_us += now_us() - start;
	return sm_format_stamp(fd, file, err);
}

static int write_meta(const char *folder, const struct sm_format_meta *meta, struct sm_error *err)
{
	struct sm_buf buf SM_BUF_CLEANUP;
	sm_buf_init(&buf, 16u << 20);
	sm_format_put(&buf, meta);
	if (sm_buf_failed(&buf))
		return sm_error_sys(err, buf.failed, "meta");
	int fd SM_FD_CLEANUP = create(folder, "meta", err);
	if (fd < 0)
		return fd;
	int code = sm_fd_write_full(fd, buf.data, buf.len);
	if (code >= 0 && fsync(fd) < 0)
		code = -errno;
	return code < 0 ? sm_error_sys(err, code, "meta") : 0;
}

static int fill(struct sm_control *control, struct sm_format_meta *meta, const char *folder,
                struct sm_snapshot_times *times, struct sm_error *err)
{
	int ram_fd SM_FD_CLEANUP = create(folder, "ram", err);
	if (ram_fd < 0)
		return ram_fd;
	int state_fd SM_FD_CLEANUP = create(folder, "state", err);
	if (state_fd < 0)
		return state_fd;

	uint64_t start = now_us();
	int code = sm_control_capture(control, ram_fd, state_fd, &meta->ram_data_bytes, err);
	if (code < 0)
		return code;
	times->capture_us = now_us() - start;
	times->ram_bytes = meta->ram_data_bytes;

	code = finish_file(ram_fd, &meta->ram, &times->hash_us, &times->sync_us, err);
	if (code < 0)
		return sm_error_context(err, "ram");
	code = finish_file(state_fd, &meta->state, &times->hash_us, &times->sync_us, err);
	if (code < 0)
		return sm_error_context(err, "state");
	code = write_meta(folder, meta, err);
	return code < 0 ? code : sm_path_sync_dir(folder, err);
}

static int save(struct sm_control *control, const struct sm_sources *sources, const void *metadata, size_t metadata_len,
                const char *path, struct sm_snapshot_times *ret_times, struct sm_error *err)
{
	uint64_t start = now_us();
	struct sm_snapshot_times times = { 0 };
	char temporary[PATH_MAX];
	int code = sm_path_format(temporary, err, "%s.tmp.XXXXXX", path);
	if (code < 0)
		return code;
	if (!mkdtemp(temporary))
		return sm_error_sys(err, errno, "snapshot %s", path);

	struct sm_format_meta *meta = calloc(1, sizeof *meta);
	code = meta ? 0 : sm_error_set(err, ENOMEM, "out of memory");
	if (code == 0) {
		/* Borrowed: nothing here is freed by us but the struct. */
		meta->plan = *sm_control_plan(control);
		meta->sources = *sources;
		meta->metadata = (uint8_t *)(uintptr_t)metadata;
		meta->metadata_len = metadata_len;
		code = fill(control, meta, temporary, &times, err);
		free(meta);
	}
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
	times.total_us = now_us() - start;
	if (ret_times)
		*ret_times = times;
	return code;
}

int sm_snapshot_save(struct sm_control *control, const struct sm_sources *sources, const void *metadata,
                     size_t metadata_len, const char *path, struct sm_snapshot_times *ret_times, struct sm_error *err)
{
	if (metadata_len > SM_SNAPSHOT_METADATA_MAX)
		return sm_error_set(err, E2BIG, "snapshot %s: %zu bytes of metadata, at most %u", path, metadata_len,
		                    SM_SNAPSHOT_METADATA_MAX);
	struct sm_snapshot_stores *stores = calloc(1, sizeof *stores);
	if (!stores)
		return sm_error_sys(err, ENOMEM, "snapshot %s", path);
	int code = sm_snapshot_stores_begin(sources, path, stores, err);
	if (code < 0)
		sm_error_context(err, "snapshot %s", path);
	else
		code = save(control, sources, metadata, metadata_len, path, ret_times, err);
	sm_snapshot_stores_end(stores);
	free(stores);
	return code;
}
