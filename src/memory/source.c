#include "memory/source.h"

#include "base/fd.h"
#include "memory/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define EXTENTS_VERSION 1
static const uint32_t tag_extents = SM_TAG('E', 'X', 'T', 'S');

/* ---- extents ------------------------------------------------------------------------------------------------ */

void sm_memory_extents_done(struct sm_memory_extents *extents)
{
	free(extents->list);
	*extents = (struct sm_memory_extents){ 0 };
}

void sm_memory_extents_put(struct sm_buf *buf, const struct sm_memory_extents *extents)
{
	size_t record = sm_record_begin(buf, tag_extents, EXTENTS_VERSION);
	sm_put_u32(buf, (uint32_t)extents->count);
	for (size_t i = 0; i < extents->count; i++) {
		sm_put_u64(buf, extents->list[i].offset);
		sm_put_u64(buf, extents->list[i].bytes);
	}
	sm_record_end(buf, record);
}

static bool is_sound(const struct sm_memory_extent *extent, uint64_t from, uint64_t ram_bytes)
{
	return extent->bytes && extent->offset % SM_MEMORY_PAGE == 0 && extent->bytes % SM_MEMORY_PAGE == 0 &&
	       extent->offset >= from && extent->offset < ram_bytes && extent->bytes <= ram_bytes - extent->offset;
}

int sm_memory_extents_get(struct sm_reader *reader, uint64_t ram_bytes, struct sm_memory_extents *ret,
                          struct sm_error *err)
{
	static const char what[] = "extents of RAM";
	struct sm_reader in;
	*ret = (struct sm_memory_extents){ 0 };
	int code = sm_record_open(reader, tag_extents, EXTENTS_VERSION, what, &in, err);
	if (code < 0)
		return code;
	uint32_t count = sm_get_u32(&in);
	if (count > SM_MEMORY_PIECES_MAX)
		return sm_error_set(err, EBADMSG, "%s: %u, at most %u", what, count, SM_MEMORY_PIECES_MAX);
	ret->list = calloc(count ? count : 1, sizeof *ret->list);
	if (!ret->list)
		return sm_error_set(err, ENOMEM, "%s: out of memory", what);
	uint64_t end = 0;
	for (; ret->count < count; ret->count++) {
		struct sm_memory_extent *extent = &ret->list[ret->count];
		extent->offset = sm_get_u64(&in);
		extent->bytes = sm_get_u64(&in);
		if (in.failed)
			break;
		if (!is_sound(extent, end, ram_bytes)) {
			code = sm_error_set(
			    err, EBADMSG, "%s: number %zu, 0x%llx bytes at 0x%llx, out of order, or no pages of RAM",
			    what, ret->count, (unsigned long long)extent->bytes, (unsigned long long)extent->offset);
			break;
		}
		end = extent->offset + extent->bytes;
	}
	if (code >= 0)
		code = sm_record_close(&in, what, err);
	if (code < 0)
		sm_memory_extents_done(ret);
	return code;
}

void sm_memory_touched_done(struct sm_memory_touched *touched)
{
	sm_memory_extents_done(&touched->all);
	sm_memory_extents_done(&touched->written);
}

void sm_memory_touched_put(struct sm_buf *buf, const struct sm_memory_touched *touched)
{
	sm_memory_extents_put(buf, &touched->all);
	sm_memory_extents_put(buf, &touched->written);
}

int sm_memory_touched_get(struct sm_reader *reader, uint64_t ram_bytes, struct sm_memory_touched *ret,
                          struct sm_error *err)
{
	*ret = (struct sm_memory_touched){ 0 };
	int code = sm_memory_extents_get(reader, ram_bytes, &ret->all, err);
	if (code >= 0)
		code = sm_memory_extents_get(reader, ram_bytes, &ret->written, err);
	if (code < 0)
		sm_memory_touched_done(ret);
	return code;
}

/* ---- sources ------------------------------------------------------------------------------------------------ */

/* What is put one behind the other; list NULL: only counted. */
struct sink {
	struct sm_memory_piece *list;
	size_t count;
};

static void put(struct sink *sink, uint64_t from, uint64_t to, uint32_t file)
{
	if (from >= to)
		return;
	if (sink->list)
		sink->list[sink->count] = (struct sm_memory_piece){ from, to - from, file };
	sink->count++;
}

/* The pieces with these extents of `file` on top. */
static void overlay(const struct sm_memory_source *source, const struct sm_memory_extents *extents, uint32_t file,
                    struct sink *sink)
{
	uint64_t from = 0; /* what is before has been put */
	size_t old = 0;
	for (size_t i = 0; i <= extents->count; i++) {
		uint64_t start = i < extents->count ? extents->list[i].offset : UINT64_MAX;
		for (; old < source->npieces; old++) {
			const struct sm_memory_piece *piece = &source->pieces[old];
			uint64_t begin = piece->offset > from ? piece->offset : from,
				 end = piece->offset + piece->bytes;
			put(sink, begin, end < start ? end : start, piece->file);
			if (end > start)
				break;
		}
		if (i == extents->count)
			break;
		from = start + extents->list[i].bytes;
		put(sink, start, from, file);
	}
}

size_t sm_memory_source_count(const struct sm_memory_source *source, const struct sm_memory_extents *extents)
{
	struct sink sink = { 0 };
	overlay(source, extents, 0, &sink);
	return sink.count;
}

int sm_memory_source_add(struct sm_memory_source *source, int file, const struct sm_memory_extents *extents,
                         struct sm_error *err)
{
	if (source->nfiles == SM_MEMORY_FILES_MAX)
		return sm_error_set(err, E2BIG, "RAM out of more than %u files", SM_MEMORY_FILES_MAX);
	if (extents) {
		struct sink sink = { 0 };
		size_t count = sm_memory_source_count(source, extents);
		if (count > SM_MEMORY_PIECES_MAX)
			return sm_error_set(err, E2BIG, "RAM in more than %u pieces", SM_MEMORY_PIECES_MAX);
		sink.list = calloc(count ? count : 1, sizeof *sink.list);
		if (!sink.list)
			return sm_error_set(err, ENOMEM, "RAM files: out of memory");
		overlay(source, extents, source->nfiles, &sink);
		free(source->pieces);
		source->pieces = sink.list;
		source->npieces = sink.count;
	}
	source->files[source->nfiles++] = file;
	return 0;
}

unsigned sm_memory_source_at(const struct sm_memory_source *source, uint64_t offset, uint64_t *end)
{
	size_t low = 0, high = source->npieces; /* the first piece that ends behind offset */
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (source->pieces[middle].offset + source->pieces[middle].bytes > offset)
			high = middle;
		else
			low = middle + 1;
	}
	if (low == source->npieces)
		return 0;
	const struct sm_memory_piece *piece = &source->pieces[low];
	bool inside = offset >= piece->offset;
	uint64_t until = inside ? piece->offset + piece->bytes : piece->offset;
	if (*end > until)
		*end = until;
	return inside ? piece->file : 0;
}

int sm_memory_source_copy(const struct sm_memory_source *from, struct sm_memory_source *ret, struct sm_error *err)
{
	*ret = (struct sm_memory_source){ .npieces = from->npieces, .watched = from->watched };
	ret->pieces = calloc(from->npieces ? from->npieces : 1, sizeof *ret->pieces);
	if (!ret->pieces)
		return sm_error_set(err, ENOMEM, "RAM files: out of memory");
	if (from->npieces)
		memcpy(ret->pieces, from->pieces, from->npieces * sizeof *ret->pieces);
	if (from->written.count) {
		const size_t bytes = from->written.count * sizeof *from->written.list;
		ret->written.list = malloc(bytes);
		if (!ret->written.list) {
			sm_memory_source_done(ret);
			return sm_error_set(err, ENOMEM, "RAM files: out of memory");
		}
		memcpy(ret->written.list, from->written.list, bytes);
		ret->written.count = from->written.count;
	}
	for (; ret->nfiles < from->nfiles; ret->nfiles++) {
		int fd = sm_fd_dup(from->files[ret->nfiles]);
		if (fd < 0) {
			sm_memory_source_close(ret);
			return sm_error_sys(err, fd, "RAM file");
		}
		ret->files[ret->nfiles] = fd;
	}
	return 0;
}

void sm_memory_source_close(struct sm_memory_source *source)
{
	for (unsigned i = 0; i < source->nfiles; i++)
		sm_fd_close(&source->files[i]);
	sm_memory_source_done(source);
}

void sm_memory_source_done(struct sm_memory_source *source)
{
	free(source->pieces);
	sm_memory_extents_done(&source->written);
	*source = (struct sm_memory_source){ 0 };
}
