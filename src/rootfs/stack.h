/* All layers of an image to EROFS images, several at a time. */
#ifndef SM_ROOTFS_STACK_H
#define SM_ROOTFS_STACK_H

#include "rootfs/layer.h"

#include <stddef.h>

struct sm_rootfs_stack {
	const char *store; /* images go to STORE/erofs/sha256-HEX.erofs; the folder exists */
	size_t count;
	const char *(*diff_id)(void *arg, size_t layer); /* borrowed while the bake runs; layer 0 is the lowest */
	/* The layer's tar from its beginning.  Where that is 0 close follows, with what came of the layer; true: it was
	 * not that layer's bytes that were read, so it is begun anew.  On any of the bake's threads. */
	int (*open)(void *arg, size_t layer, struct sm_rootfs_tar *ret, struct sm_error *err);
	bool (*close)(void *arg, size_t layer, int code);
	/* Names the layer in front of a message; as sm_error_context. */
	int (*context)(void *arg, size_t layer, struct sm_error *err);
	void *arg;
	unsigned threads;                 /* 0: as many as the calling thread has processors ... */
	unsigned threads_min;             /* ... or so many, when they wait for their bytes */
	struct sm_rootfs_options options; /* of each layer; `stop` is not looked at */
};

struct sm_rootfs_stack_result {
	char path[PATH_MAX]; /* of the layer's image */
	struct sm_rootfs_layer_stats stats;
};

/* Blocks.  results: `count` of them.  When a layer fails the others are stopped, and the error is one's that failed by
 * itself, the lowest of those. */
int sm_rootfs_stack_bake(const struct sm_rootfs_stack *stack, struct sm_rootfs_stack_result *results,
                         struct sm_error *err);

#endif
