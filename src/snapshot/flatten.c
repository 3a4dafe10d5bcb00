/* A snapshot that leans on others, as one that does not. */
#include "base/fd.h"
#include "snapshot/inside.h"
#include "snapshot/stores.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int sm_snapshot_copy_data(int from, int to, uint64_t offset, uint64_t end, uint8_t *chunk, uint64_t *data_bytes)
{
	while (offset < end) {
		off_t start = lseek(from, (off_t)offset, SEEK_DATA);
		if (start < 0)
			return errno == ENXIO ? 0 : -errno;
		off_t hole = lseek(from, start, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		uint64_t until = (uint64_t)hole < end ? (uint64_t)hole : end;
		for (offset = (uint64_t)start; offset < until;) {
			size_t len = until - offset < SM_SNAPSHOT_CHUNK ? (size_t)(until - offset) : SM_SNAPSHOT_CHUNK;
			int code = sm_fd_pread_full(from, chunk, len, offset);
			if (code < 0 || (code = sm_fd_pwrite_full(to, chunk, len, offset)) < 0)
				return code;
			offset += len;
			*data_bytes += len;
		}
	}
	return 0;
}

static int copy_all(void *arg, int ram_fd, int state_fd, struct sm_format_meta *meta, struct sm_error *err)
{
	const struct sm_snapshot *snapshot = arg;
	uint8_t *chunk = malloc(SM_SNAPSHOT_CHUNK);
	if (!chunk)
		return sm_error_set(err, ENOMEM, "out of memory");
	uint64_t ram_bytes = snapshot->meta.ram.bytes, state_data = 0;
	int code = ftruncate(ram_fd, (off_t)ram_bytes) < 0 ? -errno : 0;
	meta->ram_data_bytes = 0;
	for (uint64_t at = 0, next = ram_bytes; at < ram_bytes && code == 0; at = next, next = ram_bytes) {
		int fd = snapshot->ram.files[sm_memory_source_at(&snapshot->ram, at, &next)];
		code = sm_snapshot_copy_data(fd, ram_fd, at, next, chunk, &meta->ram_data_bytes);
	}
	if (code == 0)
		code = sm_snapshot_copy_data(snapshot->state_fd, state_fd, 0, snapshot->meta.state.bytes, chunk,
		                             &state_data);
	if (code == 0 && ftruncate(state_fd, (off_t)snapshot->meta.state.bytes) < 0)
		code = -errno;
	free(chunk);
	return code < 0 ? sm_error_sys(err, code, "copy") : 0;
}

int sm_snapshot_flatten(struct sm_snapshot *snapshot, const char *path, struct sm_snapshot_times *ret_times,
                        struct sm_error *err)
{
	struct sm_snapshot_stores *stores = calloc(1, sizeof *stores);
	struct sm_format_meta *meta = calloc(1, sizeof *meta);
	int code = stores && meta ? 0 : sm_error_set(err, ENOMEM, "snapshot %s: out of memory", path);
	if (code == 0 && (code = sm_snapshot_stores_begin(&snapshot->meta.sources, path, stores, err)) < 0)
		sm_error_context(err, "snapshot %s", path);
	if (code >= 0) {
		/* Borrowed. */
		*meta = snapshot->meta;
		meta->parent[0] = meta->parent_sha256[0] = '\0';
		meta->extents = (struct sm_memory_extents){ 0 };
		code = sm_snapshot_publish(meta, copy_all, snapshot, path, ret_times, err);
	}
	if (stores)
		sm_snapshot_stores_end(stores);
	free(stores);
	free(meta);
	return code;
}
