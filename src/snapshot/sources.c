#include "snapshot/sources.h"

#include "base/fd.h"
#include "base/path.h"
#include "oci/store_lock.h"
#include "rootfs/composite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the list ----------------------------------------------------------------------------------------------- */

static int set_path(char **slot, const char *path, struct sm_error *err)
{
	char absolute[PATH_MAX];
	if (!realpath(path, absolute))
		return sm_error_sys(err, errno, "%s", path);
	char *copy = strdup(absolute);
	if (!copy)
		return sm_error_set(err, ENOMEM, "%s: out of memory", path);
	free(*slot);
	*slot = copy;
	return 0;
}

int sm_sources_set_kernel(struct sm_sources *sources, const char *path, struct sm_error *err)
{
	int code = set_path(&sources->kernel, path, err);
	return code < 0 ? sm_error_context(err, "kernel") : 0;
}

int sm_sources_set_initrd(struct sm_sources *sources, const char *path, struct sm_error *err)
{
	int code = set_path(&sources->initrd, path, err);
	return code < 0 ? sm_error_context(err, "initramfs") : 0;
}

int sm_sources_add_disk(struct sm_sources *sources, bool composite, char *const *paths, unsigned npaths,
                        struct sm_error *err)
{
	if (sources->ndisks == SM_SOURCES_DISKS_MAX)
		return sm_error_set(err, E2BIG, "disks: at most %d", SM_SOURCES_DISKS_MAX);
	if (npaths < 1 || npaths > SM_SOURCES_PATHS_MAX || (!composite && npaths > 1))
		return sm_error_set(err, EINVAL, "disk %u: %u files", sources->ndisks, npaths);
	struct sm_source_disk *disk = &sources->disks[sources->ndisks];
	*disk = (struct sm_source_disk){ .composite = composite, .paths = calloc(npaths, sizeof *disk->paths) };
	if (!disk->paths)
		return sm_error_set(err, ENOMEM, "disks: out of memory");
	sources->ndisks++; /* from here on sm_sources_done frees it */
	for (unsigned i = 0; i < npaths; i++) {
		int code = set_path(&disk->paths[i], paths[i], err);
		if (code < 0)
			return sm_error_context(err, "disk %u", sources->ndisks - 1);
		disk->npaths++;
	}
	return 0;
}

int sm_sources_copy_disks(const struct sm_sources *from, struct sm_sources *to, struct sm_error *err)
{
	for (unsigned i = 0; i < from->ndisks; i++) {
		const struct sm_source_disk *disk = &from->disks[i];
		int code = sm_sources_add_disk(to, disk->composite, disk->paths, disk->npaths, err);
		if (code < 0)
			return code;
	}
	return 0;
}

int sm_sources_copy(const struct sm_sources *from, struct sm_sources *to, struct sm_error *err)
{
	int code = sm_sources_copy_disks(from, to, err);
	return code < 0 ? code : sm_source_mounts_copy(&from->mounts, &to->mounts, err);
}

void sm_sources_done(struct sm_sources *sources)
{
	free(sources->kernel);
	free(sources->initrd);
	for (unsigned i = 0; i < sources->ndisks; i++) {
		for (unsigned j = 0; j < sources->disks[i].npaths; j++)
			free(sources->disks[i].paths[j]);
		free(sources->disks[i].paths);
	}
	sm_source_mounts_done(&sources->mounts);
	memset(sources, 0, sizeof *sources);
}

/* ---- as a record -------------------------------------------------------------------------------------------- */

#define SOURCES_VERSION 1
static const uint32_t tag_sources = SM_TAG('D', 'S', 'K', 'S');

void sm_sources_put(struct sm_buf *buf, const struct sm_sources *sources)
{
	size_t record = sm_record_begin(buf, tag_sources, SOURCES_VERSION);
	sm_put_u32(buf, sources->ndisks);
	for (unsigned i = 0; i < sources->ndisks; i++) {
		sm_put_u8(buf, sources->disks[i].composite);
		sm_put_u32(buf, sources->disks[i].npaths);
		for (unsigned j = 0; j < sources->disks[i].npaths; j++)
			sm_put_str(buf, sources->disks[i].paths[j]);
	}
	sm_record_end(buf, record);
}

static int get_disk(struct sm_reader *in, struct sm_source_disk *disk)
{
	disk->composite = sm_get_u8(in) != 0;
	uint32_t npaths = sm_get_u32(in);
	if (in->failed || npaths < 1 || npaths > SM_SOURCES_PATHS_MAX)
		return -EBADMSG;
	disk->paths = calloc(npaths, sizeof *disk->paths);
	if (!disk->paths)
		return -ENOMEM;
	for (; disk->npaths < npaths; disk->npaths++) {
		char path[PATH_MAX];
		sm_get_str(in, path, sizeof path);
		if (in->failed || path[0] != '/')
			return -EBADMSG;
		disk->paths[disk->npaths] = strdup(path);
		if (!disk->paths[disk->npaths])
			return -ENOMEM;
	}
	return 0;
}

int sm_sources_get(struct sm_reader *reader, struct sm_sources *ret_sources, struct sm_error *err)
{
	struct sm_reader in;
	int code = sm_record_open(reader, tag_sources, SOURCES_VERSION, "disk list", &in, err);
	if (code < 0)
		return code;
	uint32_t ndisks = sm_get_u32(&in);
	if (ndisks > SM_SOURCES_DISKS_MAX)
		return sm_error_set(err, EBADMSG, "disk list: %u disks", ndisks);
	memset(ret_sources, 0, sizeof *ret_sources);
	while (ret_sources->ndisks < ndisks && code >= 0)
		code = get_disk(&in, &ret_sources->disks[ret_sources->ndisks++]);
	if (code < 0)
		sm_error_sys(err, code, "disk list: disk %u", ret_sources->ndisks - 1);
	else
		code = sm_record_close(&in, "disk list", err);
	if (code < 0)
		sm_sources_done(ret_sources);
	return code;
}

/* ---- opened ------------------------------------------------------------------------------------------------- */

/* What a disk is read from, kept until the machine has made its own copies. */
struct opened_disk {
	struct sm_composite *composite;
	struct sm_disk_segment segment; /* of a plain disk */
	unsigned nfds;
	int fds[];
};

static int open_regular(const char *path, uint64_t *ret_bytes, struct sm_error *err)
{
	int fd SM_FD_CLEANUP = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return sm_error_sys(err, errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return sm_error_set(err, EINVAL, "%s: not a regular file", path);
	*ret_bytes = (uint64_t)st.st_size;
	return sm_fd_take(&fd);
}

static int open_composite(const struct sm_source_disk *disk, struct opened_disk *opened, struct sm_disk *ret_disk,
                          struct sm_error *err)
{
	struct sm_composite_layer *layers = calloc(disk->npaths, sizeof *layers);
	if (!layers)
		return sm_error_set(err, ENOMEM, "out of memory");
	int code = 0;
	for (unsigned i = 0; i < disk->npaths && code >= 0; i++) {
		code = open_regular(disk->paths[i], &layers[i].bytes, err);
		if (code < 0)
			break;
		layers[i].fd = opened->fds[opened->nfds++] = code;
		/* The machine's copies of the descriptor keep the file from the store's gc. */
		code = sm_oci_hold(layers[i].fd);
		if (code < 0) {
			sm_error_sys(err, code, "%s", disk->paths[i]);
			break;
		}
		const char *slash = strrchr(disk->paths[i], '/');
		layers[i].digest = slash ? slash + 1 : disk->paths[i];
	}
	if (code >= 0)
		code = sm_composite_new(layers, disk->npaths, &opened->composite, err);
	if (code >= 0)
		*ret_disk = *sm_composite_disk(opened->composite);
	free(layers);
	return code;
}

static int open_plain(const struct sm_source_disk *disk, struct opened_disk *opened, struct sm_disk *ret_disk,
                      struct sm_error *err)
{
	uint64_t bytes;
	int fd = open_regular(disk->paths[0], &bytes, err);
	if (fd < 0)
		return fd;
	opened->fds[opened->nfds++] = fd;
	if (bytes == 0 || bytes % 512)
		return sm_error_set(err, EINVAL, "%s: %llu bytes: a disk is a multiple of 512", disk->paths[0],
		                    (unsigned long long)bytes);
	opened->segment = (struct sm_disk_segment){ .length = bytes, .fd = fd };
	*ret_disk = (struct sm_disk){ .bytes = bytes, .nsegments = 1, .segments = &opened->segment };
	return 0;
}

int sm_sources_open_disks(const struct sm_sources *sources, struct sm_opened *ret_opened, struct sm_error *err)
{
	uint64_t bytes;
	int code = 0;
	memset(ret_opened, 0, sizeof *ret_opened);
	ret_opened->kernel_fd = ret_opened->initrd_fd = -1;

	if (sources->kernel)
		code = ret_opened->kernel_fd = open_regular(sources->kernel, &bytes, err);
	if (code >= 0 && sources->initrd)
		code = ret_opened->initrd_fd = open_regular(sources->initrd, &bytes, err);
	for (unsigned i = 0; i < sources->ndisks && code >= 0; i++) {
		const struct sm_source_disk *disk = &sources->disks[i];
		struct opened_disk *opened = calloc(1, sizeof *opened + disk->npaths * sizeof *opened->fds);
		if (!opened) {
			code = sm_error_set(err, ENOMEM, "disk %u: out of memory", i);
			break;
		}
		ret_opened->owned[ret_opened->ndisks] = opened;
		struct sm_disk *slot = &ret_opened->disks[ret_opened->ndisks++];
		code = disk->composite ? open_composite(disk, opened, slot, err) : open_plain(disk, opened, slot, err);
		if (code < 0)
			sm_error_context(err, "disk %u", i);
	}
	if (code < 0)
		sm_opened_done(ret_opened);
	return code < 0 ? code : 0;
}

int sm_sources_open_mounts(const struct sm_source_mounts *mounts, struct sm_opened *opened, struct sm_error *err)
{
	if (mounts->count == 0)
		return 0;
	opened->mounts = calloc(mounts->count, sizeof *opened->mounts);
	if (!opened->mounts)
		return sm_error_set(err, ENOMEM, "mounts: out of memory");
	for (; opened->nmounts < mounts->count; opened->nmounts++) {
		int code = sm_source_mount_open(&mounts->list[opened->nmounts], &opened->mounts[opened->nmounts], err);
		if (code < 0)
			return code;
	}
	return 0;
}

int sm_sources_open(const struct sm_sources *sources, struct sm_opened *ret_opened, struct sm_error *err)
{
	int code = sm_sources_open_disks(sources, ret_opened, err);
	if (code < 0)
		return code;
	code = sm_sources_open_mounts(&sources->mounts, ret_opened, err);
	if (code < 0)
		sm_opened_done(ret_opened);
	return code;
}

void sm_opened_done(struct sm_opened *opened)
{
	sm_fd_close(&opened->kernel_fd);
	sm_fd_close(&opened->initrd_fd);
	for (unsigned i = 0; i < opened->ndisks; i++) {
		struct opened_disk *disk = opened->owned[i];
		sm_composite_free(disk->composite);
		for (unsigned j = 0; j < disk->nfds; j++)
			sm_fd_close(&disk->fds[j]);
		free(disk);
	}
	opened->ndisks = 0;
	for (unsigned i = 0; i < opened->nmounts; i++)
		sm_fd_close(&opened->mounts[i].root_fd);
	free(opened->mounts);
	opened->mounts = NULL;
	opened->nmounts = 0;
}

int sm_sources_open_hv(const char *path, struct sm_error *err)
{
	if (!path)
		path = "/dev/kvm";
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	int code = errno;
	const char *advice = "run `supermachine doctor`";
	if (code == ENOENT || code == ENODEV || code == ENXIO)
		advice =
		    "no KVM here: load the kvm-intel or kvm-amd module, and turn on virtualization in the firmware or "
		    "nested virtualization in the hypervisor";
	else if (code == EACCES || code == EPERM)
		advice = "add this user to the group that owns it (usually kvm) and log in again";
	return sm_error_sys(err, code, "%s (%s)", path, advice);
}
