/* A disk as a list of segments: pure data, served by the block device. */
#ifndef SM_PLAN_DISK_H
#define SM_PLAN_DISK_H

#include <stdint.h>

struct sm_disk_segment {
	uint64_t offset; /* on the disk, bytes; segments ascend and do not overlap; gaps read as zeros */
	uint64_t length; /* bytes */
	int fd;          /* a file to read at fd_offset, or -1 for `memory` */
	uint64_t fd_offset;
	const void *memory; /* `length` bytes, or NULL for zeros */
};

struct sm_disk {
	uint64_t bytes; /* a multiple of 512 */
	unsigned nsegments;
	const struct sm_disk_segment *segments;
};

#endif
