#include "base/fd.h"
#include "base/path.h"
#include "oci/store_lock.h"
#include "snapshot/inside.h"
#include "snapshot/volumes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static int open_plain(const char *folder, const char *name, struct sm_error *err)
{
	char path[PATH_MAX];
	int code = sm_path_format(path, err, "%s/%s", folder, name);
	if (code < 0)
		return code;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? sm_error_sys(err, errno, "%s", name) : fd;
}

/* One of a folder's files, checked.  A sealed copy is what is checked then, and never the file, which may yet change.
 */
int sm_snapshot_open_file(const char *folder, const char *name, const struct sm_format_file *expected,
                          const struct sm_snapshot_open *how, struct sm_error *err)
{
	int fd SM_FD_CLEANUP = open_plain(folder, name, err);
	if (fd < 0)
		return fd;
	/* The snapshot, and every machine that maps its RAM, keep it from the store's gc. */
	int code = sm_oci_hold(fd);
	if (code < 0)
		return sm_error_sys(err, code, "%s", name);
	if (how->sealed) {
		int copy = sm_snapshot_seal(fd, name, expected->bytes, err);
		if (copy < 0)
			return copy;
		sm_fd_close(&fd);
		fd = copy;
	}
	code = sm_format_check(fd, name, expected, how->verify || how->sealed, err);
	return code < 0 ? code : sm_fd_take(&fd);
}

/* A folder's RAM, and what it leans on below it: the snapshot's own, then its parent's, and so on. */
static int open_ram(struct sm_snapshot *snapshot, const struct sm_format_meta *meta, const char *folder,
                    const struct sm_snapshot_open *how, struct sm_error *err);

static int open_parent(struct sm_snapshot *snapshot, const struct sm_format_meta *child,
                       const struct sm_snapshot_open *how, struct sm_error *err)
{
	struct sm_format_meta *meta = calloc(1, sizeof *meta);
	int code = meta ? sm_format_read(child->parent, meta, err) : sm_error_set(err, ENOMEM, "out of memory");
	if (code >= 0 && strcmp(meta->sha256, child->parent_sha256))
		code =
		    sm_error_set(err, EBADMSG, "meta: sha256 is %s, expected %s: not what the snapshot was made from",
		                 meta->sha256, child->parent_sha256);
	if (code >= 0)
		code = open_ram(snapshot, meta, child->parent, how, err);
	if (meta)
		sm_format_meta_done(meta);
	free(meta);
	return code < 0 ? sm_error_context(err, "parent %s", child->parent) : 0;
}

static int open_ram(struct sm_snapshot *snapshot, const struct sm_format_meta *meta, const char *folder,
                    const struct sm_snapshot_open *how, struct sm_error *err)
{
	if (snapshot->nfiles == SM_MEMORY_FILES_MAX)
		return sm_error_set(err, E2BIG, "more than %u snapshots lean on each other", SM_MEMORY_FILES_MAX);
	int fd = sm_snapshot_open_file(folder, "ram", &meta->ram, how, err);
	if (fd < 0)
		return fd;
	snapshot->files[snapshot->nfiles++] = fd;
	int code = meta->parent[0] ? open_parent(snapshot, meta, how, err) : 0;
	return code < 0 ? code : sm_memory_source_add(&snapshot->ram, fd, meta->parent[0] ? &meta->extents : NULL, err);
}

static int open_all(struct sm_snapshot *snapshot, const struct sm_snapshot_open *how, struct sm_error *err)
{
	if (!realpath(snapshot->path, snapshot->absolute))
		return sm_error_sys(err, errno, "meta");
	int code = sm_format_read(snapshot->path, &snapshot->meta, err);
	if (code >= 0)
		code = open_ram(snapshot, &snapshot->meta, snapshot->path, how, err);
	if (code < 0)
		return code;
	code = snapshot->state_fd = sm_snapshot_open_file(snapshot->path, "state", &snapshot->meta.state, how, err);
	if (code >= 0)
		code = sm_sources_open_disks(&snapshot->meta.sources, &snapshot->opened, err);
	if (code >= 0)
		code = sm_snapshot_volumes_open(snapshot, how, err);
	if (code >= 0)
		sm_working_set_open(snapshot, how);
	return code;
}

int sm_snapshot_open(const char *path, const struct sm_snapshot_open *how, struct sm_snapshot **ret_snapshot,
                     struct sm_error *err)
{
	struct sm_snapshot *snapshot = calloc(1, sizeof *snapshot);
	if (!snapshot)
		return sm_error_set(err, ENOMEM, "snapshot %s: out of memory", path);
	atomic_init(&snapshot->references, 1);
	snapshot->state_fd = -1;
	snapshot->opened.kernel_fd = snapshot->opened.initrd_fd = -1;
	int code = sm_path_format(snapshot->path, err, "%s", path);
	if (code >= 0)
		code = open_all(snapshot, how, err);
	if (code < 0) {
		sm_snapshot_unref(snapshot);
		return sm_error_context(err, "snapshot %s", path);
	}
	*ret_snapshot = snapshot;
	return 0;
}

struct sm_snapshot *sm_snapshot_ref(struct sm_snapshot *snapshot)
{
	atomic_fetch_add(&snapshot->references, 1);
	return snapshot;
}

void sm_snapshot_unref(struct sm_snapshot *snapshot)
{
	if (!snapshot || atomic_fetch_sub(&snapshot->references, 1) > 1)
		return;
	sm_working_set_close(snapshot);
	sm_opened_done(&snapshot->opened);
	sm_snapshot_volumes_close(snapshot);
	sm_memory_source_done(&snapshot->ram);
	while (snapshot->nfiles > 0)
		sm_fd_close(&snapshot->files[--snapshot->nfiles]);
	sm_fd_close(&snapshot->state_fd);
	sm_format_meta_done(&snapshot->meta);
	free(snapshot);
}

const char *sm_snapshot_path(const struct sm_snapshot *snapshot)
{
	return snapshot->path;
}

const char *sm_snapshot_parent(const struct sm_snapshot *snapshot)
{
	return snapshot->meta.parent[0] ? snapshot->meta.parent : NULL;
}

const struct sm_plan *sm_snapshot_plan(const struct sm_snapshot *snapshot)
{
	return &snapshot->meta.plan;
}

const struct sm_sources *sm_snapshot_sources(const struct sm_snapshot *snapshot)
{
	return &snapshot->meta.sources;
}

const void *sm_snapshot_metadata(const struct sm_snapshot *snapshot, size_t *ret_len)
{
	*ret_len = snapshot->meta.metadata_len;
	return snapshot->meta.metadata;
}

uint64_t sm_snapshot_ram_bytes(const struct sm_snapshot *snapshot)
{
	return snapshot->meta.ram_data_bytes;
}

int sm_snapshot_restore(struct sm_snapshot *snapshot, const struct sm_snapshot_restore *how,
                        struct sm_control **ret_control, struct sm_error *err)
{
	/* Each restore finds the folders that are there now. */
	struct sm_opened mounts = { .kernel_fd = -1, .initrd_fd = -1 };
	int code = sm_sources_open_mounts(how->mounts ? how->mounts : &snapshot->meta.sources.mounts, &mounts, err);
	if (code < 0) {
		sm_opened_done(&mounts);
		return sm_error_context(err, "snapshot %s", snapshot->path);
	}
	struct sm_memory_source ram = snapshot->ram; /* borrowed */
	ram.watched = how->watched;
	if (snapshot->working_set.wanted)
		ram.written = snapshot->working_set.touched.written;
	struct sm_volume volumes[SM_PLAN_SLOTS_MAX];
	code = sm_snapshot_volumes_build(snapshot, volumes, err);
	if (code < 0) {
		sm_opened_done(&mounts);
		return sm_error_context(err, "snapshot %s", snapshot->path);
	}
	sm_working_set_prefetch(snapshot);
	const struct sm_control_build build = {
		.plan = &snapshot->meta.plan,
		.hv_fd = how->hv_fd,
		.kernel_fd = -1,
		.initrd_fd = -1,
		.state_fd = snapshot->state_fd,
		.ram = &ram,
		.ndisks = snapshot->opened.ndisks,
		.disks = snapshot->opened.disks,
		.nvolumes = snapshot->nvolumes,
		.volumes = volumes,
		.nmounts = mounts.nmounts,
		.mounts = mounts.mounts,
	};
	code = sm_control_open(how->transport, &build, ret_control, err);
	sm_opened_done(&mounts);
	sm_snapshot_volumes_done(volumes, snapshot->nvolumes);
	if (code >= 0)
		return 0;
	char here[sizeof snapshot->meta.host];
	sm_format_host(here);
	if (snapshot->meta.host[0] && strcmp(here, snapshot->meta.host))
		sm_error_context(err, "made on %s, this is %s", snapshot->meta.host, here);
	return sm_error_context(err, "snapshot %s", snapshot->path);
}
