/* What an owner has locked: ranges by place, as fcntl(2) joins and cuts them. */
#include "fuse/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static void add(struct sm_fuse_range *out, uint32_t *n, uint64_t first, uint64_t last, uint32_t type)
{
	struct sm_fuse_range *before = *n ? &out[*n - 1] : NULL;
	if (before && before->type == type && before->last + 1 == first)
		before->last = last;
	else
		out[(*n)++] = (struct sm_fuse_range){ first, last, type };
}

int sm_fuse_range_put(struct sm_fuse_owner *owner, const struct sm_fuse_range *range)
{
	uint32_t n = 0;
	/* One that is cut in two, and the new one. */
	struct sm_fuse_range *out = malloc((owner->nranges + 2) * sizeof *out);
	if (!out)
		return -ENOMEM;
	bool placed = range->type == F_UNLCK;
	for (uint32_t i = 0; i < owner->nranges; i++) {
		const struct sm_fuse_range *old = &owner->ranges[i];
		if (old->first < range->first)
			add(out, &n, old->first, old->last < range->first ? old->last : range->first - 1, old->type);
		if (!placed && old->last >= range->first) {
			add(out, &n, range->first, range->last, range->type);
			placed = true;
		}
		if (old->last > range->last)
			add(out, &n, old->first > range->last ? old->first : range->last + 1, old->last, old->type);
	}
	if (!placed)
		add(out, &n, range->first, range->last, range->type);
	if (n > SM_FUSE_RANGES_MAX) {
		free(out);
		return -ENOLCK;
	}
	free(owner->ranges);
	owner->ranges = out;
	owner->nranges = n;
	return 0;
}
