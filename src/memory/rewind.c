/* The way back to what the RAM files say. */
#include "memory/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* A page that was written to once is likely to be again, and copying costs less than faulting it in; but only so much
 * private memory is worth that. */
#define COPY_MAX_BYTES (16 * SM_MIB)

/* Copied from a mapping of the file and not read: a call a run takes four times as long as the copy of a page.  Like
 * all else that reads guest RAM this rests on the file's keeping its size, so it is looked at first; and a machine
 * whose file was written to is worth nothing, for that shows through wherever its guest did not write. */
static int look_at_files(struct sm_memory *memory, struct sm_error *err)
{
	if (!memory->source.nfiles)
		return sm_error_set(err, EINVAL, "RAM that is not of a snapshot has nothing to go back to");
	for (unsigned i = 0; i < memory->source.nfiles; i++) {
		struct timespec written;
		int code = sm_memory_check_file(memory, memory->source.files[i], &written, err);
		if (code < 0)
			return code;
		if (written.tv_sec != memory->written[i].tv_sec || written.tv_nsec != memory->written[i].tv_nsec)
			return sm_error_set(err, EBADMSG, "RAM file %u of %u: written to since it was mapped", i + 1,
			                    memory->source.nfiles);
		if (memory->views[i])
			continue;
		void *view = mmap(NULL, memory->bytes, PROT_READ, MAP_SHARED, memory->source.files[i], 0);
		if (view == MAP_FAILED)
			return sm_error_sys(err, errno, "map RAM file %u of %u", i + 1, memory->source.nfiles);
		memory->views[i] = view;
		(void)madvise(view, memory->bytes, MADV_DONTFORK);
	}
	return 0;
}

static void copy_back(const struct sm_memory *memory, const struct sm_memory_run *run)
{
	uint64_t end = run->offset + run->bytes;
	for (uint64_t at = run->offset, next = end; at < end; at = next, next = end) {
		unsigned file = sm_memory_source_at(&memory->source, at, &next);
		memcpy((uint8_t *)run->hva + (at - run->offset), memory->views[file] + at, next - at);
	}
}

/* Only whole host pages can be given back; what is dirty is made of such where the guest wrote it, and what host code
 * wrote is copied. */
static int drop(struct sm_memory *memory, const struct sm_memory_run *run, uint64_t *dropped, struct sm_error *err)
{
	uint64_t page = memory->host_page, last = run->offset + run->bytes;
	uint64_t start = (run->offset + page - 1) / page * page, end = last / page * page;
	uint8_t *hva = run->hva;
	if (start >= end) {
		copy_back(memory, run);
		return 0;
	}
	if (madvise(hva + (start - run->offset), end - start, MADV_DONTNEED) < 0)
		return sm_error_sys(err, errno, "guest RAM: give %llu bytes back", (unsigned long long)(end - start));
	*dropped += end - start;
	copy_back(memory, &(struct sm_memory_run){ run->offset, start - run->offset, hva });
	copy_back(memory, &(struct sm_memory_run){ end, last - end, hva + (end - run->offset) });
	return 0;
}

/* What the rewind before has copied, less what was written to since; and what the guest had no use for in between. */
static int drop_unused(struct sm_memory *memory, struct sm_memory_rewound *ret, struct sm_error *err)
{
	int code = 0;
	struct sm_memory_run run;
	struct sm_pages *unused = &memory->kept;
	sm_pages_remove(unused, &memory->dirty);
	sm_pages_merge(unused, &memory->discarded);
	for (uint64_t offset = 0; code == 0 && sm_memory_next_run(memory, unused, &offset, &run);)
		code = drop(memory, &run, &ret->dropped_bytes, err);
	if (code == 0) {
		sm_pages_remove(&memory->dirty, unused);
		sm_pages_clear(&memory->discarded);
	}
	sm_pages_clear(unused);
	return code;
}

int sm_memory_rewind(struct sm_memory *memory, struct sm_memory_rewound *ret, struct sm_error *err)
{
	*ret = (struct sm_memory_rewound){ 0 };
	struct sm_memory_run run;
	int code = look_at_files(memory, err);
	if (code == 0)
		code = drop_unused(memory, ret, err);
	for (uint64_t offset = 0; code == 0 && sm_memory_next_dirty(memory, &offset, &run);) {
		if (ret->copied_bytes + run.bytes > COPY_MAX_BYTES) {
			code = drop(memory, &run, &ret->dropped_bytes, err);
			continue;
		}
		copy_back(memory, &run);
		ret->copied_bytes += run.bytes;
		sm_pages_add(&memory->kept, run.offset / SM_MEMORY_PAGE, run.bytes / SM_MEMORY_PAGE);
	}
	/* After a failure nobody knows what RAM holds: what was dirty still counts as that. */
	if (code == 0)
		sm_pages_clear(&memory->dirty);
	return code;
}
