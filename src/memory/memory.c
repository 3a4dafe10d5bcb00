#include "memory/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HUGE_PAGE (2 * SM_MIB)

/* Guest RAM is not a child's business, nor a core dump's.  Huge pages for a file would be up to its file system. */
static int advise(const struct sm_memory_region *region, bool anonymous, struct sm_error *err)
{
	if (madvise(region->hva, region->bytes, MADV_DONTFORK) < 0 ||
	    madvise(region->hva, region->bytes, MADV_DONTDUMP) < 0)
		return sm_error_sys(err, errno, "guest RAM at 0x%llx: madvise", (unsigned long long)region->gpa);
	/* A kernel without transparent huge pages says EINVAL: slower, and no reason to fail. */
	if (anonymous)
		(void)madvise(region->hva, region->bytes, MADV_HUGEPAGE);
	return 0;
}

bool sm_memory_clip(const struct sm_memory_region *region, uint64_t offset, uint64_t bytes, struct sm_memory_run *ret)
{
	uint64_t start = offset > region->file_offset ? offset : region->file_offset;
	uint64_t end = offset + bytes, last = region->file_offset + region->bytes;
	if (end > last)
		end = last;
	if (start >= end)
		return false;
	*ret = (struct sm_memory_run){ start, end - start, (uint8_t *)region->hva + (start - region->file_offset) };
	return true;
}

/* Over the first file, which is mapped whole. */
static int map_pieces(const struct sm_memory *memory, const struct sm_memory_region *region, struct sm_error *err)
{
	for (size_t i = 0; i < memory->source.npieces; i++) {
		const struct sm_memory_piece *piece = &memory->source.pieces[i];
		struct sm_memory_run run;
		if (!sm_memory_clip(region, piece->offset, piece->bytes, &run))
			continue;
		if (mmap(run.hva, run.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
		         memory->source.files[piece->file], (off_t)run.offset) == MAP_FAILED)
			return sm_error_sys(err, errno, "map piece %zu of %zu of guest RAM", i, memory->source.npieces);
	}
	return 0;
}

/* Reserve more than the region, so that there is an address with hva = gpa (mod 2 MiB); what is left over stays
 * inaccessible on both sides. */
static int map_region(struct sm_memory *memory, size_t index, struct sm_error *err)
{
	struct sm_memory_region *region = &memory->regions[index];
	struct sm_memory_reservation *reservation = &memory->reservations[index];
	const int ram_fd = memory->source.nfiles ? memory->source.files[0] : -1;
	size_t bytes = region->bytes + 2 * HUGE_PAGE;
	void *start = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (start == MAP_FAILED)
		return sm_error_sys(err, errno, "reserve %llu MiB of address space for guest RAM",
		                    (unsigned long long)(bytes / SM_MIB));
	*reservation = (struct sm_memory_reservation){ start, bytes };

	uintptr_t low = (uintptr_t)start;
	uintptr_t address = (low & ~(uintptr_t)(HUGE_PAGE - 1)) + region->gpa % HUGE_PAGE;
	if (address <= low)
		address += HUGE_PAGE;
	const int flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE | (ram_fd < 0 ? MAP_ANONYMOUS : 0);
	void *hva = mmap((void *)address, region->bytes, PROT_READ | PROT_WRITE, flags, ram_fd,
	                 ram_fd < 0 ? 0 : (off_t)region->file_offset);
	if (hva == MAP_FAILED)
		return sm_error_sys(err, errno, "map %llu MiB of guest RAM",
		                    (unsigned long long)(region->bytes / SM_MIB));
	region->hva = hva;
	int code = map_pieces(memory, region, err);
	return code < 0 ? code : advise(region, ram_fd < 0, err);
}

/* A mapping past the end of a file would be a SIGBUS waiting to happen. */
int sm_memory_check_file(const struct sm_memory *memory, int ram_fd, struct timespec *ret_written, struct sm_error *err)
{
	struct stat st;
	if (fstat(ram_fd, &st) < 0)
		return sm_error_sys(err, errno, "RAM file");
	if (!S_ISREG(st.st_mode))
		return sm_error_set(err, EBADMSG, "RAM file: not a regular file");
	if ((uint64_t)st.st_size < memory->bytes)
		return sm_error_set(err, EBADMSG, "RAM file: %lld bytes, the plan has %llu of RAM",
		                    (long long)st.st_size, (unsigned long long)memory->bytes);
	*ret_written = st.st_mtim;
	return 0;
}

static int check_source(struct sm_memory *memory, struct sm_error *err)
{
	int code = 0;
	for (unsigned i = 0; i < memory->source.nfiles && code == 0; i++)
		code = sm_memory_check_file(memory, memory->source.files[i], &memory->written[i], err);
	for (size_t i = 0; i < memory->source.npieces && code == 0; i++) {
		const struct sm_memory_piece *piece = &memory->source.pieces[i];
		if (piece->offset % memory->host_page || piece->bytes % memory->host_page)
			code =
			    sm_error_set(err, EINVAL,
			                 "guest RAM: 0x%llx bytes at 0x%llx of a RAM file are not made of host pages "
			                 "(%llu bytes)",
			                 (unsigned long long)piece->bytes, (unsigned long long)piece->offset,
			                 (unsigned long long)memory->host_page);
	}
	return code;
}

int sm_memory_new(const struct sm_plan *plan, const struct sm_memory_source *source, uint64_t page_bytes,
                  struct sm_memory **ret_memory, struct sm_error *err)
{
	struct sm_memory *memory = calloc(1, sizeof *memory);
	if (!memory)
		return sm_error_set(err, ENOMEM, "guest RAM: out of memory");
	int code = 0;
	uint64_t page = page_bytes ? page_bytes : (uint64_t)sysconf(_SC_PAGESIZE);
	memory->host_page = page;
	memory->watch_fd = -1;
	for (unsigned i = 0; i < plan->nram; i++) {
		if (plan->ram[i].gpa % page || plan->ram[i].bytes % page) {
			code = sm_error_set(err, EINVAL, "guest RAM at 0x%llx is not made of host pages (%llu bytes)",
			                    (unsigned long long)plan->ram[i].gpa, (unsigned long long)page);
			goto fail;
		}
		memory->regions[memory->nregions++] = (struct sm_memory_region){
			.gpa = plan->ram[i].gpa,
			.bytes = plan->ram[i].bytes,
			.file_offset = memory->bytes,
		};
		memory->bytes += plan->ram[i].bytes;
	}
	if (source && ((code = sm_memory_source_copy(source, &memory->source, err)) < 0 ||
	               (code = check_source(memory, err)) < 0))
		goto fail;

	if (sm_marks_init(&memory->marks, memory->bytes / SM_MEMORY_PAGE) < 0 ||
	    sm_marks_init(&memory->discards, memory->bytes / SM_MEMORY_PAGE) < 0 ||
	    sm_pages_init(&memory->dirty, memory->bytes / SM_MEMORY_PAGE) < 0 ||
	    sm_pages_init(&memory->discarded, memory->bytes / SM_MEMORY_PAGE) < 0 ||
	    sm_pages_init(&memory->kept, memory->bytes / SM_MEMORY_PAGE) < 0) {
		code = sm_error_set(err, ENOMEM, "guest RAM: out of memory");
		goto fail;
	}
	for (size_t i = 0; i < memory->nregions && code == 0; i++)
		code = map_region(memory, i, err);
	if (code < 0)
		goto fail;
	if (memory->source.watched)
		sm_memory_watch(memory);
	else
		sm_memory_populate_begin(memory);
	*ret_memory = memory;
	return 0;
fail:
	sm_memory_free(memory);
	return code;
}

void sm_memory_free(struct sm_memory *memory)
{
	if (!memory)
		return;
	sm_memory_populate_end(memory);
	sm_memory_unwatch(memory);
	for (size_t i = 0; i < memory->nregions; i++)
		if (memory->reservations[i].start)
			munmap(memory->reservations[i].start, memory->reservations[i].bytes);
	for (unsigned i = 0; i < memory->source.nfiles; i++)
		if (memory->views[i])
			munmap((void *)memory->views[i], memory->bytes);
	sm_marks_done(&memory->marks);
	sm_marks_done(&memory->discards);
	sm_pages_done(&memory->dirty);
	sm_pages_done(&memory->discarded);
	sm_pages_done(&memory->kept);
	sm_pages_done(&memory->fresh);
	sm_memory_free_windows(memory);
	free(memory->guest_bits);
	sm_memory_source_close(&memory->source);
	free(memory);
}

size_t sm_memory_regions(const struct sm_memory *memory, const struct sm_memory_region **ret_regions)
{
	*ret_regions = memory->regions;
	return memory->nregions;
}

uint64_t sm_memory_bytes(const struct sm_memory *memory)
{
	return memory->bytes;
}

uint64_t sm_memory_page_bytes(const struct sm_memory *memory)
{
	return memory->host_page;
}

/* The region that holds [gpa, gpa + len), or NULL. */
static const struct sm_memory_region *find(const struct sm_memory *memory, uint64_t gpa, uint64_t len)
{
	for (size_t i = 0; i < memory->nregions; i++) {
		const struct sm_memory_region *region = &memory->regions[i];
		uint64_t offset = gpa - region->gpa;
		if (gpa >= region->gpa && offset < region->bytes)
			return len <= region->bytes - offset ? region : NULL;
	}
	return NULL;
}

static void mark(struct sm_marks *marks, const struct sm_memory_region *region, uint64_t gpa, uint64_t len)
{
	uint64_t offset = region->file_offset + (gpa - region->gpa);
	sm_marks_add(marks, offset / SM_MEMORY_PAGE, (offset + len - 1) / SM_MEMORY_PAGE);
}

const void *sm_memory_at_read(const struct sm_memory *memory, uint64_t gpa, uint64_t len)
{
	const struct sm_memory_region *region = find(memory, gpa, len);
	return region ? (const uint8_t *)region->hva + (gpa - region->gpa) : NULL;
}

void *sm_memory_at_write(struct sm_memory *memory, uint64_t gpa, uint64_t len)
{
	const struct sm_memory_region *region = find(memory, gpa, len);
	if (!region)
		return NULL;
	if (len)
		mark(&memory->marks, region, gpa, len);
	return (uint8_t *)region->hva + (gpa - region->gpa);
}

bool sm_memory_marked(const struct sm_memory *memory, uint64_t gpa)
{
	const struct sm_memory_region *region = find(memory, gpa, 1);
	if (!region)
		return false;
	uint64_t page = (region->file_offset + (gpa - region->gpa)) / SM_MEMORY_PAGE;
	return sm_marks_has(&memory->marks, page) || sm_pages_has(&memory->dirty, page);
}

int sm_memory_read(const struct sm_memory *memory, uint64_t gpa, void *data, size_t len)
{
	const void *at = sm_memory_at_read(memory, gpa, len);
	if (!at)
		return sm_memory_copy_window(memory, gpa, data, len, false);
	memcpy(data, at, len);
	return 0;
}

int sm_memory_write(struct sm_memory *memory, uint64_t gpa, const void *data, size_t len)
{
	void *at = sm_memory_at_write(memory, gpa, len);
	if (!at)
		return sm_memory_copy_window(memory, gpa, (void *)(uintptr_t)data, len, true);
	memcpy(at, data, len);
	return 0;
}

int sm_memory_zero(struct sm_memory *memory, uint64_t gpa, uint64_t len)
{
	void *at = sm_memory_at_write(memory, gpa, len);
	if (!at)
		return -EFAULT;
	memset(at, 0, len);
	return 0;
}

int sm_memory_discard(struct sm_memory *memory, uint64_t gpa, uint64_t len)
{
	const struct sm_memory_region *region = find(memory, gpa, len);
	if (!region)
		return -EFAULT;
	const uint64_t page = memory->host_page;
	uint64_t start = (gpa + page - 1) / page * page, end = (gpa + len) / page * page;
	if (start >= end)
		return 0;
	if (madvise((uint8_t *)region->hva + (start - region->gpa), end - start, MADV_DONTNEED) < 0)
		return -errno;
	mark(&memory->discards, region, start, end - start);
	return 0;
}
