/* File content on its way from the tar into the image: whole blocks at once, the tails of small files into a spool
 * until their inodes are written beside them. */
#ifndef SM_ROOTFS_EROFS_DATA_H
#define SM_ROOTFS_EROFS_DATA_H

#include "rootfs/out.h"
#include "rootfs/tree.h"

/* A tail of up to this many bytes goes beside its inode; a longer one gets a block of its own. */
#define SM_EROFS_INLINE_MAX 2048u
#define SM_EROFS_FILE_MAX   (16ull << 40) /* largest file taken, bytes */

struct sm_erofs_data {
	struct sm_out *image;
	struct sm_out *spool;
	/* the file under way */
	uint64_t size;
	uint64_t end;      /* of what has arrived */
	uint64_t flat_end; /* content up to here goes into blocks if there are no holes; then comes the tail */
	uint64_t chunk_bytes;
	uint64_t chunk;       /* the newest one with a place in the image; valid when nruns > 0 */
	uint64_t chunk_start; /* its place, bytes */
	uint8_t chunk_bits;
	uint32_t nruns, cap;
	struct sm_tree_run *runs;
	bool spilled; /* bytes past flat_end are in the image, not in `tail` */
	uint8_t tail[SM_EROFS_INLINE_MAX];
};

void sm_erofs_data_init(struct sm_erofs_data *data, struct sm_out *image, struct sm_out *spool);
void sm_erofs_data_done(struct sm_erofs_data *data);

/* One file after the other: begin, content in ascending order with gaps for holes, end.
 * end fills *ret_data; its runs are of the arena. */
int sm_erofs_data_begin(struct sm_erofs_data *data, uint64_t size, struct sm_error *err);
int sm_erofs_data_put(struct sm_erofs_data *data, uint64_t offset, const void *bytes, size_t len, struct sm_error *err);
int sm_erofs_data_end(struct sm_erofs_data *data, struct sm_arena *arena, struct sm_tree_data *ret_data,
                      struct sm_error *err);

#endif
