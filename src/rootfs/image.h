/* An image's layers as EROFS files in its store: after the pull, or while it goes on. */
#ifndef SM_ROOTFS_IMAGE_H
#define SM_ROOTFS_IMAGE_H

#include "oci/pull.h"
#include "rootfs/stack.h"

struct sm_rootfs_image_options {
	unsigned threads; /* see struct sm_rootfs_stack */
	const atomic_bool *cancel;
};

struct sm_rootfs_image {
	struct sm_rootfs_stack_result *layers; /* lowest first */
	size_t count;
	size_t first; /* those below are hidden by an opaque root */
};

/* Blocks; any thread.  Takes the store's shared lock.  Errors as sm_rootfs_layer_bake's. */
int sm_rootfs_image_bake(struct sm_oci_image *image, const struct sm_rootfs_image_options *options,
                         struct sm_rootfs_image *ret, struct sm_error *err);
void sm_rootfs_image_done(struct sm_rootfs_image *image);

/* sm_oci_pull, each layer's file being made while its bytes come in: once the last one is there little is left to do.
 * options->reader is not looked at.  Where a layer cannot be made the image is in the store all the same. */
int sm_rootfs_pull(const struct sm_oci_pull_options *options, struct sm_oci_image **ret_image,
                   struct sm_oci_pull_stats *ret_stats, struct sm_error *err);

#endif
