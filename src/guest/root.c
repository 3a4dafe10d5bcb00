/* The image's root: its layers, which are partitions of one disk, under a writable overlay. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define LAYERS_MAX 255 /* partitions that Linux names on one disk */
#define DISK       "/dev/vda"
#define NEW_ROOT   "/newroot"

/* How many partitions the kernel found on the disk.  It reads the table while it registers the disk, so they are
 * there when the disk is. */
static unsigned count_partitions(const char *disk)
{
	const char *name = strrchr(disk, '/') + 1;
	char path[160];
	unsigned count = 0;
	for (;;) {
		snprintf(path, sizeof path, "/sys/class/block/%s%u", name, count + 1);
		if (access(path, F_OK) < 0)
			return count;
		count++;
	}
}

static int mount_layers(const char *disk, unsigned count, struct sm_failure *failure)
{
	if (sm_mounts_folder("/layers", 0755, failure) < 0)
		return -1;
	for (unsigned i = 1; i <= count; i++) {
		char device[80], where[32];
		snprintf(device, sizeof device, "%s%u", disk, i);
		snprintf(where, sizeof where, "/layers/%u", i);
		if (sm_devices_wait(device, SM_INIT_DEVICE_WAIT_MS, failure) < 0 ||
		    sm_mounts_folder(where, 0755, failure) < 0)
			return -1;
		if (mount(device, where, "erofs", MS_RDONLY, NULL) < 0)
			return sm_fail_errno(failure, "mount layer %s", device);
	}
	return 0;
}

static int mount_upper(const struct sm_options *options, struct sm_failure *failure)
{
	if (sm_mounts_folder("/upper", 0755, failure) < 0)
		return -1;
	if (options->upper[0]) {
		if (sm_devices_wait(options->upper, SM_INIT_DEVICE_WAIT_MS, failure) < 0)
			return -1;
		if (mount(options->upper, "/upper", "ext4", MS_NOATIME, NULL) < 0)
			return sm_fail_errno(failure, "mount upper volume %s", options->upper);
	} else {
		char size[48] = "mode=0755";
		if (options->upper_mib)
			snprintf(size, sizeof size, "mode=0755,size=%um", options->upper_mib);
		if (mount("tmpfs", "/upper", "tmpfs", 0, size) < 0)
			return sm_fail_errno(failure, "mount upper");
	}
	return sm_mounts_folder("/upper/work", 0755, failure);
}

/* The upper layer's root is the root that everybody sees: a new one gets the top layer's owner and mode. */
static int make_upper_root(unsigned count, struct sm_failure *failure)
{
	char top[32];
	struct stat status;
	if (mkdir("/upper/data", 0755) < 0)
		return errno == EEXIST ? 0 : sm_fail_errno(failure, "make folder /upper/data");
	snprintf(top, sizeof top, "/layers/%u", count);
	if (stat(top, &status) < 0 || chown("/upper/data", status.st_uid, status.st_gid) < 0 ||
	    chmod("/upper/data", status.st_mode & 07777) < 0)
		return sm_fail_errno(failure, "owner and mode of /upper/data");
	return 0;
}

/* The option string may be one page long, and all layers have to fit: so the names are relative to /layers. */
static int mount_overlay(unsigned count, struct sm_failure *failure)
{
	char data[2048];
	size_t len = (size_t)snprintf(data, sizeof data,
	                              "index=off,metacopy=off,upperdir=/upper/data,workdir=/upper/work,"
	                              "lowerdir=");
	for (unsigned i = count; i >= 1; i--)
		len += (size_t)snprintf(data + len, sizeof data - len, i > 1 ? "%u:" : "%u", i);
	if (sm_mounts_folder(NEW_ROOT, 0755, failure) < 0)
		return -1;
	if (chdir("/layers") < 0)
		return sm_fail_errno(failure, "folder /layers");
	if (mount("overlay", NEW_ROOT, "overlay", 0, data) < 0)
		return sm_fail_errno(failure, "mount overlay of %u layers", count);
	return chdir("/") < 0 ? sm_fail_errno(failure, "folder /") : 0;
}

static int move_mount_to(const char *from, struct sm_failure *failure)
{
	char to[64];
	snprintf(to, sizeof to, NEW_ROOT "%s", from);
	if (sm_mounts_folder(to, 0755, failure) < 0)
		return -1;
	struct stat status;
	/* The image's: a link there would lead out of the image. */
	if (lstat(to, &status) < 0 || !S_ISDIR(status.st_mode))
		return sm_fail(failure, "the image's %s is not a folder", from);
	return mount(from, to, NULL, MS_MOVE, NULL) < 0 ? sm_fail_errno(failure, "move %s", from) : 0;
}

int sm_root_switch(const struct sm_options *options, bool *ret_image, struct sm_failure *failure)
{
	*ret_image = false;
	const char *disk = options->root[0] ? options->root : DISK;
	if (!strcmp(disk, "none"))
		return 0;
	if (strncmp(disk, "/dev/", 5))
		return sm_fail(failure, "supermachine.root=%s: not a device", disk);
	if (options->root[0] && sm_devices_wait(disk, SM_INIT_DEVICE_WAIT_MS, failure) < 0)
		return -1;
	unsigned count = count_partitions(disk);
	if (count == 0 && !options->root[0] && !options->layers)
		return 0;
	if (count == 0 || count > LAYERS_MAX)
		return sm_fail(failure, "disk %s has %u layers, 1 to %u are possible", disk, count, LAYERS_MAX);
	if (options->layers && options->layers != count)
		return sm_fail(failure, "disk %s has %u layers, %u were announced", disk, count, options->layers);
	if (mount_layers(disk, count, failure) < 0 || mount_upper(options, failure) < 0 ||
	    make_upper_root(count, failure) < 0 || mount_overlay(count, failure) < 0)
		return -1;
	if (move_mount_to("/dev", failure) < 0 || move_mount_to("/proc", failure) < 0 ||
	    move_mount_to("/sys", failure) < 0)
		return -1;
	/* The initramfs cannot be unmounted, so not pivot_root(2): the new root is moved over the old one. */
	if (chdir(NEW_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return sm_fail_errno(failure, "switch root");
	*ret_image = true;
	return 0;
}
