#include "rootfs/erofs_read.h"

#include "base/fd.h"
#include "rootfs/erofs_format.h"
#include "rootfs/xattr.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

static int damaged(struct sm_error *err)
{
	return sm_error_set(err, EBADMSG, "the image is damaged");
}

/* An image ends too early where one is damaged. */
static int get(const struct sm_erofs_image *image, void *data, size_t len, uint64_t place, struct sm_error *err)
{
	if (place > INT64_MAX - len)
		return damaged(err);
	int code = sm_fd_pread_full(image->fd, data, len, place);
	if (code == -ENODATA)
		return damaged(err);
	return code < 0 ? sm_error_sys(err, code, "read the image") : 0;
}

int sm_erofs_image_open(struct sm_erofs_image *image, int fd, struct sm_error *err)
{
	struct erofs_super_block super;
	*image = (struct sm_erofs_image){ .fd = fd };
	int code = get(image, &super, sizeof super, EROFS_SUPER_OFFSET, err);
	if (code < 0)
		return code;
	if (le32toh(super.magic) != EROFS_MAGIC || super.blkszbits != EROFS_BLOCK_BITS)
		return damaged(err);
	image->meta_start = (uint64_t)le32toh(super.meta_blkaddr) << EROFS_BLOCK_BITS;
	image->root_nid = le16toh(super.root_nid);
	return 0;
}

/* The mark is always the last attribute. */
static int take_opaque(const struct sm_erofs_image *image, struct sm_erofs_inode *inode, struct sm_error *err)
{
	uint8_t last[SM_XATTR_OPAQUE_BYTES];
	if (!S_ISDIR(inode->mode) || inode->xattr_bytes < sizeof last)
		return 0;
	int code = get(image, last, sizeof last, inode->after - sizeof last, err);
	inode->opaque = code == 0 && !memcmp(last, sm_xattr_opaque, sizeof last);
	if (inode->opaque)
		inode->xattr_bytes -= (uint32_t)sizeof last;
	return code;
}

int sm_erofs_image_inode(const struct sm_erofs_image *image, uint64_t nid, struct sm_erofs_inode *ret_inode,
                         struct sm_error *err)
{
	struct erofs_inode_extended raw;
	if (nid > INT64_MAX / EROFS_SLOT_BYTES / 2)
		return damaged(err);
	uint64_t place = image->meta_start + nid * EROFS_SLOT_BYTES;
	int code = get(image, &raw, sizeof raw, place, err);
	if (code < 0)
		return code;
	unsigned format = le16toh(raw.i_format), count = le16toh(raw.i_xattr_icount);
	uint32_t xattr_bytes = count ? (count - 1) * 4 : 0, field = le32toh(raw.i_u);
	if (!(format & EROFS_INODE_EXTENDED))
		return damaged(err);
	*ret_inode = (struct sm_erofs_inode){
		.mode = le16toh(raw.i_mode),
		.uid = le32toh(raw.i_uid),
		.gid = le32toh(raw.i_gid),
		.mtime = (int64_t)le64toh(raw.i_mtime),
		.mtime_nsec = le32toh(raw.i_mtime_nsec),
		.size = le64toh(raw.i_size),
		.xattr_bytes = xattr_bytes,
		.nid = nid,
		.place = place,
		.after = place + sizeof raw + (count ? sizeof(struct erofs_xattr_ibody_header) + xattr_bytes : 0),
		.layout = format >> 1,
		.field = field,
	};
	if (S_ISCHR(ret_inode->mode) || S_ISBLK(ret_inode->mode)) {
		ret_inode->major = field >> 8 & 0xfff;
		ret_inode->minor = (field & 0xff) | (field >> 12 & 0xfff00);
	}
	return take_opaque(image, ret_inode, err);
}

/* Where the content at `offset` is and how many bytes of it are there together. */
static int locate(const struct sm_erofs_image *image, const struct sm_erofs_inode *inode, uint64_t offset,
                  uint64_t *ret_place, uint64_t *ret_len, bool *ret_hole, struct sm_error *err)
{
	uint64_t tail_start = inode->size & ~(uint64_t)(EROFS_BLOCK_BYTES - 1);
	*ret_hole = false;
	*ret_len = inode->size - offset;
	*ret_place = ((uint64_t)inode->field << EROFS_BLOCK_BITS) + offset;
	if (inode->layout == EROFS_INODE_CHUNK_BASED) {
		unsigned bits = EROFS_BLOCK_BITS + (inode->field & EROFS_CHUNK_BITS_MAX);
		uint64_t chunk = offset >> bits, skip = offset & ((1ull << bits) - 1);
		uint32_t block;
		int code = get(image, &block, sizeof block, inode->after + chunk * sizeof block, err);
		if (code < 0)
			return code;
		*ret_hole = le32toh(block) == EROFS_NULL_ADDR;
		*ret_place = ((uint64_t)le32toh(block) << EROFS_BLOCK_BITS) + skip;
		if (*ret_len > (1ull << bits) - skip)
			*ret_len = (1ull << bits) - skip;
	} else if (inode->layout == EROFS_INODE_FLAT_INLINE) {
		if (offset >= tail_start)
			*ret_place = inode->after + (offset - tail_start);
		else
			*ret_len = tail_start - offset;
	} else if (inode->layout != EROFS_INODE_FLAT_PLAIN) {
		return damaged(err);
	}
	return 0;
}

ssize_t sm_erofs_image_read(const struct sm_erofs_image *image, const struct sm_erofs_inode *inode, uint64_t offset,
                            void *data, size_t len, bool *ret_hole, struct sm_error *err)
{
	uint64_t place, there;
	*ret_hole = false;
	if (offset >= inode->size || !len)
		return 0;
	int code = locate(image, inode, offset, &place, &there, ret_hole, err);
	if (code < 0)
		return code;
	if (there > SSIZE_MAX)
		there = SSIZE_MAX;
	if (*ret_hole)
		return (ssize_t)there;
	if (there > len)
		there = len;
	code = get(image, data, (size_t)there, place, err);
	return code < 0 ? code : (ssize_t)there;
}

int sm_erofs_image_xattrs(const struct sm_erofs_image *image, const struct sm_erofs_inode *inode, void *data,
                          struct sm_error *err)
{
	uint64_t place = inode->place + sizeof(struct erofs_inode_extended) + sizeof(struct erofs_xattr_ibody_header);
	return inode->xattr_bytes ? get(image, data, inode->xattr_bytes, place, err) : 0;
}

struct block {
	uint8_t bytes[EROFS_BLOCK_BYTES];
	size_t len;
	unsigned count; /* entries */
};

static int read_block(const struct sm_erofs_image *image, const struct sm_erofs_inode *directory, uint64_t index,
                      struct block *block, struct sm_error *err)
{
	bool hole;
	ssize_t got = sm_erofs_image_read(image, directory, index * EROFS_BLOCK_BYTES, block->bytes,
	                                  sizeof block->bytes, &hole, err);
	if (got < 0)
		return (int)got;
	struct erofs_dirent first;
	block->len = (size_t)got;
	if (hole || block->len < sizeof first)
		return damaged(err);
	memcpy(&first, block->bytes, sizeof first);
	unsigned offset = le16toh(first.nameoff);
	if (!offset || offset % sizeof first || offset > block->len)
		return damaged(err);
	block->count = offset / sizeof first;
	return 0;
}

/* Compare a name with the block's n-th entry: the order is that of strcmp. */
static int compare(const struct block *block, unsigned n, const char *name, size_t len, int *ret_order,
                   uint64_t *ret_nid, struct sm_error *err)
{
	struct erofs_dirent entry, next;
	memcpy(&entry, block->bytes + n * sizeof entry, sizeof entry);
	size_t start = le16toh(entry.nameoff), end = block->len;
	if (n + 1 < block->count) {
		memcpy(&next, block->bytes + (n + 1) * sizeof next, sizeof next);
		end = le16toh(next.nameoff);
	}
	if (start >= end || end > block->len)
		return damaged(err);
	/* The last name of a full block ends at a NUL, if it ends before the block. */
	size_t there = strnlen((const char *)block->bytes + start, end - start);
	int order = memcmp(name, block->bytes + start, len < there ? len : there);
	*ret_order = order ? order : (len > there) - (len < there);
	*ret_nid = le64toh(entry.nid);
	return 0;
}

int sm_erofs_image_lookup(const struct sm_erofs_image *image, const struct sm_erofs_inode *directory, const char *name,
                          size_t len, struct sm_erofs_inode *ret_inode, struct sm_error *err)
{
	struct block block;
	uint64_t low = 0, high = (directory->size + EROFS_BLOCK_BYTES - 1) / EROFS_BLOCK_BYTES, nid;
	int order, code;
	/* The last block whose first name is not behind ours. */
	while (high - low > 1) {
		uint64_t middle = low + (high - low) / 2;
		code = read_block(image, directory, middle, &block, err);
		if (code == 0)
			code = compare(&block, 0, name, len, &order, &nid, err);
		if (code < 0)
			return code;
		if (order < 0)
			high = middle;
		else
			low = middle;
	}
	if (low == high)
		return 0;
	code = read_block(image, directory, low, &block, err);
	for (unsigned n = 0; code == 0 && n < block.count; n++) {
		code = compare(&block, n, name, len, &order, &nid, err);
		if (code == 0 && order == 0) {
			code = sm_erofs_image_inode(image, nid, ret_inode, err);
			return code < 0 ? code : 1;
		}
	}
	return code;
}
