/* Guest RAM inside.  Private to this room. */
#ifndef SM_MEMORY_INTERNAL_H
#define SM_MEMORY_INTERNAL_H

#include "memory/memory.h"
#include "memory/pages.h"
#include "memory/source.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

struct sm_memory_reservation {
	void *start;
	size_t bytes;
};

struct sm_memory {
	size_t nregions;
	struct sm_memory_region regions[SM_PLAN_RAM_MAX];
	struct sm_memory_reservation reservations[SM_PLAN_RAM_MAX];
	uint64_t bytes;
	struct sm_memory_source source; /* what it was mapped from; no files: zeros */
	uint64_t host_page;             /* what can be mapped and given back; SM_MEMORY_PAGE is the guest's */
	/* Pages of SM_MEMORY_PAGE, in the order of the RAM file. */
	struct sm_marks marks;     /* what host code wrote, not yet harvested */
	struct sm_marks discards;  /* what was given back, not yet harvested */
	struct sm_pages dirty;     /* what differs from the RAM file, as far as it was harvested */
	struct sm_pages discarded; /* what was given back since the last rewind; some may be written to again by now */
	struct sm_pages kept;      /* what the last rewind copied back: private pages that nobody may need */
	struct sm_pages stale;     /* save.c: what the file being written has not as it is; no words: none is written */
	struct sm_pages fresh;     /* what a harvest has found so far; no words: there was none yet */
	uint64_t *guest_bits;      /* room for one region's answer of the hypervisor; NULL: not asked yet */
	/* rewind.c: each file once more, all of it, to copy from; NULL: not yet.  written: when it last was, as it was
	 * mapped. */
	const uint8_t *views[SM_MEMORY_FILES_MAX];
	struct timespec written[SM_MEMORY_FILES_MAX];
	size_t nwindows;
	struct sm_memory_window *windows;
	struct sm_memory_reservation *window_reservations;
	int watch_fd;   /* touched.c; -1: not watched */
	bool populates; /* populate.c: the thread is to be joined */
	pthread_t populate_thread;
	atomic_bool populate_cancel;
};

/* window.c.  The copy: -EFAULT for what is not all in one window. */
void sm_memory_free_windows(struct sm_memory *memory);
int sm_memory_copy_window(const struct sm_memory *memory, uint64_t gpa, void *data, size_t len, bool to_guest);

/* The part of a region that lies in [offset, offset + bytes) of the RAM file; false: none. */
bool sm_memory_clip(const struct sm_memory_region *region, uint64_t offset, uint64_t bytes, struct sm_memory_run *ret);

/* dirty.c: as sm_memory_next_dirty, of any set. */
bool sm_memory_next_run(const struct sm_memory *memory, const struct sm_pages *pages, uint64_t *offset,
                        struct sm_memory_run *ret);
/* Runs of a set's host pages; those with at most `gap` bytes between them are one.  ret: a zeroed one, or an earlier
 * answer, whose list is used again; the caller's on failure, too.  -ENOMEM. */
int sm_memory_collect(const struct sm_memory *memory, const struct sm_pages *pages, uint64_t gap,
                      struct sm_memory_extents *ret);

/* touched.c: have each page that is touched mapped alone, as far as the kernel can.  unwatch: safe when not, and twice.
 */
void sm_memory_watch(struct sm_memory *memory);
void sm_memory_unwatch(struct sm_memory *memory);

/* populate.c: a thread makes what the source says will be written the guest's own.  end: before the mappings go; safe
 * when it never began. */
void sm_memory_populate_begin(struct sm_memory *memory);
void sm_memory_populate_end(struct sm_memory *memory);

/* A file that RAM is mapped from: -EBADMSG when it is not one of at least the RAM's size.  ret_written: when it last
 * changed. */
int sm_memory_check_file(const struct sm_memory *memory, int ram_fd, struct timespec *ret_written,
                         struct sm_error *err);

#endif
