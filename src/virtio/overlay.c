#include "virtio/overlay.h"

#include "base/fd.h"
#include "base/sparse.h"
#include "virtio/blk_request.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define BLOCK       SM_BLOCK
#define STRIPE_SPAN (SM_OVERLAY_STRIPE * (uint64_t)BLOCK)

int sm_overlay_new(int fd, int base_fd, uint64_t bytes, struct sm_overlay **ret_overlay)
{
	if (ftruncate(fd, (off_t)bytes) < 0)
		return -errno;
	struct sm_overlay *overlay = calloc(1, sizeof *overlay);
	if (!overlay)
		return -ENOMEM;
	overlay->fd = fd;
	overlay->base_fd = base_fd;
	overlay->bytes = bytes;
	int code = sm_blocks_init(&overlay->present, bytes);
	if (code < 0) {
		free(overlay);
		return code;
	}
	for (unsigned i = 0; i < SM_OVERLAY_STRIPES; i++)
		pthread_mutex_init(&overlay->stripes[i], NULL);
	*ret_overlay = overlay;
	return 0;
}

void sm_overlay_free(struct sm_overlay *overlay)
{
	if (!overlay)
		return;
	for (unsigned i = 0; i < SM_OVERLAY_STRIPES; i++)
		pthread_mutex_destroy(&overlay->stripes[i]);
	sm_blocks_done(&overlay->present);
	free(overlay);
}

/* ---- blocks and stripes -------------------------------------------------------------------------------------- */

static pthread_mutex_t *stripe_of(struct sm_overlay *overlay, uint64_t offset)
{
	return &overlay->stripes[offset / STRIPE_SPAN % SM_OVERLAY_STRIPES];
}

/* Where the block after this one begins, or the disk ends. */
static uint64_t block_end(const struct sm_overlay *overlay, uint64_t offset)
{
	uint64_t end = (offset / BLOCK + 1) * BLOCK;
	return end < overlay->bytes ? end : overlay->bytes;
}

/* Whether [offset, end) begins with a whole block; the last one of the disk may be shorter. */
static bool is_whole(const struct sm_overlay *overlay, uint64_t offset, uint64_t end)
{
	return offset % BLOCK == 0 && block_end(overlay, offset) <= end;
}

/* The end of what of [offset, end) is whole blocks of one stripe. */
static uint64_t stripe_end(const struct sm_overlay *overlay, uint64_t offset, uint64_t end)
{
	uint64_t until = (offset / STRIPE_SPAN + 1) * STRIPE_SPAN;
	if (end < until)
		until = end == overlay->bytes ? end : end / BLOCK * BLOCK;
	return until;
}

/* Have the block that holds `offset`, of which only a part is going to be written. */
static int copy_up(struct sm_overlay *overlay, uint64_t offset)
{
	uint8_t data[BLOCK];
	const uint64_t start = offset / BLOCK * BLOCK;
	const size_t len = (size_t)(block_end(overlay, offset) - start);
	if (sm_blocks_has(&overlay->present, offset))
		return 0;
	pthread_mutex_t *stripe = stripe_of(overlay, offset);
	pthread_mutex_lock(stripe);
	int code = 0;
	if (!sm_blocks_has(&overlay->present, offset)) {
		code = sm_fd_pread_full(overlay->base_fd, data, len, start);
		if (code >= 0)
			code = sm_fd_pwrite_full(overlay->fd, data, len, start);
		if (code >= 0)
			sm_blocks_add(&overlay->present, start, start + len);
	}
	pthread_mutex_unlock(stripe);
	return code;
}

/* ---- requests ----------------------------------------------------------------------------------------------- */

int sm_overlay_read(struct sm_overlay *overlay, const struct sm_chain *chain, uint64_t at, uint64_t offset,
                    uint64_t bytes)
{
	struct iovec iov[SM_QUEUE_NUM_MAX];
	for (const uint64_t end = offset + bytes; offset < end;) {
		bool present;
		uint64_t until = sm_blocks_run(&overlay->present, offset, end, &present);
		unsigned count = sm_chain_slice(chain, true, at, until - offset, iov);
		int code = sm_blk_pread(present ? overlay->fd : overlay->base_fd, iov, count, offset);
		if (code < 0)
			return code;
		at += until - offset;
		offset = until;
	}
	return 0;
}

static int write_out(struct sm_overlay *overlay, const struct sm_chain *chain, uint64_t at, uint64_t offset,
                     uint64_t until)
{
	struct iovec iov[SM_QUEUE_NUM_MAX];
	unsigned count = sm_chain_slice(chain, false, at, until - offset, iov);
	return sm_blk_pwrite(overlay->fd, iov, count, offset);
}

/* Whole blocks of one stripe, not all of which were there: with the lock, none is copied up meanwhile. */
static int write_new(struct sm_overlay *overlay, const struct sm_chain *chain, uint64_t at, uint64_t offset,
                     uint64_t until)
{
	pthread_mutex_t *stripe = stripe_of(overlay, offset);
	pthread_mutex_lock(stripe);
	int code = write_out(overlay, chain, at, offset, until);
	if (code >= 0)
		sm_blocks_add(&overlay->present, offset, until);
	pthread_mutex_unlock(stripe);
	return code;
}

int sm_overlay_write(struct sm_overlay *overlay, const struct sm_chain *chain, uint64_t at, uint64_t offset,
                     uint64_t bytes)
{
	int code = 0;
	for (const uint64_t end = offset + bytes; offset < end && code >= 0;) {
		bool present;
		uint64_t until = sm_blocks_run(&overlay->present, offset, end, &present);
		if (present) {
			code = write_out(overlay, chain, at, offset, until);
		} else if (is_whole(overlay, offset, until)) {
			until = stripe_end(overlay, offset, until);
			code = write_new(overlay, chain, at, offset, until);
		} else {
			until = block_end(overlay, offset) < until ? block_end(overlay, offset) : until;
			code = copy_up(overlay, offset);
			if (code >= 0)
				code = write_out(overlay, chain, at, offset, until);
		}
		at += until - offset;
		offset = until;
	}
	return code;
}

/* Whole blocks of one stripe; what a write that failed has left there goes, too. */
static int punch(struct sm_overlay *overlay, uint64_t offset, uint64_t until)
{
	pthread_mutex_t *stripe = stripe_of(overlay, offset);
	pthread_mutex_lock(stripe);
	int code = sm_sparse_punch(overlay->fd, offset, until - offset);
	if (code >= 0)
		sm_blocks_add(&overlay->present, offset, until);
	pthread_mutex_unlock(stripe);
	return code;
}

int sm_overlay_zero(struct sm_overlay *overlay, uint64_t offset, uint64_t bytes)
{
	int code = 0;
	for (const uint64_t end = offset + bytes; offset < end && code >= 0;) {
		uint64_t until;
		if (is_whole(overlay, offset, end)) {
			until = stripe_end(overlay, offset, end);
			code = punch(overlay, offset, until);
		} else {
			until = block_end(overlay, offset) < end ? block_end(overlay, offset) : end;
			code = copy_up(overlay, offset);
			if (code >= 0)
				code = sm_sparse_punch(overlay->fd, offset, until - offset);
		}
		offset = until;
	}
	return code;
}

/* ---- all of it ---------------------------------------------------------------------------------------------- */

int sm_overlay_copy(const struct sm_overlay *overlay, int to, uint64_t offset, uint64_t end)
{
	int code = 0;
	while (offset < end && code >= 0) {
		bool present;
		uint64_t until = sm_blocks_run(&overlay->present, offset, end, &present);
		code = sm_sparse_copy(present ? overlay->fd : overlay->base_fd, to, offset, until, NULL);
		offset = until;
	}
	return code;
}

int sm_overlay_empty(struct sm_overlay *overlay)
{
	if (ftruncate(overlay->fd, 0) < 0 || ftruncate(overlay->fd, (off_t)overlay->bytes) < 0)
		return -errno;
	sm_blocks_clear(&overlay->present);
	return 0;
}
