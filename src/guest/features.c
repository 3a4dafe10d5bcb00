/* What the kernel must have, whether built in or loaded: looked at before anything needs it, so that what is missing is
 * named as the option that a kernel's configuration calls it. */
#include "init.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct feature {
	const char *option;
	const char *file_system; /* as /proc/filesystems has it */
	const char *path;        /* or what is there when the feature is */
};

static const struct feature features[] = {
	{ "CONFIG_VIRTIO_MMIO", NULL, "/sys/bus/platform/drivers/virtio-mmio" },
	{ "CONFIG_VIRTIO_BLK", NULL, "/sys/bus/virtio/drivers/virtio_blk" },
	{ "CONFIG_VIRTIO_VSOCKETS", NULL, "/sys/bus/virtio/drivers/vmw_vsock_virtio_transport" },
	{ "CONFIG_EROFS_FS", "erofs", NULL },
	{ "CONFIG_OVERLAY_FS", "overlay", NULL },
	{ "CONFIG_TMPFS", "tmpfs", NULL },
	{ "CONFIG_UNIX98_PTYS", "devpts", NULL },
};

/* A line is "nodev\tNAME" or "\tNAME". */
static bool is_listed(const char *list, const char *name)
{
	char entry[40];
	snprintf(entry, sizeof entry, "\t%s\n", name);
	return strstr(list, entry) != NULL;
}

int sm_features_check(struct sm_failure *failure)
{
	char list[4096];
	FILE *file = fopen("/proc/filesystems", "re");
	if (!file)
		return sm_fail_errno(failure, "open /proc/filesystems");
	list[fread(list, 1, sizeof list - 1, file)] = 0;
	fclose(file);

	char missing[sizeof failure->message - 32] = "";
	size_t len = 0;
	for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
		const struct feature *one = &features[i];
		if (one->path ? access(one->path, F_OK) == 0 : is_listed(list, one->file_system))
			continue;
		len += (size_t)snprintf(missing + len, sizeof missing - len, "%s%s", len ? ", " : "", one->option);
	}
	return len ? sm_fail(failure, "the kernel lacks %s", missing) : 0;
}
