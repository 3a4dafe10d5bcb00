/* What the protocol has beyond the system's linux/fuse.h (7.38).  Private to this room. */
#ifndef SM_FUSE_WIRE_H
#define SM_FUSE_WIRE_H

#include <linux/fuse.h>

#define SM_FUSE_MINOR_MIN 31 /* Linux 5.4: the first with virtiofs */
#define SM_FUSE_MINOR     39

#define SM_FUSE_STATX 52 /* 7.39 */

struct sm_fuse_statx_in {
	uint32_t getattr_flags;
	uint32_t reserved;
	uint64_t fh;
	uint32_t sx_flags;
	uint32_t sx_mask;
};

struct sm_fuse_sx_time {
	int64_t sec;
	uint32_t nsec;
	int32_t reserved;
};

struct sm_fuse_statx {
	uint32_t mask, blksize;
	uint64_t attributes;
	uint32_t nlink, uid, gid;
	uint16_t mode, spare0;
	uint64_t ino, size, blocks, attributes_mask;
	struct sm_fuse_sx_time atime, btime, ctime, mtime;
	uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
	uint64_t spare2[14];
};

struct sm_fuse_statx_out {
	uint64_t attr_valid;
	uint32_t attr_valid_nsec;
	uint32_t flags;
	uint64_t spare[2];
	struct sm_fuse_statx stat;
};

_Static_assert(sizeof(struct sm_fuse_statx) == 256, "as Linux has it");
_Static_assert(sizeof(struct sm_fuse_statx_out) == 288, "as Linux has it");

#endif
