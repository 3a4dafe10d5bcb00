/* Sources: mke2fs(8), e2fsck(8), resize2fs(8); Linux Documentation/filesystems/ext4/super.rst. */
#include "snapshot/ext4.h"

#include "base/fd.h"
#include "snapshot/tool.h"

#include <endian.h>
#include <stddef.h>
#include <string.h>

#define PACKAGE          "e2fsprogs"
#define SUPER_AT         1024
#define MAGIC            0xef53u
#define INCOMPAT_64      0x80u
#define INCOMPAT_RECOVER 0x4u

struct super {
	uint32_t inodes, blocks_low, unused[4], log_block_size, unused2[7];
	uint16_t magic, unused3[3];
	uint32_t unused4[8];
	uint32_t incompat;
	uint8_t unused5[0x150 - 0x64];
	uint32_t blocks_high;
};
_Static_assert(offsetof(struct super, magic) == 0x38, "s_magic");
_Static_assert(offsetof(struct super, incompat) == 0x60, "s_feature_incompat");
_Static_assert(offsetof(struct super, blocks_high) == 0x150, "s_blocks_count_hi");

bool sm_ext4_find(int fd, struct sm_ext4 *ret)
{
	struct super super;
	if (sm_fd_pread_full(fd, &super, sizeof super, SUPER_AT) < 0 || le16toh(super.magic) != MAGIC)
		return false;
	uint64_t blocks = le32toh(super.blocks_low);
	if (le32toh(super.incompat) & INCOMPAT_64)
		blocks |= (uint64_t)le32toh(super.blocks_high) << 32;
	unsigned log = le32toh(super.log_block_size);
	ret->journal = le32toh(super.incompat) & INCOMPAT_RECOVER;
	ret->bytes = log <= 6 && blocks < UINT64_MAX >> (10 + log) ? blocks << (10 + log) : UINT64_MAX;
	return true;
}

/* No zeros are written: the file has them.  No block is for root alone: whoever is to write there is root, or not. */
int sm_ext4_make(const char *path, struct sm_error *err)
{
	const char *const argv[] = { "mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard,assume_storage_prezeroed=1",
		                     path,        NULL };
	return sm_tool_run(argv, PACKAGE, 0, err);
}

int sm_ext4_replay(const char *path, struct sm_error *err)
{
	const char *const argv[] = { "e2fsck", "-p", path, NULL };
	return sm_tool_run(argv, PACKAGE, 1, err); /* 1: it has put something right */
}

int sm_ext4_grow(const char *path, struct sm_error *err)
{
	const char *const check[] = { "e2fsck", "-f", "-p", path, NULL };
	const char *const resize[] = { "resize2fs", path, NULL };
	int code = sm_tool_run(check, PACKAGE, 1, err);
	return code < 0 ? code : sm_tool_run(resize, PACKAGE, 0, err);
}
