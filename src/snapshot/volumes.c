#include "snapshot/volumes.h"

#include "base/fd.h"
#include "base/sparse.h"
#include "snapshot/volume_file.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

struct name {
	char text[24];
};

static struct name name_of(unsigned index)
{
	struct name name;
	snprintf(name.text, sizeof name.text, "volume-%u", index);
	return name;
}

/* ---- save --------------------------------------------------------------------------------------------------- */

int sm_snapshot_volumes_list(struct sm_control *control, struct sm_format_meta *meta, struct sm_error *err)
{
	struct sm_volume volumes[SM_PLAN_SLOTS_MAX];
	int code = sm_control_volumes(control, volumes, &meta->nvolumes, err);
	for (unsigned i = 0; i < meta->nvolumes && code >= 0; i++)
		meta->volumes[i] = (struct sm_format_volume){
			.index = volumes[i].index,
			.readonly = volumes[i].readonly,
			.as_writable = volumes[i].as_writable,
			.file.bytes = volumes[i].bytes,
		};
	return code;
}

int sm_snapshot_volumes_create(const struct sm_format_meta *meta, const char *folder, int ret_fds[SM_PLAN_SLOTS_MAX],
                               struct sm_error *err)
{
	for (unsigned i = 0; i < SM_PLAN_SLOTS_MAX; i++)
		ret_fds[i] = -1;
	for (unsigned i = 0; i < meta->nvolumes; i++) {
		struct name name = name_of(meta->volumes[i].index);
		int fd = ret_fds[i] = sm_snapshot_create(folder, name.text, 0400, err);
		if (fd >= 0 && ftruncate(fd, (off_t)meta->volumes[i].file.bytes) < 0)
			fd = sm_error_sys(err, errno, "%s", name.text);
		if (fd < 0)
			return fd;
	}
	return 0;
}

int sm_snapshot_volumes_copy(const struct sm_snapshot *from, const int *fds, struct sm_error *err)
{
	for (unsigned i = 0; i < from->meta.nvolumes; i++) {
		int code = 0;
		if (!sm_sparse_clone(from->volume_fds[i], fds[i]))
			code = sm_sparse_copy(from->volume_fds[i], fds[i], 0, from->meta.volumes[i].file.bytes, NULL);
		if (code < 0)
			return sm_error_sys(err, code, "copy %s", name_of(from->meta.volumes[i].index).text);
	}
	return 0;
}

/* ---- open --------------------------------------------------------------------------------------------------- */

int sm_snapshot_volumes_open(struct sm_snapshot *snapshot, const struct sm_snapshot_open *how, struct sm_error *err)
{
	const struct sm_format_meta *meta = &snapshot->meta;
	while (snapshot->nvolumes < meta->nvolumes) {
		const struct sm_format_volume *volume = &meta->volumes[snapshot->nvolumes];
		int fd = sm_snapshot_open_file(snapshot->path, name_of(volume->index).text, &volume->file, how, err);
		if (fd < 0)
			return fd;
		snapshot->volume_fds[snapshot->nvolumes++] = fd;
	}
	return 0;
}

void sm_snapshot_volumes_close(struct sm_snapshot *snapshot)
{
	while (snapshot->nvolumes > 0)
		sm_fd_close(&snapshot->volume_fds[--snapshot->nvolumes]);
}

/* ---- build -------------------------------------------------------------------------------------------------- */

int sm_snapshot_volumes_build(const struct sm_snapshot *snapshot, struct sm_volume ret_volumes[SM_PLAN_SLOTS_MAX],
                              struct sm_error *err)
{
	for (unsigned i = 0; i < snapshot->nvolumes; i++) {
		const struct sm_format_volume *volume = &snapshot->meta.volumes[i];
		ret_volumes[i] = (struct sm_volume){
			.index = volume->index,
			.fd = snapshot->volume_fds[i],
			.overlay_fd = -1,
			.readonly = volume->readonly,
			.as_writable = volume->as_writable,
			.bytes = volume->file.bytes,
		};
		int fd = volume->readonly ? 0 : sm_volume_overlay(err);
		if (fd < 0) {
			sm_snapshot_volumes_done(ret_volumes, i);
			return sm_error_context(err, "volume %u", volume->index);
		}
		if (!volume->readonly)
			ret_volumes[i].overlay_fd = fd;
	}
	return 0;
}

void sm_snapshot_volumes_done(struct sm_volume *volumes, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		sm_fd_close(&volumes[i].overlay_fd);
}
