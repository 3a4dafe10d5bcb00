#include "rootfs/erofs_data.h"

#include "rootfs/erofs_format.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A file with holes has at most this many chunks: its chunk table stays below 256 KiB however large the file is. */
#define CHUNKS_MAX 65536u

void sm_erofs_data_init(struct sm_erofs_data *data, struct sm_out *image, struct sm_out *spool)
{
	memset(data, 0, sizeof *data);
	data->image = image;
	data->spool = spool;
}

void sm_erofs_data_done(struct sm_erofs_data *data)
{
	free(data->runs);
	data->runs = NULL;
}

static uint64_t blocks_end(uint64_t bytes)
{
	return (bytes + EROFS_BLOCK_BYTES - 1) & ~(uint64_t)(EROFS_BLOCK_BYTES - 1);
}

int sm_erofs_data_begin(struct sm_erofs_data *data, uint64_t size, struct sm_error *err)
{
	if (size > SM_EROFS_FILE_MAX)
		return sm_error_set(err, EFBIG, "file of %llu bytes", (unsigned long long)size);
	uint32_t tail = size % EROFS_BLOCK_BYTES;
	data->size = size;
	data->end = 0;
	data->flat_end = tail <= SM_EROFS_INLINE_MAX ? size - tail : blocks_end(size);
	data->chunk_bits = 0;
	while ((blocks_end(size) >> EROFS_BLOCK_BITS >> data->chunk_bits) > CHUNKS_MAX)
		data->chunk_bits++;
	data->chunk_bytes = (uint64_t)EROFS_BLOCK_BYTES << data->chunk_bits;
	data->nruns = 0;
	data->spilled = false;
	memset(data->tail, 0, sizeof data->tail);
	return 0;
}

/* End of the newest chunk in the file: the last one of a file may be short. */
static uint64_t chunk_end(const struct sm_erofs_data *data)
{
	uint64_t end = (data->chunk + 1) * data->chunk_bytes;
	return end < blocks_end(data->size) ? end : blocks_end(data->size);
}

/* Is everything from the start to flat_end in the image, without a hole? */
static bool is_flat(const struct sm_erofs_data *data)
{
	if (data->flat_end == 0)
		return true;
	return !data->spilled && data->nruns == 1 && data->runs[0].chunk == 0 && chunk_end(data) >= data->flat_end;
}

/* Zeros from where the image is up to `offset` of the newest chunk's file. */
static int zero_to(struct sm_erofs_data *data, uint64_t offset, struct sm_error *err)
{
	uint64_t target = data->chunk_start + (offset - data->chunk * data->chunk_bytes);
	return target > data->image->offset ? sm_out_zero(data->image, target - data->image->offset, err) : 0;
}

static int run_add(struct sm_erofs_data *data, uint64_t chunk, struct sm_error *err)
{
	uint64_t block = data->image->offset >> EROFS_BLOCK_BITS;
	struct sm_tree_run *last = data->nruns ? &data->runs[data->nruns - 1] : NULL;
	if (last && last->chunk + last->count == chunk && last->block + (last->count << data->chunk_bits) == block) {
		last->count++;
		return 0;
	}
	if (data->nruns == data->cap) {
		uint32_t cap = data->cap ? data->cap * 2 : 16;
		struct sm_tree_run *runs = realloc(data->runs, cap * sizeof *runs);
		if (!runs)
			return sm_error_sys(err, ENOMEM, "sparse file map");
		data->runs = runs;
		data->cap = cap;
	}
	data->runs[data->nruns++] = (struct sm_tree_run){ .chunk = chunk, .count = 1, .block = block };
	return 0;
}

/* Give the chunk with `offset` a place, after the newest one is complete. */
static int chunk_open(struct sm_erofs_data *data, uint64_t offset, struct sm_error *err)
{
	uint64_t chunk = offset / data->chunk_bytes;
	int code = 0;
	if (data->nruns && data->chunk == chunk)
		return zero_to(data, offset, err);
	if (data->nruns)
		code = zero_to(data, chunk_end(data), err);
	if (code == 0)
		code = run_add(data, chunk, err);
	if (code < 0)
		return code;
	data->chunk = chunk;
	data->chunk_start = data->image->offset;
	return zero_to(data, offset, err);
}

int sm_erofs_data_put(struct sm_erofs_data *data, uint64_t offset, const void *bytes, size_t len, struct sm_error *err)
{
	if (offset < data->end || offset > data->size || len > data->size - offset)
		return sm_error_set(err, EBADMSG, "content out of order or past the file's end");
	const uint8_t *at = bytes;
	data->end = offset + len;
	while (len) {
		if (offset >= data->flat_end && is_flat(data)) {
			memcpy(data->tail + (offset - data->flat_end), at, len);
			return 0;
		}
		/* Up to the tail's start, or to the chunk's end. */
		uint64_t stop = (offset / data->chunk_bytes + 1) * data->chunk_bytes;
		if (offset < data->flat_end && stop > data->flat_end)
			stop = data->flat_end;
		size_t part = stop - offset < len ? (size_t)(stop - offset) : len;
		data->spilled |= offset >= data->flat_end;
		int code = chunk_open(data, offset, err);
		if (code == 0)
			code = sm_out_write(data->image, at, part, err);
		if (code < 0)
			return code;
		offset += part;
		at += part;
		len -= part;
	}
	return 0;
}

static int end_flat(struct sm_erofs_data *data, struct sm_tree_data *ret_data, struct sm_error *err)
{
	int code = data->nruns ? zero_to(data, data->flat_end, err) : 0;
	*ret_data = (struct sm_tree_data){ .block = data->nruns ? (uint32_t)data->runs[0].block : 0 };
	if (code == 0 && data->size > data->flat_end) {
		ret_data->tail_bytes = (uint32_t)(data->size - data->flat_end);
		ret_data->tail_offset = data->spool->offset;
		code = sm_out_write(data->spool, data->tail, ret_data->tail_bytes, err);
	}
	return code;
}

static int end_chunked(struct sm_erofs_data *data, struct sm_arena *arena, struct sm_tree_data *ret_data,
                       struct sm_error *err)
{
	int code = data->nruns ? zero_to(data, chunk_end(data), err) : 0;
	if (code < 0)
		return code;
	/* Nothing but a hole: one chunk says so. */
	while (!data->nruns && data->chunk_bits < EROFS_CHUNK_BITS_MAX &&
	       ((uint64_t)EROFS_BLOCK_BYTES << data->chunk_bits) < data->size)
		data->chunk_bits++;
	*ret_data = (struct sm_tree_data){ .chunked = true, .chunk_bits = data->chunk_bits, .nruns = data->nruns };
	ret_data->runs = sm_arena_copy(arena, data->runs, data->nruns * sizeof *data->runs);
	if (!ret_data->runs)
		return errno == E2BIG ? sm_error_set(err, E2BIG, "the layer's sparse files have too many holes")
		                      : sm_error_sys(err, ENOMEM, "sparse file map");
	return 0;
}

int sm_erofs_data_end(struct sm_erofs_data *data, struct sm_arena *arena, struct sm_tree_data *ret_data,
                      struct sm_error *err)
{
	if (is_flat(data))
		return end_flat(data, ret_data, err);
	return end_chunked(data, arena, ret_data, err);
}
