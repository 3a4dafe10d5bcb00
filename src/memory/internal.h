/* Guest RAM inside.  Private to this room. */
#ifndef SM_MEMORY_INTERNAL_H
#define SM_MEMORY_INTERNAL_H

#include "memory/memory.h"
#include "memory/source.h"

#include <stdatomic.h>

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
	/* A bit a page, in the order of the RAM file.  marks: what host code wrote, not yet harvested. */
	_Atomic uint64_t *marks;
	uint64_t *dirty; /* what differs from the RAM file, as far as it was harvested */
	uint64_t *kept;  /* what the last rewind copied back: private pages that nobody may need */
};

/* The part of a region that lies in [offset, offset + bytes) of the RAM file; false: none. */
bool sm_memory_clip(const struct sm_memory_region *region, uint64_t offset, uint64_t bytes, struct sm_memory_run *ret);

#endif
