/* Sparse files: what they hold is copied, and where they hold nothing stays nothing. */
#ifndef SM_BASE_SPARSE_H
#define SM_BASE_SPARSE_H

#include <stdbool.h>
#include <stdint.h>

/* What `from` holds in [offset, end) to the same place in `to`, which holds nothing there; inside the kernel where it
 * can.  *data_bytes (NULL: nobody asks) grows by what that was. */
int sm_sparse_copy(int from, int to, uint64_t offset, uint64_t end, uint64_t *data_bytes);
/* All of `from` as all of `to`, sharing its blocks (ioctl_ficlone(2)).  False: this file system cannot, or not there.
 */
bool sm_sparse_clone(int from, int to);
/* Make [offset, offset + bytes) a hole.  -EOPNOTSUPP where there are none. */
int sm_sparse_punch(int fd, uint64_t offset, uint64_t bytes);

#endif
