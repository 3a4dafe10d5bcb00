#include "virtio/medium.h"

#include "base/fd.h"
#include "base/sparse.h"
#include "virtio/blk_request.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define BLOCK SM_BLOCK
#define ZEROS (64u << 10) /* written at a time where the file system has no zeros of its own */

int sm_medium_init(struct sm_medium *medium, const struct sm_volume *volume)
{
	*medium = (struct sm_medium){ .fd = -1, .overlay_fd = -1 };
	if (!volume)
		return 0;
	medium->fd = sm_fd_dup(volume->fd);
	if (medium->fd < 0)
		return medium->fd;
	if (volume->overlay_fd >= 0) {
		medium->overlay_fd = sm_fd_dup(volume->overlay_fd);
		if (medium->overlay_fd < 0)
			return medium->overlay_fd;
		int code = sm_overlay_new(medium->overlay_fd, medium->fd, volume->bytes, &medium->overlay);
		if (code < 0)
			return code;
	}
	medium->readonly = volume->readonly;
	medium->bytes = volume->bytes;
	return 0;
}

void sm_medium_done(struct sm_medium *medium)
{
	sm_medium_untrack(medium);
	sm_overlay_free(medium->overlay);
	medium->overlay = NULL;
	sm_fd_close(&medium->overlay_fd);
	sm_fd_close(&medium->fd);
	medium->bytes = 0;
}

/* Before it is written to: who copies it meanwhile comes back to it. */
static void mark(struct sm_medium *medium, uint64_t offset, uint64_t bytes)
{
	if (medium->tracked)
		sm_blocks_add(&medium->changed, offset, offset + bytes);
}

int sm_medium_read(struct sm_medium *medium, const struct sm_chain *chain, uint64_t offset, uint64_t bytes)
{
	if (medium->overlay)
		return sm_overlay_read(medium->overlay, chain, 0, offset, bytes);
	struct iovec iov[SM_QUEUE_NUM_MAX];
	return sm_blk_pread(medium->fd, iov, sm_chain_slice(chain, true, 0, bytes, iov), offset);
}

int sm_medium_write(struct sm_medium *medium, const struct sm_chain *chain, uint64_t at, uint64_t offset,
                    uint64_t bytes)
{
	mark(medium, offset, bytes);
	if (medium->overlay)
		return sm_overlay_write(medium->overlay, chain, at, offset, bytes);
	struct iovec iov[SM_QUEUE_NUM_MAX];
	return sm_blk_pwrite(medium->fd, iov, sm_chain_slice(chain, false, at, bytes, iov), offset);
}

static int write_zeros(int fd, uint64_t offset, uint64_t bytes)
{
	static const uint8_t zeros[ZEROS];
	int code = 0;
	while (bytes && code >= 0) {
		size_t len = bytes < ZEROS ? (size_t)bytes : ZEROS;
		code = sm_fd_pwrite_full(fd, zeros, len, offset);
		offset += len;
		bytes -= len;
	}
	return code;
}

int sm_medium_zero(struct sm_medium *medium, uint64_t offset, uint64_t bytes, bool unmap)
{
	if (bytes == 0)
		return 0;
	mark(medium, offset, bytes);
	if (medium->overlay)
		return sm_overlay_zero(medium->overlay, offset, bytes);
	const int mode = (unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE;
	while (fallocate(medium->fd, mode, (off_t)offset, (off_t)bytes) < 0) {
		if (errno == EINTR)
			continue;
		return errno == EOPNOTSUPP ? write_zeros(medium->fd, offset, bytes) : -errno;
	}
	return 0;
}

int sm_medium_discard(struct sm_medium *medium, uint64_t offset, uint64_t bytes)
{
	uint64_t end = offset + bytes;
	offset = (offset + BLOCK - 1) / BLOCK * BLOCK;
	end = end == medium->bytes ? end : end / BLOCK * BLOCK;
	if (offset >= end)
		return 0;
	mark(medium, offset, end - offset);
	if (medium->overlay)
		return sm_overlay_zero(medium->overlay, offset, end - offset);
	int code = sm_sparse_punch(medium->fd, offset, end - offset);
	return code == -EOPNOTSUPP ? 0 : code;
}

int sm_medium_flush(struct sm_medium *medium)
{
	if (medium->fd < 0 || medium->overlay || medium->readonly)
		return 0;
	return fdatasync(medium->fd) < 0 ? -errno : 0;
}

int sm_medium_track(struct sm_medium *medium)
{
	int code = medium->tracked ? -EBUSY : sm_blocks_init(&medium->changed, medium->bytes);
	medium->tracked = medium->tracked || code == 0;
	return code;
}

void sm_medium_untrack(struct sm_medium *medium)
{
	sm_blocks_done(&medium->changed);
	medium->tracked = false;
}

/* What it has in a range to a file that has nothing there. */
static int copy_range(const struct sm_medium *medium, int to, uint64_t offset, uint64_t end)
{
	return medium->overlay ? sm_overlay_copy(medium->overlay, to, offset, end)
	                       : sm_sparse_copy(medium->fd, to, offset, end, NULL);
}

/* The same where it has something. */
static int replace_range(const struct sm_medium *medium, int to, uint64_t offset, uint64_t end)
{
	int code = sm_sparse_punch(to, offset, end - offset);
	if (code == -EOPNOTSUPP)
		code = write_zeros(to, offset, end - offset);
	return code < 0 ? code : copy_range(medium, to, offset, end);
}

/* The blocks of the file below are shared, and those in the overlay take their places. */
static int clone_all(const struct sm_medium *medium, int to)
{
	int code = ftruncate(to, (off_t)medium->bytes) < 0 ? -errno : 0;
	for (uint64_t at = 0, until; medium->overlay && at < medium->bytes && code >= 0; at = until) {
		bool present;
		until = sm_blocks_run(&medium->overlay->present, at, medium->bytes, &present);
		if (present)
			code = replace_range(medium, to, at, until);
	}
	return code;
}

int sm_medium_copy(const struct sm_medium *medium, int to, uint64_t *offset, uint64_t max_bytes)
{
	int code = 0;
	if (*offset == 0 && sm_sparse_clone(medium->fd, to)) {
		*offset = medium->bytes;
		return clone_all(medium, to);
	}
	if (*offset == 0 && ftruncate(to, (off_t)medium->bytes) < 0)
		return -errno;
	uint64_t end = medium->bytes - *offset > max_bytes ? *offset + max_bytes : medium->bytes;
	code = copy_range(medium, to, *offset, end);
	*offset = end;
	return code;
}

int sm_medium_finish(const struct sm_medium *medium, int to, uint64_t *ret_bytes)
{
	int code = 0;
	*ret_bytes = 0;
	for (uint64_t at = 0, until; at < medium->bytes && code >= 0; at = until) {
		bool changed;
		until = sm_blocks_run(&medium->changed, at, medium->bytes, &changed);
		if (!changed)
			continue;
		code = replace_range(medium, to, at, until);
		*ret_bytes += until - at;
	}
	return code;
}

int sm_medium_empty(struct sm_medium *medium)
{
	return medium->overlay ? sm_overlay_empty(medium->overlay) : 0;
}
