/* The end of an EROFS image: directories, inodes and super block after the content of the files. */
#ifndef SM_ROOTFS_EROFS_WRITE_H
#define SM_ROOTFS_EROFS_WRITE_H

#include "rootfs/out.h"
#include "rootfs/tree.h"

/* The largest image that 32-bit block addresses reach, bytes. */
#define SM_EROFS_IMAGE_MAX (0xfffffffeull << 12)

/* What the super block says besides. */
struct sm_erofs_label {
	uint8_t uuid[16];
	/* The image is right only where its layer is the lowest one, or on the very layers that its UUID stands for. */
	bool placed;
	bool root_opaque; /* set by the check */
};

/* Write what is missing after the content (`image` stands at its end) and, last, block 0.  `tree` is finished;
 * tails are read from spool_fd.  The image's length is set.  Bytes depend on the tree and on the label alone. */
int sm_erofs_write(struct sm_tree *tree, struct sm_out *image, int spool_fd, const struct sm_erofs_label *label,
                   struct sm_error *err);

/* 0 when the file is a whole image of ours with the label's UUID (super block sound, length right), or -EBADMSG.
 * Fills in the rest of the label. */
int sm_erofs_check(int fd, struct sm_erofs_label *label);

#endif
