/* The walk over a layer's tar entries. */
#ifndef SM_ROOTFS_LAYER_TAR_H
#define SM_ROOTFS_LAYER_TAR_H

#include "rootfs/erofs_data.h"
#include "rootfs/layer.h"
#include "rootfs/layer_source.h"
#include "rootfs/tree.h"

/* Read every entry into the tree and every file's content into the image, then the source to its end.  Counts
 * tar_entries, ignored and dropped_xattrs.  Errors name the entry. */
int sm_layer_tar_read(struct sm_layer_source *source, struct sm_tree *tree, struct sm_erofs_data *data,
                      uint64_t max_entries, struct sm_rootfs_layer_stats *stats, struct sm_error *err);

#endif
