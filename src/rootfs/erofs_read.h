/* Reading our own EROFS images: what a layer needs to know of those below it. */
#ifndef SM_ROOTFS_EROFS_READ_H
#define SM_ROOTFS_EROFS_READ_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct sm_erofs_image {
	int fd; /* borrowed */
	uint64_t meta_start;
	uint64_t root_nid;
};

struct sm_erofs_inode {
	uint32_t mode; /* type and permissions */
	uint32_t uid, gid;
	int64_t mtime;
	uint32_t mtime_nsec;
	uint64_t size;
	uint32_t major, minor; /* of a device */
	bool opaque;           /* a directory that hides those below it */
	uint32_t xattr_bytes;  /* without the mark of an opaque one */
	/* how to read it */
	uint64_t nid;
	uint64_t place;  /* of the inode in the file */
	uint64_t after;  /* of what follows the inode and its attributes */
	unsigned layout; /* EROFS_INODE_FLAT_PLAIN and so on */
	uint32_t field;  /* first block or chunk format */
};

/* -EBADMSG for what is no sound image of ours; offsets are checked as they are met. */
int sm_erofs_image_open(struct sm_erofs_image *image, int fd, struct sm_error *err);
int sm_erofs_image_inode(const struct sm_erofs_image *image, uint64_t nid, struct sm_erofs_inode *ret_inode,
                         struct sm_error *err);
/* 1 and the inode of the name in the directory, or 0. */
int sm_erofs_image_lookup(const struct sm_erofs_image *image, const struct sm_erofs_inode *directory, const char *name,
                          size_t len, struct sm_erofs_inode *ret_inode, struct sm_error *err);
/* Content of a file, a directory or a symlink: the bytes read (at most len, less only where a hole begins or ends, or
 * the content does).  *ret_hole: there are none, but so many zeros. */
ssize_t sm_erofs_image_read(const struct sm_erofs_image *image, const struct sm_erofs_inode *inode, uint64_t offset,
                            void *data, size_t len, bool *ret_hole, struct sm_error *err);
/* The attributes in the form of rootfs/xattr.h: inode->xattr_bytes bytes. */
int sm_erofs_image_xattrs(const struct sm_erofs_image *image, const struct sm_erofs_inode *inode, void *data,
                          struct sm_error *err);

#endif
