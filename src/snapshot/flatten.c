/* A snapshot that leans on others, as one that does not. */
#include "base/sparse.h"
#include "snapshot/inside.h"
#include "snapshot/stores.h"
#include "snapshot/volumes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int copy_all(void *arg, int ram_fd, int state_fd, const int *volume_fds, struct sm_format_meta *meta,
                    struct sm_error *err)
{
	const struct sm_snapshot *snapshot = arg;
	const uint64_t ram_bytes = snapshot->meta.ram.bytes;
	int code = ftruncate(ram_fd, (off_t)ram_bytes) < 0 ? -errno : 0;
	meta->ram_data_bytes = 0;
	for (uint64_t at = 0, next = ram_bytes; at < ram_bytes && code == 0; at = next, next = ram_bytes) {
		int fd = snapshot->ram.files[sm_memory_source_at(&snapshot->ram, at, &next)];
		code = sm_sparse_copy(fd, ram_fd, at, next, &meta->ram_data_bytes);
	}
	if (code == 0)
		code = sm_sparse_copy(snapshot->state_fd, state_fd, 0, snapshot->meta.state.bytes, NULL);
	if (code == 0 && ftruncate(state_fd, (off_t)snapshot->meta.state.bytes) < 0)
		code = -errno;
	return code < 0 ? sm_error_sys(err, code, "copy") : sm_snapshot_volumes_copy(snapshot, volume_fds, err);
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
