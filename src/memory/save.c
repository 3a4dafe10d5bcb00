/* Guest RAM into a file: all of it, or what differs from the files it was mapped from. */
#include "memory/internal.h"

#include "base/fd.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* One write while saving: enough to be cheap a byte. */
#define WRITE_MAX (4 * SM_MIB)

/* Most pages in use differ from zero in their first words; the rest of the loop is what the compiler makes vectors of.
 */
static bool is_zero(const uint8_t *page)
{
	const uint64_t *words = (const uint64_t *)page;
	for (size_t i = 0; i < SM_MEMORY_PAGE / sizeof *words; i += 16) {
		uint64_t any = 0;
		for (size_t j = 0; j < 16; j++)
			any |= words[i + j];
		if (any)
			return false;
	}
	return true;
}

static int save_run(const struct sm_memory_run *run, int fd, uint64_t *data_bytes, struct sm_error *err)
{
	const uint8_t *hva = run->hva;
	for (uint64_t at = 0; at < run->bytes;) {
		if (is_zero(hva + at)) {
			at += SM_MEMORY_PAGE;
			continue;
		}
		uint64_t end = at + SM_MEMORY_PAGE;
		while (end < run->bytes && end - at < WRITE_MAX && !is_zero(hva + end))
			end += SM_MEMORY_PAGE;
		int code = sm_fd_pwrite_full(fd, hva + at, end - at, run->offset + at);
		if (code < 0)
			return sm_error_sys(err, code, "RAM file: write %llu bytes at %llu",
			                    (unsigned long long)(end - at), (unsigned long long)(run->offset + at));
		*data_bytes += end - at;
		at = end;
	}
	return 0;
}

/* Down to nothing first: what the file held must not show through the holes. */
static int set_size(const struct sm_memory *memory, int fd, struct sm_error *err)
{
	if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)memory->bytes) < 0)
		return sm_error_sys(err, errno, "RAM file: set its size to %llu bytes",
		                    (unsigned long long)memory->bytes);
	return 0;
}

static int save_extent(const struct sm_memory *memory, uint64_t offset, uint64_t bytes, int fd, uint64_t *data_bytes,
                       struct sm_error *err)
{
	int code = 0;
	struct sm_memory_run run;
	for (size_t i = 0; i < memory->nregions && code == 0; i++)
		if (sm_memory_clip(&memory->regions[i], offset, bytes, &run))
			code = save_run(&run, fd, data_bytes, err);
	return code;
}

int sm_memory_save(const struct sm_memory *memory, int fd, uint64_t *ret_data_bytes, struct sm_error *err)
{
	uint64_t data_bytes = 0;
	int code = set_size(memory, fd, err);
	if (code == 0)
		code = save_extent(memory, 0, memory->bytes, fd, &data_bytes, err);
	if (code == 0 && ret_data_bytes)
		*ret_data_bytes = data_bytes;
	return code;
}

/* ---- what differs ------------------------------------------------------------------------------------------- */

/* Runs of dirty host pages; those with at most `gap` bytes between them are one. */
static int collect(const struct sm_memory *memory, uint64_t gap, struct sm_memory_extents *ret)
{
	const uint64_t page = memory->host_page;
	size_t room = 0;
	struct sm_memory_run run;
	ret->count = 0;
	for (uint64_t offset = 0; sm_memory_next_dirty(memory, &offset, &run);) {
		uint64_t start = run.offset / page * page, end = (run.offset + run.bytes + page - 1) / page * page;
		struct sm_memory_extent *last = ret->count ? &ret->list[ret->count - 1] : NULL;
		if (last && start <= last->offset + last->bytes + gap) {
			last->bytes = end - last->offset;
			continue;
		}
		if (ret->count == room) {
			room = room ? 2 * room : 64;
			struct sm_memory_extent *list = realloc(ret->list, room * sizeof *list);
			if (!list)
				return -ENOMEM;
			ret->list = list;
		}
		ret->list[ret->count++] = (struct sm_memory_extent){ start, end - start };
	}
	return 0;
}

static int choose_extents(const struct sm_memory *memory, struct sm_memory_extents *extents, struct sm_error *err)
{
	int code = collect(memory, 0, extents);
	for (uint64_t gap = memory->host_page; code == 0 && gap < memory->bytes; gap *= 2) {
		if (extents->count <= SM_MEMORY_PIECES_MAX &&
		    sm_memory_source_count(&memory->source, extents) <= SM_MEMORY_PIECES_MAX)
			return 0;
		code = collect(memory, gap, extents);
	}
	if (code < 0)
		return sm_error_sys(err, code, "dirty pages");
	/* One for all leaves no other piece. */
	extents->list[0] = (struct sm_memory_extent){ 0, memory->bytes };
	extents->count = 1;
	return 0;
}

int sm_memory_save_dirty(const struct sm_memory *memory, int fd, struct sm_memory_extents *ret_extents,
                         uint64_t *ret_data_bytes, struct sm_error *err)
{
	*ret_extents = (struct sm_memory_extents){ 0 };
	if (!memory->source.nfiles)
		return sm_error_set(err, EINVAL, "RAM that is not of a snapshot has nothing to differ from");
	if (memory->source.nfiles == SM_MEMORY_FILES_MAX)
		return sm_error_set(err, E2BIG, "RAM out of %u files, and no more: flatten the snapshot",
		                    SM_MEMORY_FILES_MAX);
	uint64_t data_bytes = 0;
	int code = choose_extents(memory, ret_extents, err);
	if (code == 0)
		code = set_size(memory, fd, err);
	for (size_t i = 0; i < ret_extents->count && code == 0; i++)
		code =
		    save_extent(memory, ret_extents->list[i].offset, ret_extents->list[i].bytes, fd, &data_bytes, err);
	if (code < 0)
		sm_memory_extents_done(ret_extents);
	*ret_data_bytes = data_bytes;
	return code;
}
