/* The bytes of files: straight between them and the guest's memory. */
#include "fuse/internal.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define COPY_MAX (128u << 20) /* of one request: others wait for the thread */

int64_t sm_fuse_do_read(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_read_in in;
	struct sm_fuse_handle *handle;
	memcpy(&in, call->arg, sizeof in);
	if (in.size > call->room || in.size > INT32_MAX || !sm_fuse_add(in.offset, in.size, INT64_MAX))
		return sm_fuse_hostile(fuse, -EINVAL);
	int64_t result = sm_fuse_handle_get(fuse, in.fh, call->head.nodeid, false, &handle);
	if (result < 0)
		return result;
	result = sm_fuse_body(call);
	if (result >= 0) {
		sm_fuse_span_cut(&call->out, in.size);
		unsigned n = call->out.n < IOV_MAX ? call->out.n : IOV_MAX;
		do
			result = n ? preadv(handle->fd, call->out.iov, (int)n, (off_t)in.offset) : 0;
		while (result < 0 && errno == EINTR);
		result = result < 0 ? -errno : result;
	}
	sm_fuse_handle_put(fuse, handle);
	return result;
}

int64_t sm_fuse_do_write(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_write_in in;
	struct fuse_write_out *out = (void *)call->reply.body;
	struct sm_fuse_handle *handle;
	memcpy(&in, call->arg, sizeof in);
	if (in.size > INT32_MAX || sm_fuse_span_len(&call->in) != in.size ||
	    !sm_fuse_add(in.offset, in.size, INT64_MAX))
		return sm_fuse_hostile(fuse, -EINVAL);
	int64_t result = sm_fuse_handle_get(fuse, in.fh, call->head.nodeid, false, &handle);
	if (result < 0)
		return result;
	if (in.write_flags & FUSE_WRITE_KILL_SUIDGID)
		sm_fuse_kill_priv(handle->fd);
	unsigned n = call->in.n < IOV_MAX ? call->in.n : IOV_MAX;
	do
		result = n ? pwritev(handle->fd, call->in.iov, (int)n, (off_t)in.offset) : 0;
	while (result < 0 && errno == EINTR);
	result = result < 0 ? -errno : result;
	sm_fuse_handle_put(fuse, handle);
	if (result < 0)
		return result;
	*out = (struct fuse_write_out){ .size = (uint32_t)result };
	return sizeof *out;
}

int64_t sm_fuse_do_fallocate(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_fallocate_in in;
	struct sm_fuse_handle *handle;
	memcpy(&in, call->arg, sizeof in);
	if (in.mode & ~(uint32_t)(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return -EOPNOTSUPP;
	if (!sm_fuse_add(in.offset, in.length, INT64_MAX))
		return sm_fuse_hostile(fuse, -EFBIG);
	int code = sm_fuse_handle_get(fuse, in.fh, call->head.nodeid, false, &handle);
	if (code < 0)
		return code;
	if (fallocate(handle->fd, (int)in.mode, (off_t)in.offset, (off_t)in.length) < 0)
		code = -errno;
	else if (sm_fuse_agreed(fuse, FUSE_HANDLE_KILLPRIV_V2))
		sm_fuse_kill_priv(handle->fd); /* the request does not say who asks: as for anybody */
	sm_fuse_handle_put(fuse, handle);
	return code;
}

int64_t sm_fuse_do_lseek(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_lseek_in in;
	struct fuse_lseek_out *out = (void *)call->reply.body;
	struct sm_fuse_handle *handle;
	memcpy(&in, call->arg, sizeof in);
	if ((in.whence != SEEK_DATA && in.whence != SEEK_HOLE && in.whence != SEEK_END) || in.offset > INT64_MAX)
		return sm_fuse_hostile(fuse, -EINVAL);
	int64_t result = sm_fuse_handle_get(fuse, in.fh, call->head.nodeid, false, &handle);
	if (result < 0)
		return result;
	result = lseek(handle->fd, (off_t)in.offset, (int)in.whence);
	*out = (struct fuse_lseek_out){ .offset = (uint64_t)result };
	result = result < 0 ? -errno : (int64_t)sizeof *out;
	sm_fuse_handle_put(fuse, handle);
	return result;
}

int64_t sm_fuse_do_copy_file_range(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_copy_file_range_in in;
	struct fuse_write_out *out = (void *)call->reply.body;
	struct sm_fuse_handle *from, *to = NULL;
	memcpy(&in, call->arg, sizeof in);
	if (in.flags || !sm_fuse_add(in.off_in, in.len, INT64_MAX) || !sm_fuse_add(in.off_out, in.len, INT64_MAX))
		return sm_fuse_hostile(fuse, -EINVAL);
	int64_t result = sm_fuse_handle_get(fuse, in.fh_in, call->head.nodeid, false, &from);
	if (result >= 0)
		result = sm_fuse_handle_get(fuse, in.fh_out, in.nodeid_out, false, &to);
	if (result >= 0) {
		off_t at_in = (off_t)in.off_in, at_out = (off_t)in.off_out;
		size_t len = in.len < COPY_MAX ? in.len : COPY_MAX;
		result = copy_file_range(from->fd, &at_in, to->fd, &at_out, len, 0);
		result = result < 0 ? -errno : result;
	}
	if (result > 0 && sm_fuse_agreed(fuse, FUSE_HANDLE_KILLPRIV_V2))
		sm_fuse_kill_priv(to->fd);
	sm_fuse_handle_put(fuse, to);
	sm_fuse_handle_put(fuse, from);
	if (result < 0)
		return result;
	*out = (struct fuse_write_out){ .size = (uint32_t)result };
	return sizeof *out;
}
