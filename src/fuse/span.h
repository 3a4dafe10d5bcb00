/* Guest memory as a list of pieces, walked from its start.  Private to this room. */
#ifndef SM_FUSE_SPAN_H
#define SM_FUSE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

struct sm_fuse_span {
	struct iovec *iov;
	unsigned n;
	bool plain; /* may be loaded and stored as it is */
};

size_t sm_fuse_span_len(const struct sm_fuse_span *span);
/* Copy exactly len bytes and go on behind them.  -EFAULT: too short, or not there. */
int sm_fuse_span_get(struct sm_fuse_span *span, void *data, size_t len);
int sm_fuse_span_put(struct sm_fuse_span *span, const void *data, size_t len);
/* Go on behind len bytes; false: there are not that many. */
bool sm_fuse_span_skip(struct sm_fuse_span *span, size_t len);
/* Move the first len bytes, at most SM_FUSE_HEAD_MAX, to a list of their own. */
#define SM_FUSE_HEAD_MAX 16
bool sm_fuse_span_split(struct sm_fuse_span *span, size_t len, struct iovec head[SM_FUSE_HEAD_MAX],
                        struct sm_fuse_span *ret_head);
/* Nothing behind len bytes. */
void sm_fuse_span_cut(struct sm_fuse_span *span, size_t len);

#endif
