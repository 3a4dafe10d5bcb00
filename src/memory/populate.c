/* Pages that the guest will write to first thing are made its own beforehand.  A page that is read and then written
 * would take three exits: to map the file's, to copy it, and to map the copy.
 * Source: madvise(2), MADV_POPULATE_WRITE (Linux 5.14). */
#include "base/thread.h"
#include "memory/internal.h"

#include <errno.h>
#include <sys/mman.h>

/* More is no start, and each machine would have a copy of it. */
#define BYTES_MAX (16u << 20)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Host pages may be larger than those of the host that wrote the set down. */
static struct sm_memory_extent whole_pages(const struct sm_memory_extent *extent, uint64_t page)
{
	uint64_t start = extent->offset / page * page;
	uint64_t end = (extent->offset + extent->bytes + page - 1) / page * page;
	return (struct sm_memory_extent){ start, end - start };
}

/* False: no more of it.  The content stays, so the guest may run. */
static bool populate(const struct sm_memory *memory, const struct sm_memory_extent *extent)
{
	for (size_t i = 0; i < memory->nregions; i++) {
		struct sm_memory_run run;
		if (sm_memory_clip(&memory->regions[i], extent->offset, extent->bytes, &run) &&
		    madvise(run.hva, run.bytes, MADV_POPULATE_WRITE) < 0 && errno != EINTR)
			return false;
	}
	return true;
}

static void *run(void *arg)
{
	struct sm_memory *memory = arg;
	const struct sm_memory_extents *set = &memory->source.written;
	uint64_t left = BYTES_MAX;
	for (size_t i = 0; i < set->count && !atomic_load(&memory->populate_cancel); i++) {
		struct sm_memory_extent extent = whole_pages(&set->list[i], memory->host_page);
		if (extent.bytes > left || !populate(memory, &extent))
			break;
		left -= extent.bytes;
	}
	return NULL;
}

void sm_memory_populate_begin(struct sm_memory *memory)
{
	if (memory->source.written.count)
		memory->populates = sm_thread_start(&memory->populate_thread, "populate", run, memory) == 0;
}

void sm_memory_populate_end(struct sm_memory *memory)
{
	atomic_store(&memory->populate_cancel, true);
	if (memory->populates)
		pthread_join(memory->populate_thread, NULL);
	memory->populates = false;
}
