/* What differs from the RAM files, and the way back to it. */
#include "base/fd.h"
#include "memory/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* A page that was written to once is likely to be again, and copying costs less than faulting it in; but only so much
 * private memory is worth that. */
#define COPY_MAX_BYTES (16 * SM_MIB)

static void set_pages(uint64_t *map, uint64_t page, uint64_t count)
{
	for (; count; page++, count--)
		map[page / 64] |= UINT64_C(1) << (page % 64);
}

/* Bits of the hypervisor are host pages. */
static int harvest_region(struct sm_memory *memory, const struct sm_memory_region *region, sm_memory_guest guest,
                          void *arg, struct sm_error *err)
{
	uint64_t pages = region->bytes / memory->host_page, each = memory->host_page / SM_MEMORY_PAGE;
	uint64_t words = (pages + 63) / 64;
	uint64_t *bits = calloc(words, sizeof *bits);
	if (!bits)
		return sm_error_set(err, ENOMEM, "dirty pages: out of memory");
	int code = guest(arg, region, bits, err);
	for (uint64_t word = 0; word < words && code >= 0; word++) {
		for (uint64_t left = bits[word]; left; left &= left - 1) {
			uint64_t page = word * 64 + (uint64_t)__builtin_ctzll(left);
			if (page < pages)
				set_pages(memory->dirty, region->file_offset / SM_MEMORY_PAGE + page * each, each);
		}
	}
	free(bits);
	return code;
}

int sm_memory_harvest(struct sm_memory *memory, sm_memory_guest guest, void *arg, struct sm_error *err)
{
	uint64_t words = (memory->bytes / SM_MEMORY_PAGE + 63) / 64;
	for (uint64_t i = 0; i < words; i++)
		if (atomic_load_explicit(&memory->marks[i], memory_order_relaxed))
			memory->dirty[i] |= atomic_exchange_explicit(&memory->marks[i], 0, memory_order_relaxed);
	for (size_t i = 0; i < memory->nregions; i++) {
		int code = harvest_region(memory, &memory->regions[i], guest, arg, err);
		if (code < 0)
			return code;
	}
	return 0;
}

static bool is_set(const uint64_t *map, uint64_t page)
{
	return map[page / 64] >> (page % 64) & 1;
}

/* The first page at or after `page` whose bit is set; `end`: none. */
static uint64_t find_set(const uint64_t *map, uint64_t page, uint64_t end)
{
	while (page < end) {
		uint64_t left = map[page / 64] >> (page % 64);
		if (left) {
			page += (uint64_t)__builtin_ctzll(left);
			return page < end ? page : end;
		}
		page = (page / 64 + 1) * 64;
	}
	return end;
}

static bool next_run(const struct sm_memory *memory, const uint64_t *map, uint64_t *offset, struct sm_memory_run *ret)
{
	for (size_t i = 0; i < memory->nregions; i++) {
		const struct sm_memory_region *region = &memory->regions[i];
		uint64_t first = region->file_offset / SM_MEMORY_PAGE, end = first + region->bytes / SM_MEMORY_PAGE;
		uint64_t page = *offset / SM_MEMORY_PAGE;
		if (page >= end)
			continue;
		page = find_set(map, page > first ? page : first, end);
		if (page == end)
			continue;
		uint64_t last = page + 1;
		while (last < end && is_set(map, last))
			last++;
		*ret = (struct sm_memory_run){
			.offset = page * SM_MEMORY_PAGE,
			.bytes = (last - page) * SM_MEMORY_PAGE,
			.hva = (uint8_t *)region->hva + (page - first) * SM_MEMORY_PAGE,
		};
		*offset = ret->offset + ret->bytes;
		return true;
	}
	return false;
}

bool sm_memory_next_dirty(const struct sm_memory *memory, uint64_t *offset, struct sm_memory_run *ret)
{
	return next_run(memory, memory->dirty, offset, ret);
}

static int copy_back(const struct sm_memory *memory, const struct sm_memory_run *run, struct sm_error *err)
{
	uint64_t end = run->offset + run->bytes;
	for (uint64_t at = run->offset, next = end; at < end; at = next, next = end) {
		int fd = sm_memory_source_at(&memory->source, at, &next);
		int code = sm_fd_pread_full(fd, (uint8_t *)run->hva + (at - run->offset), next - at, at);
		if (code < 0)
			return sm_error_sys(err, code, "RAM file: read %llu bytes at %llu",
			                    (unsigned long long)(next - at), (unsigned long long)at);
	}
	return 0;
}

/* Only whole host pages can be given back; what is dirty is made of such where the guest wrote it, and what host code
 * wrote is copied. */
static int drop(struct sm_memory *memory, const struct sm_memory_run *run, uint64_t *dropped, struct sm_error *err)
{
	uint64_t page = memory->host_page;
	uint64_t start = (run->offset + page - 1) / page * page, end = (run->offset + run->bytes) / page * page;
	if (start >= end)
		return copy_back(memory, run, err);
	struct sm_memory_run head = { run->offset, start - run->offset, run->hva };
	struct sm_memory_run tail = { end, run->offset + run->bytes - end, (uint8_t *)run->hva + (end - run->offset) };
	if (madvise((uint8_t *)run->hva + (start - run->offset), end - start, MADV_DONTNEED) < 0)
		return sm_error_sys(err, errno, "guest RAM: give %llu bytes back", (unsigned long long)(end - start));
	*dropped += end - start;
	int code = head.bytes ? copy_back(memory, &head, err) : 0;
	return code == 0 && tail.bytes ? copy_back(memory, &tail, err) : code;
}

/* kept, less what was written to since. */
static int drop_kept(struct sm_memory *memory, struct sm_memory_rewound *ret, struct sm_error *err)
{
	uint64_t words = (memory->bytes / SM_MEMORY_PAGE + 63) / 64;
	struct sm_memory_run run;
	for (uint64_t i = 0; i < words; i++)
		memory->kept[i] &= ~memory->dirty[i];
	for (uint64_t offset = 0; next_run(memory, memory->kept, &offset, &run);) {
		int code = drop(memory, &run, &ret->dropped_bytes, err);
		if (code < 0)
			return code;
	}
	return 0;
}

int sm_memory_rewind(struct sm_memory *memory, struct sm_memory_rewound *ret, struct sm_error *err)
{
	*ret = (struct sm_memory_rewound){ 0 };
	uint64_t words = (memory->bytes / SM_MEMORY_PAGE + 63) / 64;
	struct sm_memory_run run;
	if (!memory->kept && !(memory->kept = calloc(words, sizeof *memory->kept)))
		return sm_error_set(err, ENOMEM, "dirty pages: out of memory");
	int code = drop_kept(memory, ret, err);
	memset(memory->kept, 0, words * sizeof *memory->kept);
	for (uint64_t offset = 0; code == 0 && next_run(memory, memory->dirty, &offset, &run);) {
		if (ret->copied_bytes + run.bytes > COPY_MAX_BYTES) {
			code = drop(memory, &run, &ret->dropped_bytes, err);
			continue;
		}
		code = copy_back(memory, &run, err);
		ret->copied_bytes += run.bytes;
		set_pages(memory->kept, run.offset / SM_MEMORY_PAGE, run.bytes / SM_MEMORY_PAGE);
	}
	/* After a failure nobody knows what RAM holds: all that was dirty still counts as that. */
	if (code == 0)
		memset(memory->dirty, 0, words * sizeof *memory->dirty);
	return code;
}
