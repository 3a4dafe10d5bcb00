/* gzip (RFC 1952) undone as it streams in, by ISA-L: twice as fast as zlib, and inflating is most of what a layer
 * costs. */
#ifndef SM_ROOTFS_GUNZIP_H
#define SM_ROOTFS_GUNZIP_H

#include "base/error.h"

#include <sys/types.h>

struct sm_gunzip;

/* More packed bytes, borrowed until the next call; 0 at their end; negative to fail, having said why itself. */
typedef ssize_t (*sm_gunzip_refill)(void *arg, const void **ret_data);

/* NULL: no memory. */
struct sm_gunzip *sm_gunzip_new(sm_gunzip_refill refill, void *arg);
void sm_gunzip_free(struct sm_gunzip *gunzip);

/* The next bytes, borrowed until the next call; 0 at the end, which is that of the last member: what follows and is no
 * member is padding, as it is for gzip(1).  -EBADMSG, or what refill gave with err left alone. */
ssize_t sm_gunzip_read(struct sm_gunzip *gunzip, const void **ret_data, struct sm_error *err);

#endif
