/* Guest RAM into a file: all of it, or what differs from the files it was mapped from. */
#include "memory/internal.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

struct sm_memory_save {
	struct sm_memory *memory;
	int fd;
	bool differing;
	struct sm_memory_extents extents; /* what the file is to have */
	struct sm_pages stored;           /* the file has them, not as holes */
	uint64_t written_bytes;
	size_t extent; /* where this round goes on */
	uint64_t page;
};

/* One write while saving: enough to be cheap a byte. */
#define WRITE_MAX (4 * SM_MIB)
/* A look costs less than a write by about this. */
#define LOOK_FACTOR 8
/* Fewer bytes are looked at sooner than asked for. */
#define ASK_MIN (64u << 10)

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

/* ---- pages -------------------------------------------------------------------------------------------------- */

/* Pages that were something in an earlier round, and are nothing now.  A file system without holes keeps zeros. */
static int punch(struct sm_memory_save *save, const uint8_t *hva, uint64_t offset, uint64_t bytes, struct sm_error *err)
{
	if (fallocate(save->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes) == 0) {
		sm_pages_take(&save->stored, offset / SM_MEMORY_PAGE, bytes / SM_MEMORY_PAGE);
		return 0;
	}
	int code = errno == EOPNOTSUPP ? sm_fd_pwrite_full(save->fd, hva, bytes, offset) : -errno;
	return code < 0 ? sm_error_sys(err, code, "RAM file: make %llu bytes at %llu a hole", (unsigned long long)bytes,
	                               (unsigned long long)offset)
	                : 0;
}

/* Up to WRITE_MAX of RAM, and which of its pages may hold something. */
struct block {
	struct sm_memory_run run;
	unsigned char present[WRITE_MAX / SM_MEMORY_PAGE];
};

/* Of RAM without a file: what nobody ever touched is not there for mincore(2).  Neither is what was swapped out, so it
 * is asked only where nothing can be. */
static bool find_touched(const struct sm_memory *memory, struct block *block)
{
	struct sysinfo info;
	return memory->host_page == SM_MEMORY_PAGE && mincore(block->run.hva, block->run.bytes, block->present) == 0 &&
	       sysinfo(&info) == 0 && info.totalswap == 0;
}

/* Of RAM from files: where they have data, in [at, end) of one. */
static bool find_data(int fd, uint64_t at, uint64_t end, struct block *block)
{
	while (at < end) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA);
		if (data < 0)
			return errno == ENXIO;
		off_t hole = (uint64_t)data < end ? lseek(fd, data, SEEK_HOLE) : data;
		if (hole < 0)
			return false;
		uint64_t first = (uint64_t)data / SM_MEMORY_PAGE * SM_MEMORY_PAGE;
		at = ((uint64_t)hole + SM_MEMORY_PAGE - 1) / SM_MEMORY_PAGE * SM_MEMORY_PAGE;
		for (uint64_t page = first; page < at && page < end; page += SM_MEMORY_PAGE)
			block->present[(page - block->run.offset) / SM_MEMORY_PAGE] = 1;
		if (at <= first)
			break;
	}
	return true;
}

/* A hole that was not written to is one still; what is being written to just now is the next harvest's. */
static bool find_filled(const struct sm_memory *memory, struct block *block)
{
	const struct sm_memory_run *run = &block->run;
	const uint64_t end = run->offset + run->bytes;
	memset(block->present, 0, run->bytes / SM_MEMORY_PAGE);
	for (uint64_t at = run->offset, next = end; at < end; at = next, next = end) {
		int fd = memory->source.files[sm_memory_source_at(&memory->source, at, &next)];
		if (!find_data(fd, at, next, block))
			return false;
	}
	uint64_t first, count;
	for (uint64_t from = run->offset / SM_MEMORY_PAGE;
	     sm_pages_next(&memory->dirty, from, end / SM_MEMORY_PAGE, &first, &count); from = first + count)
		memset(&block->present[first - run->offset / SM_MEMORY_PAGE], 1, count);
	for (uint64_t i = 0; i < run->bytes / SM_MEMORY_PAGE; i++)
		block->present[i] |= sm_marks_has(&memory->marks, run->offset / SM_MEMORY_PAGE + i);
	return true;
}

/* What cannot hold anything is not read: that would fault it in, or fill the host's cache with a file's holes. */
static void find_present(const struct sm_memory *memory, struct block *block)
{
	bool found = false;
	if (block->run.bytes >= ASK_MIN)
		found = memory->source.nfiles ? find_filled(memory, block) : find_touched(memory, block);
	if (!found)
		memset(block->present, 1, block->run.bytes / SM_MEMORY_PAGE);
}

static bool is_empty(const struct block *block, uint64_t at)
{
	return !(block->present[at / SM_MEMORY_PAGE] & 1) || is_zero((const uint8_t *)block->run.hva + at);
}

/* Up to where pages are to be dealt with as the one at `at` is: skipped, made a hole of, or written. */
static uint64_t same(const struct sm_memory_save *save, const struct block *block, uint64_t at, bool empty, bool stored)
{
	uint64_t end = at + SM_MEMORY_PAGE;
	while (end < block->run.bytes && is_empty(block, end) == empty &&
	       (!empty || sm_pages_has(&save->stored, (block->run.offset + end) / SM_MEMORY_PAGE) == stored))
		end += SM_MEMORY_PAGE;
	return end;
}

static int write_block(struct sm_memory_save *save, const struct block *block, struct sm_error *err)
{
	const uint8_t *hva = block->run.hva;
	for (uint64_t at = 0, end; at < block->run.bytes; at = end) {
		uint64_t offset = block->run.offset + at;
		bool empty = is_empty(block, at), stored = sm_pages_has(&save->stored, offset / SM_MEMORY_PAGE);
		end = same(save, block, at, empty, stored);
		int code = 0;
		if (empty && stored) {
			code = punch(save, hva + at, offset, end - at, err);
		} else if (!empty) {
			code = sm_fd_pwrite_full(save->fd, hva + at, end - at, offset);
			if (code < 0)
				sm_error_sys(err, code, "RAM file: write %llu bytes at %llu",
				             (unsigned long long)(end - at), (unsigned long long)offset);
			sm_pages_add(&save->stored, offset / SM_MEMORY_PAGE, (end - at) / SM_MEMORY_PAGE);
			save->written_bytes += end - at;
		}
		if (code < 0)
			return code;
	}
	return 0;
}

static int write_run(struct sm_memory_save *save, const struct sm_memory_run *run, struct sm_error *err)
{
	struct block block;
	int code = 0;
	for (uint64_t at = 0; at < run->bytes && code == 0; at += block.run.bytes) {
		uint64_t left = run->bytes - at;
		block.run = (struct sm_memory_run){
			.offset = run->offset + at,
			.bytes = left < WRITE_MAX ? left : WRITE_MAX,
			.hva = (uint8_t *)run->hva + at,
		};
		find_present(save->memory, &block);
		code = write_block(save, &block, err);
	}
	return code;
}

/* ---- what differs ------------------------------------------------------------------------------------------- */

static int choose_extents(const struct sm_memory *memory, struct sm_memory_extents *extents, struct sm_error *err)
{
	int code = sm_memory_collect(memory, &memory->dirty, 0, extents);
	for (uint64_t gap = memory->host_page; code == 0 && gap < memory->bytes; gap *= 2) {
		if (extents->count <= SM_MEMORY_PIECES_MAX &&
		    sm_memory_source_count(&memory->source, extents) <= SM_MEMORY_PIECES_MAX)
			return 0;
		code = sm_memory_collect(memory, &memory->dirty, gap, extents);
	}
	if (code < 0)
		return sm_error_sys(err, code, "dirty pages");
	/* One for all leaves no other piece. */
	extents->list[0] = (struct sm_memory_extent){ 0, memory->bytes };
	extents->count = 1;
	return 0;
}

/* ---- rounds -------------------------------------------------------------------------------------------------- */

/* Down to nothing first: what the file held must not show through the holes. */
static int set_size(const struct sm_memory *memory, int fd, struct sm_error *err)
{
	if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)memory->bytes) < 0)
		return sm_error_sys(err, errno, "RAM file: set its size to %llu bytes",
		                    (unsigned long long)memory->bytes);
	return 0;
}

static int begin(struct sm_memory_save *save, struct sm_error *err)
{
	struct sm_memory *memory = save->memory;
	const uint64_t pages = memory->bytes / SM_MEMORY_PAGE;
	if (sm_pages_init(&save->stored, pages) < 0 || sm_pages_init(&memory->stale, pages) < 0)
		return sm_error_set(err, ENOMEM, "save RAM: out of memory");
	sm_pages_add(&memory->stale, 0, pages);
	if (!save->differing) {
		save->extents.list = malloc(sizeof *save->extents.list);
		if (!save->extents.list)
			return sm_error_set(err, ENOMEM, "save RAM: out of memory");
		save->extents.list[0] = (struct sm_memory_extent){ 0, memory->bytes };
		save->extents.count = 1;
	}
	return set_size(memory, save->fd, err);
}

int sm_memory_save_begin(struct sm_memory *memory, int fd, bool differing, struct sm_memory_save **ret_save,
                         struct sm_error *err)
{
	if (memory->stale.words)
		return sm_error_set(err, EBUSY, "RAM is being saved already");
	if (differing && !memory->source.nfiles)
		return sm_error_set(err, EINVAL, "RAM that is not of a snapshot has nothing to differ from");
	if (differing && memory->source.nfiles == SM_MEMORY_FILES_MAX)
		return sm_error_set(err, E2BIG, "RAM out of %u files, and no more: flatten the snapshot",
		                    SM_MEMORY_FILES_MAX);
	struct sm_memory_save *save = calloc(1, sizeof *save);
	if (!save)
		return sm_error_set(err, ENOMEM, "save RAM: out of memory");
	save->memory = memory;
	save->fd = fd;
	save->differing = differing;
	int code = begin(save, err);
	if (code < 0) {
		sm_memory_save_free(save);
		return code;
	}
	*ret_save = save;
	return 0;
}

void sm_memory_save_free(struct sm_memory_save *save)
{
	if (!save)
		return;
	sm_pages_done(&save->memory->stale);
	sm_pages_done(&save->stored);
	sm_memory_extents_done(&save->extents);
	free(save);
}

/* The next stale pages that the file is to have, from `from` on; false: there are none. */
static bool next(const struct sm_memory_save *save, size_t *extent, uint64_t from, uint64_t *ret_page,
                 uint64_t *ret_count)
{
	for (; *extent < save->extents.count; ++*extent) {
		const struct sm_memory_extent *at = &save->extents.list[*extent];
		uint64_t first = at->offset / SM_MEMORY_PAGE, end = first + at->bytes / SM_MEMORY_PAGE;
		if (sm_pages_next(&save->memory->stale, from > first ? from : first, end, ret_page, ret_count))
			return true;
	}
	return false;
}

int sm_memory_save_round(struct sm_memory_save *save, uint64_t *ret_left, struct sm_error *err)
{
	int code = save->differing ? choose_extents(save->memory, &save->extents, err) : 0;
	save->extent = 0;
	save->page = 0;
	uint64_t pages = 0, page, count;
	size_t extent = 0;
	for (uint64_t from = 0; code == 0 && next(save, &extent, from, &page, &count); from = page + count)
		pages += count;
	*ret_left = pages * SM_MEMORY_PAGE;
	return code;
}

int sm_memory_save_write(struct sm_memory_save *save, uint64_t max_bytes, bool *ret_done, struct sm_error *err)
{
	struct sm_memory *memory = save->memory;
	const uint64_t start = save->written_bytes;
	uint64_t left = max_bytes / SM_MEMORY_PAGE * LOOK_FACTOR, page, count;
	int code = 0;
	*ret_done = false;
	while (left && save->written_bytes - start < max_bytes && code == 0) {
		if (!next(save, &save->extent, save->page, &page, &count)) {
			*ret_done = true;
			break;
		}
		if (count > left)
			count = left;
		if (count > WRITE_MAX / SM_MEMORY_PAGE)
			count = WRITE_MAX / SM_MEMORY_PAGE;
		/* Before they are looked at: what is written from here on is a later harvest's. */
		sm_pages_take(&memory->stale, page, count);
		struct sm_memory_run run;
		for (size_t i = 0; i < memory->nregions && code == 0; i++)
			if (sm_memory_clip(&memory->regions[i], page * SM_MEMORY_PAGE, count * SM_MEMORY_PAGE, &run))
				code = write_run(save, &run, err);
		save->page = page + count;
		left -= count;
	}
	return code;
}

void sm_memory_save_result(struct sm_memory_save *save, struct sm_memory_saved *ret)
{
	uint64_t pages = 0, first, count;
	for (uint64_t from = 0; sm_pages_next(&save->stored, from, save->stored.count, &first, &count);
	     from = first + count)
		pages += count;
	*ret = (struct sm_memory_saved){ .data_bytes = pages * SM_MEMORY_PAGE, .written_bytes = save->written_bytes };
	if (save->differing) {
		ret->extents = save->extents;
		save->extents = (struct sm_memory_extents){ 0 };
	}
}

int sm_memory_save(struct sm_memory *memory, int fd, uint64_t *ret_data_bytes, struct sm_error *err)
{
	struct sm_memory_save *save;
	struct sm_memory_saved saved = { 0 };
	uint64_t left;
	bool done;
	int code = sm_memory_save_begin(memory, fd, false, &save, err);
	if (code < 0)
		return code;
	code = sm_memory_save_round(save, &left, err);
	if (code >= 0)
		code = sm_memory_save_write(save, UINT64_MAX, &done, err);
	sm_memory_save_result(save, &saved);
	sm_memory_save_free(save);
	if (ret_data_bytes)
		*ret_data_bytes = saved.data_bytes;
	return code;
}
