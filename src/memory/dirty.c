/* What differs from the RAM files. */
#include "memory/internal.h"

#include <errno.h>
#include <stdlib.h>

/* Bits of the hypervisor are host pages, of `each` guest pages. */
static void add_host_pages(struct sm_pages *pages, uint64_t first, uint64_t bits, uint64_t each)
{
	if (each == 1) {
		sm_pages_add_bits(pages, first, bits);
		return;
	}
	for (; bits; bits &= bits - 1)
		sm_pages_add(pages, first + (uint64_t)__builtin_ctzll(bits) * each, each);
}

/* The first word from `word` on that is not zero; `words`: none.  Most are, so many are looked at at once. */
static uint64_t next_word(const uint64_t *bits, uint64_t word, uint64_t words)
{
	enum { MANY = 16 };
	for (; word + MANY <= words; word += MANY) {
		uint64_t any = 0;
		for (unsigned i = 0; i < MANY; i++)
			any |= bits[word + i];
		if (any)
			break;
	}
	while (word < words && !bits[word])
		word++;
	return word;
}

static int harvest_region(struct sm_memory *memory, const struct sm_memory_region *region, sm_memory_guest guest,
                          void *arg, struct sm_error *err)
{
	const uint64_t pages = region->bytes / memory->host_page, each = memory->host_page / SM_MEMORY_PAGE;
	const uint64_t first = region->file_offset / SM_MEMORY_PAGE;
	uint64_t *bits = memory->guest_bits;
	int code = guest(arg, region, bits, err);
	if (code < 0)
		return code;
	if (pages % 64)
		bits[pages / 64] &= (UINT64_C(1) << (pages % 64)) - 1;
	const uint64_t words = (pages + 63) / 64;
	for (uint64_t word = next_word(bits, 0, words); word < words; word = next_word(bits, word + 1, words))
		add_host_pages(&memory->fresh, first + word * 64 * each, bits[word], each);
	return 0;
}

/* Kept from one harvest to the next: so much memory is a mapping of its own to the C library, and would be faulted in
 * anew each time. */
static int have_room(struct sm_memory *memory, struct sm_error *err)
{
	uint64_t most = 0;
	for (size_t i = 0; i < memory->nregions; i++)
		if (memory->regions[i].bytes > most)
			most = memory->regions[i].bytes;
	if (!memory->guest_bits)
		memory->guest_bits = calloc((most / memory->host_page + 63) / 64, sizeof *memory->guest_bits);
	if (memory->guest_bits &&
	    (memory->fresh.words || sm_pages_init(&memory->fresh, memory->bytes / SM_MEMORY_PAGE) == 0))
		return 0;
	return sm_error_set(err, ENOMEM, "dirty pages: out of memory");
}

/* What was given back is what the files say, unless it was written to after that, and no longer what a save may have
 * written.  Asked for last: whatever was written to a page since is in this harvest, or a later one. */
static void take_discards(struct sm_memory *memory)
{
	uint64_t first, bits;
	for (uint64_t at = 0; sm_marks_take(&memory->discards, &at, &first, &bits);) {
		sm_pages_take_bits(&memory->dirty, first, bits);
		sm_pages_add_bits(&memory->discarded, first, bits);
		if (memory->stale.words)
			sm_pages_add_bits(&memory->stale, first, bits);
	}
}

int sm_memory_harvest(struct sm_memory *memory, sm_memory_guest guest, void *arg, struct sm_error *err)
{
	int code = have_room(memory, err);
	if (code < 0)
		return code;
	for (size_t i = 0; i < memory->nregions && code >= 0; i++)
		code = harvest_region(memory, &memory->regions[i], guest, arg, err);
	uint64_t first, bits;
	for (uint64_t at = 0; sm_marks_take(&memory->marks, &at, &first, &bits);)
		sm_pages_add_bits(&memory->fresh, first, bits);
	take_discards(memory);
	/* What was written to differs from the files, and from what a save has written. */
	sm_pages_merge(&memory->dirty, &memory->fresh);
	if (memory->stale.words)
		sm_pages_merge(&memory->stale, &memory->fresh);
	sm_pages_clear(&memory->fresh);
	return code;
}

bool sm_memory_next_run(const struct sm_memory *memory, const struct sm_pages *pages, uint64_t *offset,
                        struct sm_memory_run *ret)
{
	for (size_t i = 0; i < memory->nregions; i++) {
		const struct sm_memory_region *region = &memory->regions[i];
		uint64_t first = region->file_offset / SM_MEMORY_PAGE, end = first + region->bytes / SM_MEMORY_PAGE;
		uint64_t from = *offset / SM_MEMORY_PAGE, page, count;
		if (!sm_pages_next(pages, from > first ? from : first, end, &page, &count))
			continue;
		*ret = (struct sm_memory_run){
			.offset = page * SM_MEMORY_PAGE,
			.bytes = count * SM_MEMORY_PAGE,
			.hva = (uint8_t *)region->hva + (page - first) * SM_MEMORY_PAGE,
		};
		*offset = ret->offset + ret->bytes;
		return true;
	}
	return false;
}

bool sm_memory_next_dirty(const struct sm_memory *memory, uint64_t *offset, struct sm_memory_run *ret)
{
	return sm_memory_next_run(memory, &memory->dirty, offset, ret);
}

int sm_memory_collect(const struct sm_memory *memory, const struct sm_pages *pages, uint64_t gap,
                      struct sm_memory_extents *ret)
{
	const uint64_t page = memory->host_page;
	size_t room = 0;
	struct sm_memory_run run;
	ret->count = 0;
	for (uint64_t offset = 0; sm_memory_next_run(memory, pages, &offset, &run);) {
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
