/* All layers of an image as one read-only disk: a GPT made up in memory, each layer's EROFS file a partition.
 *
 * Partition n (from 1) is layer n - 1, the lowest layer first, named "layer-<n-1>", of the type "Linux filesystem",
 * aligned to 1 MiB.  GUIDs come from the layers' digests: the same layers give the same disk.
 * Source: UEFI specification 2.10, chapter 5. */
#ifndef SM_ROOTFS_COMPOSITE_H
#define SM_ROOTFS_COMPOSITE_H

#include "base/error.h"
#include "plan/disk.h"

#include <stddef.h>
#include <stdint.h>

/* Linux names at most 255 partitions of one disk. */
#define SM_COMPOSITE_LAYERS_MAX 255

struct sm_composite_layer {
	int fd;             /* the EROFS file; borrowed, stays open as long as the disk is read */
	uint64_t bytes;     /* its size, a multiple of 512 */
	const char *digest; /* any string that stands for the content; only read by sm_composite_new */
};

struct sm_composite; /* owns the GPT's memory and the segment table; immutable, any thread */

int sm_composite_new(const struct sm_composite_layer *layers, size_t nlayers, struct sm_composite **ret_composite,
                     struct sm_error *err);
void sm_composite_free(struct sm_composite *composite); /* NULL is fine */

/* What the block device serves.  Borrowed. */
const struct sm_disk *sm_composite_disk(const struct sm_composite *composite);

/* Read `len` bytes at `offset` of any segmented disk, as the block device does: -EINVAL past the end, -EIO where a
 * file is shorter than its segment. */
int sm_composite_read(const struct sm_disk *disk, uint64_t offset, void *data, size_t len);

#endif
