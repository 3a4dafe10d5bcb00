/* The EROFS on-disk format, as far as we write it.  Source: Linux fs/erofs/erofs_fs.h and
 * Documentation/filesystems/erofs.rst.  All fields are little-endian. */
#ifndef SM_ROOTFS_EROFS_FORMAT_H
#define SM_ROOTFS_EROFS_FORMAT_H

#include <assert.h>
#include <endian.h>
#include <stdint.h>

#define EROFS_MAGIC        0xe0f5e1e2u
#define EROFS_SUPER_OFFSET 1024
#define EROFS_BLOCK_BITS   12
#define EROFS_BLOCK_BYTES  4096u
#define EROFS_SLOT_BYTES   32 /* inode numbers count these from the metadata's start */
#define EROFS_NULL_ADDR    0xffffffffu

#define EROFS_FEATURE_COMPAT_SB_CHKSUM      0x1u
#define EROFS_FEATURE_COMPAT_MTIME          0x2u
#define EROFS_FEATURE_INCOMPAT_CHUNKED_FILE 0x4u

/* i_format: bit 0 says extended, bits 1 to 3 the data layout. */
#define EROFS_INODE_EXTENDED    1
#define EROFS_INODE_FLAT_PLAIN  0
#define EROFS_INODE_FLAT_INLINE 2
#define EROFS_INODE_CHUNK_BASED 4
#define EROFS_CHUNK_BITS_MAX    31

#define EROFS_XATTR_INDEX_USER              1
#define EROFS_XATTR_INDEX_POSIX_ACL_ACCESS  2
#define EROFS_XATTR_INDEX_POSIX_ACL_DEFAULT 3
#define EROFS_XATTR_INDEX_TRUSTED           4
#define EROFS_XATTR_INDEX_SECURITY          6

struct erofs_super_block {
	uint32_t magic;
	uint32_t checksum; /* crc32c of the rest of the block from here on, with this field 0 */
	uint32_t feature_compat;
	uint8_t blkszbits;
	uint8_t sb_extslots;
	uint16_t root_nid;
	uint64_t inos;
	uint64_t build_time;
	uint32_t build_time_nsec;
	uint32_t blocks;
	uint32_t meta_blkaddr;
	uint32_t xattr_blkaddr;
	uint8_t uuid[16];
	uint8_t volume_name[16];
	uint32_t feature_incompat;
	uint8_t unused[44];
};
static_assert(sizeof(struct erofs_super_block) == 128, "EROFS super block");

struct erofs_inode_extended {
	uint16_t i_format;
	uint16_t i_xattr_icount;
	uint16_t i_mode;
	uint16_t i_reserved;
	uint64_t i_size;
	uint32_t i_u; /* first block, chunk format, or device number */
	uint32_t i_ino;
	uint32_t i_uid;
	uint32_t i_gid;
	uint64_t i_mtime;
	uint32_t i_mtime_nsec;
	uint32_t i_nlink;
	uint8_t i_reserved2[16];
};
static_assert(sizeof(struct erofs_inode_extended) == 64, "EROFS inode");

struct erofs_xattr_ibody_header {
	uint32_t h_name_filter;
	uint8_t h_shared_count;
	uint8_t h_reserved[7];
};
static_assert(sizeof(struct erofs_xattr_ibody_header) == 12, "EROFS xattr header");

struct erofs_xattr_entry {
	uint8_t e_name_len;
	uint8_t e_name_index;
	uint16_t e_value_size;
};
static_assert(sizeof(struct erofs_xattr_entry) == 4, "EROFS xattr entry");

struct erofs_dirent {
	uint64_t nid;
	uint16_t nameoff;
	uint8_t file_type;
	uint8_t reserved;
} __attribute__((packed));
static_assert(sizeof(struct erofs_dirent) == 12, "EROFS directory entry");

#endif
