/* Guest RAM: regions mapped once, checked access by guest physical address.
 *
 * Guest RAM has hva = gpa (mod 2 MiB), so huge pages line up, and is not inherited by forks.  Host writes go
 * through this file, which marks them, because the hypervisor's dirty log sees only the guest's. */
#ifndef SM_MEMORY_MEMORY_H
#define SM_MEMORY_MEMORY_H

#include "base/error.h"
#include "memory/source.h"
#include "plan/plan.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define SM_MEMORY_PAGE 4096u

struct sm_memory;

struct sm_memory_region {
	uint64_t gpa;
	uint64_t bytes;
	void *hva;
	uint64_t file_offset; /* of this region in a RAM file: regions follow each other */
};

/* Map the plan's RAM.  `source` NULL: anonymous and zero; else files of at least the RAM's size, mapped MAP_PRIVATE
 * (copy on write); it is copied.  page_bytes: 0, or the page size of a host whose rules are to be kept, a multiple of
 * this host's.  -ENOMEM, -EBADMSG for a file that is too short, -EINVAL for RAM that is not made of host pages. */
int sm_memory_new(const struct sm_plan *plan, const struct sm_memory_source *source, uint64_t page_bytes,
                  struct sm_memory **ret_memory, struct sm_error *err);
void sm_memory_free(struct sm_memory *memory);

size_t sm_memory_regions(const struct sm_memory *memory, const struct sm_memory_region **ret_regions);
uint64_t sm_memory_bytes(const struct sm_memory *memory);      /* all regions */
uint64_t sm_memory_page_bytes(const struct sm_memory *memory); /* of a host page */

/* A pointer to [gpa, gpa + len), all inside one region, or NULL.  read: for reading only; write: marks the
 * pages dirty.  Any thread; a pointer stays good for the memory's life. */
const void *sm_memory_at_read(const struct sm_memory *memory, uint64_t gpa, uint64_t len);
void *sm_memory_at_write(struct sm_memory *memory, uint64_t gpa, uint64_t len);

/* window.c.  A window is what a guest reaches besides RAM: 2 MiB aligned, and anonymous until somebody maps files into
 * it.  It is not part of the RAM file, and never marked.  Where a file got shorter than its mapping, a load or store by
 * this process would be a SIGBUS: so nobody is given a pointer to use as one. */
struct sm_memory_window {
	uint64_t gpa, bytes;
	void *hva; /* bytes 0: no window */
};
/* Before the guest runs. */
int sm_memory_add_window(struct sm_memory *memory, uint64_t gpa, uint64_t bytes, struct sm_memory_window *ret,
                         struct sm_error *err);
/* For system calls alone, which say EFAULT: [gpa, gpa + len), all inside one window, or NULL. */
void *sm_memory_at_window(const struct sm_memory *memory, uint64_t gpa, uint64_t len);
/* A copy by the kernel, one side of which may be in a window: to_guest says which.  Bytes, fewer where it cannot go on;
 * -EFAULT. */
ssize_t sm_memory_copy(const struct iovec *from, size_t nfrom, const struct iovec *to, size_t nto, bool to_guest);

/* Copies; -EFAULT when any byte is neither in RAM nor in a window. */
int sm_memory_read(const struct sm_memory *memory, uint64_t gpa, void *data, size_t len);
int sm_memory_write(struct sm_memory *memory, uint64_t gpa, const void *data, size_t len);
int sm_memory_zero(struct sm_memory *memory, uint64_t gpa, uint64_t len);

/* Give the host's memory of the whole pages in [gpa, gpa + len) back.  What they hold then is zero, or what the RAM
 * file has there.  -EFAULT when any byte is not RAM.  Any thread. */
int sm_memory_discard(struct sm_memory *memory, uint64_t gpa, uint64_t len);

/* Whether the SM_MEMORY_PAGE that holds gpa is known to have been written to since sm_memory_new or the last rewind: by
 * host code (any of the above), or by what was harvested. */
bool sm_memory_marked(const struct sm_memory *memory, uint64_t gpa);

/* dirty.c: what differs from the RAM files that were mapped.  All of it while no vCPU and no device runs.
 *
 * harvest adds what host code has written, and what `guest` says: called once a region, it fills `bits`, whole words of
 * 64, with a bit for each host page, lowest first: set where the guest has written. */
typedef int (*sm_memory_guest)(void *arg, const struct sm_memory_region *region, uint64_t *bits, struct sm_error *err);
int sm_memory_harvest(struct sm_memory *memory, sm_memory_guest guest, void *arg, struct sm_error *err);

/* A run of pages that differ; *offset (start with 0) is where in the RAM file to go on.  False: no more. */
struct sm_memory_run {
	uint64_t offset, bytes; /* in the RAM file; inside one region */
	void *hva;
};
bool sm_memory_next_dirty(const struct sm_memory *memory, uint64_t *offset, struct sm_memory_run *ret);

/* touched.c.  What of the RAM was read or written through this mapping since sm_memory_new, and is still at hand: in at
 * most SM_MEMORY_PIECES_MAX extents of the RAM file, so that little may be in between.  Of RAM whose source says
 * `watched` that is exact, from Linux 6.7 on, and the watch ends with this; else a page brings along what the kernel
 * maps with it (fault-around, huge pages).  pagemap_fd: /proc/PID/pagemap of this process.  -EINVAL for RAM that is not
 * of a snapshot.  What was written is exact, unless it is in more extents than that.  One thread at a time; *ret is the
 * caller's. */
int sm_memory_touched(struct sm_memory *memory, int pagemap_fd, struct sm_memory_touched *ret, struct sm_error *err);

/* rewind.c.  Make all RAM what the files say; nothing is dirty then.  -EBADMSG for a file that was cut or written to
 * since it was mapped: all that was dirty still is.  Few pages are copied, of many the rest is given back to the host.
 * So is what was discarded, whatever came to it since, and what the rewind before has copied and nobody wrote to since:
 * private memory does not grow from one rewind to the next. */
struct sm_memory_rewound {
	uint64_t copied_bytes, dropped_bytes;
};
int sm_memory_rewind(struct sm_memory *memory, struct sm_memory_rewound *ret, struct sm_error *err);

/* save.c.  RAM to a file, at file_offset of each region, zero pages as holes; the file is cut or grown to the RAM's
 * size.
 *
 * It may change meanwhile, in rounds: each begins with a harvest and sm_memory_save_round, and writes what the file has
 * not, or no longer, as it is.  The last round is one with everything standing still.  One save at a time (-EBUSY).
 * What was mapped from a hole and was not harvested is not looked at.
 *
 * differing: only what was harvested, to be laid over the files that were mapped; where that would make more than
 * SM_MEMORY_PIECES_MAX pieces, what lies between is written too.  -EINVAL for RAM that was not mapped from files,
 * -E2BIG for what was from as many as there may be.  fd is borrowed. */
struct sm_memory_save;
int sm_memory_save_begin(struct sm_memory *memory, int fd, bool differing, struct sm_memory_save **ret_save,
                         struct sm_error *err);
/* *ret_left: bytes that this round is to look at. */
int sm_memory_save_round(struct sm_memory_save *save, uint64_t *ret_left, struct sm_error *err);
/* At most about max_bytes of them, or some more of those that are zero; *ret_done: that was the rest. */
int sm_memory_save_write(struct sm_memory_save *save, uint64_t max_bytes, bool *ret_done, struct sm_error *err);
struct sm_memory_saved {
	uint64_t data_bytes;              /* that the file has, without holes */
	uint64_t written_bytes;           /* in all rounds */
	struct sm_memory_extents extents; /* differing: what the file is good for; the caller's */
};
/* What came of it; after the last round. */
void sm_memory_save_result(struct sm_memory_save *save, struct sm_memory_saved *ret);
void sm_memory_save_free(struct sm_memory_save *save); /* NULL is fine */
/* All of it at once, while nothing changes it. */
int sm_memory_save(struct sm_memory *memory, int fd, uint64_t *ret_data_bytes, struct sm_error *err);

#endif
