/* The guest's first file system: an uncompressed newc cpio.
 * Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst. */
#ifndef SM_ROOTFS_INITRAMFS_H
#define SM_ROOTFS_INITRAMFS_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct sm_initramfs_entry {
	const char *path; /* "/init", "lib/modules/erofs.ko"; missing parents are made, mode 0755 */
	uint32_t mode;    /* type and permissions: regular file, directory, symlink or device */
	int fd;           /* of a regular file: its whole content, from offset 0; or -1 for `data` */
	const void *data; /* content, or a symlink's target */
	size_t data_len;
	uint32_t major, minor; /* of a device */
};

/* Write the archive to fd from its current position on.  Entries are written in the given order, as root's, time 0: the
 * same entries give the same bytes.  A directory with attributes of its own comes before what is in it; a path with
 * "..", one through a file, and one given twice are refused. */
int sm_initramfs_write(int fd, const struct sm_initramfs_entry *entries, size_t nentries, struct sm_error *err);

#endif
