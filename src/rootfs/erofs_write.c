#include "rootfs/erofs_write.h"

#include "base/fd.h"
#include "rootfs/erofs_data.h"
#include "rootfs/erofs_format.h"
#include "rootfs/xattr.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Inode number 0 would read as "deleted" to programs that look at d_ino, so the root is not at the very start. */
#define FIRST_INODE_OFFSET 64

static const uint8_t placed_name[16] = "in its place";

struct writer {
	struct sm_tree *tree;
	struct sm_out *image;
	int spool_fd;
	uint64_t meta_start;
	uint32_t ino;
	bool chunked; /* a chunk-based file was written */
};

static uint32_t xattr_area(const struct sm_tree_node *node)
{
	uint32_t bytes = node->xattr_bytes + (node->opaque ? SM_XATTR_OPAQUE_BYTES : 0);
	return bytes ? bytes + (uint32_t)sizeof(struct erofs_xattr_ibody_header) : 0;
}

static uint64_t chunk_count(const struct sm_tree_node *node)
{
	uint64_t chunk = (uint64_t)EROFS_BLOCK_BYTES << node->data.chunk_bits;
	return (node->size + chunk - 1) / chunk;
}

/* Bytes that follow the inode and its attributes, and whether they must lie in one block. */
static uint64_t after_inode(const struct sm_tree_node *node, bool *ret_one_block)
{
	*ret_one_block = true;
	if (S_ISDIR(node->mode))
		return node->directory.tail_bytes;
	if (S_ISLNK(node->mode))
		return node->size <= SM_EROFS_INLINE_MAX ? node->size : 0;
	if (!S_ISREG(node->mode))
		return 0;
	if (!node->data.chunked)
		return node->data.tail_bytes;
	*ret_one_block = false;
	return chunk_count(node) * 4;
}

/* How many of the entries from `first` on fit into one block, and the bytes they take. */
static uint32_t fit_block(const struct sm_tree_node *directory, uint32_t first, uint32_t *ret_bytes)
{
	uint32_t bytes = 0, i = first;
	for (; i < directory->directory.nentries; i++) {
		uint32_t more = (uint32_t)sizeof(struct erofs_dirent) + directory->directory.entries[i]->len;
		if (bytes + more > EROFS_BLOCK_BYTES)
			break;
		bytes += more;
	}
	*ret_bytes = bytes;
	return i - first;
}

/* Size the directory and say which of its blocks are full ones and whether the last goes beside the inode. */
static uint64_t plan_directory(struct sm_tree_node *directory)
{
	uint64_t blocks = 0;
	uint32_t bytes = 0;
	for (uint32_t i = 0; i < directory->directory.nentries; blocks++)
		i += fit_block(directory, i, &bytes);
	directory->size = (blocks - 1) * EROFS_BLOCK_BYTES + bytes;
	directory->directory.tail_bytes = bytes <= SM_EROFS_INLINE_MAX ? bytes : 0;
	return directory->directory.tail_bytes ? blocks - 1 : blocks;
}

/* Where the inode goes: on a slot, itself not across blocks where that is cheap, and its tail never. */
static uint64_t place_inode(uint64_t offset, const struct sm_tree_node *node, uint64_t *ret_end)
{
	bool one_block;
	uint64_t after = after_inode(node, &one_block);
	uint64_t head = sizeof(struct erofs_inode_extended) + xattr_area(node);
	offset = (offset + EROFS_SLOT_BYTES - 1) & ~(uint64_t)(EROFS_SLOT_BYTES - 1);
	if (offset % EROFS_BLOCK_BYTES + sizeof(struct erofs_inode_extended) > EROFS_BLOCK_BYTES)
		offset += EROFS_BLOCK_BYTES - offset % EROFS_BLOCK_BYTES;
	uint64_t tail = offset + head;
	if (after && one_block && tail % EROFS_BLOCK_BYTES + after > EROFS_BLOCK_BYTES) {
		if (head + after <= EROFS_BLOCK_BYTES) {
			offset += EROFS_BLOCK_BYTES - offset % EROFS_BLOCK_BYTES;
		} else { /* large attributes: begin so that the tail begins with (or just after) a block */
			uint64_t boundary = tail + EROFS_BLOCK_BYTES - tail % EROFS_BLOCK_BYTES;
			offset = (boundary - head + EROFS_SLOT_BYTES - 1) & ~(uint64_t)(EROFS_SLOT_BYTES - 1);
		}
	}
	*ret_end = offset + head + after;
	return offset;
}

/* Give every directory and long symlink its blocks and every node its inode number. */
static int plan(struct writer *writer, struct sm_error *err)
{
	uint64_t block = writer->image->offset >> EROFS_BLOCK_BITS;
	for (struct sm_tree_node *node = writer->tree->first; node; node = node->next) {
		if (S_ISDIR(node->mode)) {
			block += plan_directory(node);
		} else if (S_ISLNK(node->mode) && node->size > SM_EROFS_INLINE_MAX) {
			block++;
		}
		if (block > SM_EROFS_IMAGE_MAX >> EROFS_BLOCK_BITS)
			break;
	}
	writer->meta_start = block << EROFS_BLOCK_BITS;
	uint64_t offset = FIRST_INODE_OFFSET;
	for (struct sm_tree_node *node = writer->tree->first; node; node = node->next)
		node->nid = place_inode(offset, node, &offset) / EROFS_SLOT_BYTES;
	if (writer->meta_start + offset > writer->image->max)
		return sm_error_set(err, EFBIG, "'%s' would grow over its limit of %llu bytes", writer->image->what,
		                    (unsigned long long)writer->image->max);
	return 0;
}

static uint8_t file_type(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return 1;
	case S_IFDIR:
		return 2;
	case S_IFCHR:
		return 3;
	case S_IFBLK:
		return 4;
	case S_IFIFO:
		return 5;
	default:
		return 7; /* symlink */
	}
}

static const struct sm_tree_node *entry_node(const struct writer *writer, const struct sm_tree_node *directory,
                                             const struct sm_tree_name *name)
{
	if (name == writer->tree->dot)
		return directory;
	return name == writer->tree->dot_dot ? directory->directory.parent : name->node;
}

/* One block of a directory: the fixed-size entries, then the names. */
static uint32_t encode_block(const struct writer *writer, const struct sm_tree_node *directory, uint32_t first,
                             uint8_t block[EROFS_BLOCK_BYTES], uint32_t *ret_bytes)
{
	uint32_t count = fit_block(directory, first, ret_bytes);
	uint32_t name_offset = count * (uint32_t)sizeof(struct erofs_dirent);
	memset(block, 0, EROFS_BLOCK_BYTES);
	for (uint32_t i = 0; i < count; i++) {
		const struct sm_tree_name *name = directory->directory.entries[first + i];
		const struct sm_tree_node *node = entry_node(writer, directory, name);
		struct erofs_dirent entry = { .nid = htole64(node->nid),
			                      .nameoff = htole16((uint16_t)name_offset),
			                      .file_type = file_type(node->mode) };
		memcpy(block + i * sizeof entry, &entry, sizeof entry);
		memcpy(block + name_offset, name->name, name->len);
		name_offset += name->len;
	}
	return count;
}

/* The blocks between the files' content and the inodes. */
static int write_blocks(struct writer *writer, struct sm_error *err)
{
	uint8_t block[EROFS_BLOCK_BYTES];
	int code = 0;
	for (struct sm_tree_node *node = writer->tree->first; node && code == 0; node = node->next) {
		if (S_ISDIR(node->mode)) {
			uint32_t bytes;
			for (uint32_t i = 0; i < node->directory.nentries && code == 0;) {
				i += encode_block(writer, node, i, block, &bytes);
				if (i < node->directory.nentries || !node->directory.tail_bytes)
					code = sm_out_write(writer->image, block, sizeof block, err);
			}
		} else if (S_ISLNK(node->mode) && node->size > SM_EROFS_INLINE_MAX) {
			code = sm_out_write(writer->image, node->target, node->size, err);
			if (code == 0)
				code = sm_out_align(writer->image, EROFS_BLOCK_BYTES, err);
		}
	}
	return code;
}

static int write_xattrs(struct writer *writer, const struct sm_tree_node *node, struct sm_error *err)
{
	if (!xattr_area(node))
		return 0;
	struct erofs_xattr_ibody_header header = { 0 };
	int code = sm_out_write(writer->image, &header, sizeof header, err);
	if (code == 0)
		code = sm_out_write(writer->image, node->xattrs, node->xattr_bytes, err);
	if (code == 0 && node->opaque)
		code = sm_out_write(writer->image, sm_xattr_opaque, SM_XATTR_OPAQUE_BYTES, err);
	return code;
}

/* One 4-byte block address a chunk. */
static int write_chunks(struct writer *writer, const struct sm_tree_node *node, struct sm_error *err)
{
	const struct sm_tree_run *run = node->data.runs, *last = run + node->data.nruns;
	uint64_t count = chunk_count(node);
	int code = 0;
	for (uint64_t chunk = 0; chunk < count && code == 0; chunk++) {
		while (run < last && chunk >= run->chunk + run->count)
			run++;
		uint32_t block = EROFS_NULL_ADDR;
		if (run < last && chunk >= run->chunk)
			block = (uint32_t)(run->block + ((chunk - run->chunk) << node->data.chunk_bits));
		block = htole32(block);
		code = sm_out_write(writer->image, &block, sizeof block, err);
	}
	return code;
}

static int write_after_inode(struct writer *writer, const struct sm_tree_node *node, struct sm_error *err)
{
	uint8_t block[EROFS_BLOCK_BYTES];
	bool one_block;
	uint64_t bytes = after_inode(node, &one_block);
	if (!bytes)
		return 0;
	if (S_ISLNK(node->mode))
		return sm_out_write(writer->image, node->target, bytes, err);
	if (S_ISDIR(node->mode)) {
		uint32_t used;
		for (uint32_t i = 0; i < node->directory.nentries;)
			i += encode_block(writer, node, i, block, &used);
		return sm_out_write(writer->image, block, bytes, err);
	}
	if (node->data.chunked)
		return write_chunks(writer, node, err);
	int code = sm_fd_pread_full(writer->spool_fd, block, bytes, node->data.tail_offset);
	if (code < 0)
		return sm_error_sys(err, code, "read back the spool of '%s'", writer->image->what);
	return sm_out_write(writer->image, block, bytes, err);
}

/* The field that stands for a block, a chunk format or a device number. */
static uint32_t inode_union(const struct sm_tree_node *node, uint32_t block)
{
	switch (node->mode & S_IFMT) {
	case S_IFREG:
		return node->data.chunked ? node->data.chunk_bits : node->data.block;
	case S_IFDIR:
	case S_IFLNK:
		return block;
	case S_IFCHR:
	case S_IFBLK: /* the kernel's new_encode_dev */
		return (node->device.minor & 0xff) | node->device.major << 8 | (node->device.minor & ~0xffu) << 12;
	default:
		return 0;
	}
}

static int write_inode(struct writer *writer, const struct sm_tree_node *node, uint32_t block, struct sm_error *err)
{
	bool one_block;
	uint64_t after = after_inode(node, &one_block);
	bool chunked = S_ISREG(node->mode) && node->data.chunked;
	unsigned layout = chunked ? EROFS_INODE_CHUNK_BASED : after ? EROFS_INODE_FLAT_INLINE : EROFS_INODE_FLAT_PLAIN;
	uint32_t xattrs = xattr_area(node);
	struct erofs_inode_extended inode = {
		.i_format = htole16((uint16_t)(EROFS_INODE_EXTENDED | layout << 1)),
		.i_xattr_icount =
		    htole16((uint16_t)(xattrs ? 1 + (xattrs - sizeof(struct erofs_xattr_ibody_header)) / 4 : 0)),
		.i_mode = htole16((uint16_t)node->mode),
		.i_size = htole64(node->size),
		.i_u = htole32(inode_union(node, block)),
		.i_ino = htole32(++writer->ino),
		.i_uid = htole32(node->uid),
		.i_gid = htole32(node->gid),
		.i_mtime = htole64((uint64_t)node->mtime),
		.i_mtime_nsec = htole32(node->mtime_nsec),
		.i_nlink = htole32(node->nlink),
	};
	writer->chunked |= chunked;
	uint64_t place = writer->meta_start + node->nid * EROFS_SLOT_BYTES;
	int code = sm_out_zero(writer->image, place - writer->image->offset, err);
	if (code == 0)
		code = sm_out_write(writer->image, &inode, sizeof inode, err);
	if (code == 0)
		code = write_xattrs(writer, node, err);
	return code < 0 ? code : write_after_inode(writer, node, err);
}

static int write_inodes(struct writer *writer, uint64_t blocks_start, struct sm_error *err)
{
	uint64_t block = blocks_start >> EROFS_BLOCK_BITS; /* of the next directory or long symlink */
	int code = 0;
	for (struct sm_tree_node *node = writer->tree->first; node && code == 0; node = node->next) {
		code = write_inode(writer, node, (uint32_t)block, err);
		if (S_ISDIR(node->mode))
			block += (node->size - node->directory.tail_bytes + EROFS_BLOCK_BYTES - 1) >> EROFS_BLOCK_BITS;
		else if (S_ISLNK(node->mode))
			block += node->size > SM_EROFS_INLINE_MAX;
	}
	/* erofs-utils look for attributes after every inode, also where the image would end right there. */
	if (code == 0)
		code = sm_out_zero(writer->image, sizeof(struct erofs_xattr_ibody_header), err);
	return code < 0 ? code : sm_out_align(writer->image, EROFS_BLOCK_BYTES, err);
}

/* CRC-32C as the kernel's crc32c(~0, ...): reflected polynomial, no final inversion. */
static uint32_t crc32c(const uint8_t *data, size_t len)
{
	static const uint32_t nibbles[16] = {
		/* the polynomial 0x82f63b78 */
		0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
		0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
	};
	uint32_t crc = ~0u;
	while (len--) {
		crc ^= *data++;
		crc = crc >> 4 ^ nibbles[crc & 15];
		crc = crc >> 4 ^ nibbles[crc & 15];
	}
	return crc;
}

static int write_super_block(struct writer *writer, const struct sm_erofs_label *label, struct sm_error *err)
{
	uint8_t block[EROFS_BLOCK_BYTES] = { 0 };
	struct erofs_super_block super = {
		.magic = htole32(EROFS_MAGIC),
		.feature_compat = htole32(EROFS_FEATURE_COMPAT_SB_CHKSUM | EROFS_FEATURE_COMPAT_MTIME),
		.feature_incompat = htole32(writer->chunked ? EROFS_FEATURE_INCOMPAT_CHUNKED_FILE : 0),
		.blkszbits = EROFS_BLOCK_BITS,
		.root_nid = htole16((uint16_t)writer->tree->root->nid),
		.inos = htole64(writer->tree->nnodes),
		.blocks = htole32((uint32_t)(writer->image->offset >> EROFS_BLOCK_BITS)),
		.meta_blkaddr = htole32((uint32_t)(writer->meta_start >> EROFS_BLOCK_BITS)),
	};
	memcpy(super.uuid, label->uuid, sizeof super.uuid);
	if (label->placed)
		memcpy(super.volume_name, placed_name, sizeof super.volume_name);
	memcpy(block + EROFS_SUPER_OFFSET, &super, sizeof super);
	super.checksum = htole32(crc32c(block + EROFS_SUPER_OFFSET, sizeof block - EROFS_SUPER_OFFSET));
	memcpy(block + EROFS_SUPER_OFFSET, &super, sizeof super);
	int code = sm_fd_pwrite_full(writer->image->fd, block, sizeof block, 0);
	return code < 0 ? sm_error_sys(err, code, "write '%s'", writer->image->what) : 0;
}

int sm_erofs_write(struct sm_tree *tree, struct sm_out *image, int spool_fd, const struct sm_erofs_label *label,
                   struct sm_error *err)
{
	struct writer writer = { .tree = tree, .image = image, .spool_fd = spool_fd };
	uint64_t blocks_start = image->offset;
	int code = plan(&writer, err);
	if (code == 0)
		code = write_blocks(&writer, err);
	if (code == 0)
		code = write_inodes(&writer, blocks_start, err);
	if (code == 0)
		code = sm_out_flush(image, err);
	/* Also gives the file its length where it ends in a hole. */
	if (code == 0 && ftruncate(image->fd, (off_t)image->offset) < 0)
		code = sm_error_sys(err, errno, "write '%s'", image->what);
	return code < 0 ? code : write_super_block(&writer, label, err);
}

/* The mark is always the root's last attribute. */
static int check_root(int fd, const struct erofs_super_block *super, bool *ret_opaque)
{
	struct erofs_inode_extended inode;
	uint8_t last[SM_XATTR_OPAQUE_BYTES];
	uint64_t place = ((uint64_t)le32toh(super->meta_blkaddr) << EROFS_BLOCK_BITS) +
	                 (uint64_t)le16toh(super->root_nid) * EROFS_SLOT_BYTES;
	if (sm_fd_pread_full(fd, &inode, sizeof inode, place) < 0 || !S_ISDIR(le16toh(inode.i_mode)))
		return -EBADMSG;
	uint64_t count = le16toh(inode.i_xattr_icount);
	*ret_opaque = false;
	if (count * 4 <= sizeof last)
		return 0;
	place += sizeof inode + sizeof(struct erofs_xattr_ibody_header) + (count - 1) * 4 - sizeof last;
	if (sm_fd_pread_full(fd, last, sizeof last, place) < 0)
		return -EBADMSG;
	*ret_opaque = !memcmp(last, sm_xattr_opaque, sizeof last);
	return 0;
}

int sm_erofs_check(int fd, struct sm_erofs_label *label)
{
	uint8_t block[EROFS_BLOCK_BYTES];
	struct erofs_super_block super;
	struct stat status;
	if (fstat(fd, &status) < 0 || sm_fd_pread_full(fd, block, sizeof block, 0) < 0)
		return -EBADMSG;
	memcpy(&super, block + EROFS_SUPER_OFFSET, sizeof super);
	uint32_t checksum = le32toh(super.checksum);
	super.checksum = 0;
	memcpy(block + EROFS_SUPER_OFFSET, &super, sizeof super);
	if (le32toh(super.magic) != EROFS_MAGIC || memcmp(super.uuid, label->uuid, sizeof super.uuid) ||
	    (uint64_t)status.st_size != (uint64_t)le32toh(super.blocks) << EROFS_BLOCK_BITS ||
	    checksum != crc32c(block + EROFS_SUPER_OFFSET, sizeof block - EROFS_SUPER_OFFSET))
		return -EBADMSG;
	label->placed = !memcmp(super.volume_name, placed_name, sizeof placed_name);
	return check_root(fd, &super, &label->root_opaque);
}
