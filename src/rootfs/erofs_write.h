/* The end of an EROFS image: directories, inodes and super block after the content of the files. */
#ifndef SM_ROOTFS_EROFS_WRITE_H
#define SM_ROOTFS_EROFS_WRITE_H

#include "rootfs/out.h"
#include "rootfs/tree.h"

/* The largest image that 32-bit block addresses reach, bytes. */
#define SM_EROFS_IMAGE_MAX (0xfffffffeull << 12)

/* Write what is missing after the content (`image` stands at its end) and, last, block 0.  `tree` is finished;
 * tails are read from spool_fd.  The image's length is set.  Bytes depend on the tree and on uuid alone. */
int sm_erofs_write(struct sm_tree *tree, struct sm_out *image, int spool_fd, const uint8_t uuid[16],
                   struct sm_error *err);

/* 0 when the file is a whole image of ours with this uuid (super block sound, length right), or -EBADMSG.
 * Says whether its root hides all lower layers. */
int sm_erofs_check(int fd, const uint8_t uuid[16], bool *ret_root_opaque);

#endif
