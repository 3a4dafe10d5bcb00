/* Which RAM has been touched.  Source: Linux, Documentation/admin-guide/mm/pagemap.rst and userfaultfd.rst. */
#include "memory/internal.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Bit 63: present; bit 62: swapped out; bit 61: a page of the file, and no copy. */
#define AT_HAND  (3ull << 62)
#define SHARED   (1ull << 61)
#define LOOK_MAX 4096u

/* Linux 6.7; older headers lack it. */
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

/* Registered for asynchronous write protection, which is then never asked for, memory takes no faults but its own: the
 * kernel maps no neighbours with a page that was touched, lest it miss their first touch. */
void sm_memory_watch(struct sm_memory *memory)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC };
	memory->watch_fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	bool fine = memory->watch_fd >= 0 && ioctl(memory->watch_fd, UFFDIO_API, &api) == 0;
	for (size_t i = 0; i < memory->nregions && fine; i++) {
		const struct sm_memory_region *region = &memory->regions[i];
		struct uffdio_register all = { .range = { (uintptr_t)region->hva, region->bytes },
			                       .mode = UFFDIO_REGISTER_MODE_WP };
		(void)madvise(region->hva, region->bytes, MADV_NOHUGEPAGE);
		fine = ioctl(memory->watch_fd, UFFDIO_REGISTER, &all) == 0;
	}
	if (!fine)
		sm_memory_unwatch(memory);
}

void sm_memory_unwatch(struct sm_memory *memory)
{
	if (memory->watch_fd < 0)
		return;
	/* The last descriptor's end would do, but a fork may hold another. */
	for (size_t i = 0; i < memory->nregions; i++) {
		const struct sm_memory_region *region = &memory->regions[i];
		struct uffdio_range range = { (uintptr_t)region->hva, region->bytes };
		if (region->hva)
			(void)ioctl(memory->watch_fd, UFFDIO_UNREGISTER, &range);
	}
	sm_fd_close(&memory->watch_fd);
}

/* `entries` is room for LOOK_MAX of them. */
static int look(const struct sm_memory_region *region, int pagemap_fd, uint64_t *entries, struct sm_pages *all,
                struct sm_pages *written)
{
	/* The kernel's own, whatever rules are kept. */
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), each = page / SM_MEMORY_PAGE;
	const uint64_t first = (uintptr_t)region->hva / page, count = region->bytes / page;
	for (uint64_t at = 0; at < count; at += LOOK_MAX) {
		uint64_t n = count - at < LOOK_MAX ? count - at : LOOK_MAX;
		int code = sm_fd_pread_full(pagemap_fd, entries, n * sizeof *entries, (first + at) * sizeof *entries);
		if (code < 0)
			return code;
		for (uint64_t i = 0; i < n; i++) {
			const uint64_t number = region->file_offset / SM_MEMORY_PAGE + (at + i) * each;
			if (entries[i] & AT_HAND)
				sm_pages_add(all, number, each);
			if (entries[i] & AT_HAND && !(entries[i] & SHARED))
				sm_pages_add(written, number, each);
		}
	}
	return 0;
}

/* Their extents, few enough. */
static int collect(const struct sm_memory *memory, const struct sm_pages *pages, struct sm_memory_extents *ret)
{
	int code = sm_memory_collect(memory, pages, 0, ret);
	for (uint64_t gap = memory->host_page; code == 0 && ret->count > SM_MEMORY_PIECES_MAX; gap *= 2)
		code = sm_memory_collect(memory, pages, gap, ret);
	return code;
}

int sm_memory_touched(struct sm_memory *memory, int pagemap_fd, struct sm_memory_touched *ret, struct sm_error *err)
{
	*ret = (struct sm_memory_touched){ 0 };
	if (!memory->source.nfiles)
		return sm_error_set(err, EINVAL, "RAM that is not of a snapshot has no working set");
	struct sm_pages all = { 0 }, written = { 0 };
	uint64_t *entries = calloc(LOOK_MAX, sizeof *entries);
	int code = entries ? sm_pages_init(&all, memory->bytes / SM_MEMORY_PAGE) : -ENOMEM;
	if (code == 0)
		code = sm_pages_init(&written, memory->bytes / SM_MEMORY_PAGE);
	for (size_t i = 0; i < memory->nregions && code == 0; i++)
		code = look(&memory->regions[i], pagemap_fd, entries, &all, &written);
	if (code == 0)
		code = collect(memory, &all, &ret->all);
	if (code == 0)
		code = collect(memory, &written, &ret->written);
	sm_pages_done(&all);
	sm_pages_done(&written);
	free(entries);
	sm_memory_unwatch(memory);
	if (code == 0)
		return 0;
	sm_memory_touched_done(ret);
	return sm_error_sys(err, code, "touched pages");
}
