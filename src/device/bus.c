#include "device/bus.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void sm_bus_init(struct sm_bus *bus)
{
	*bus = (struct sm_bus){ 0 };
}

void sm_bus_done(struct sm_bus *bus)
{
	free(bus->ranges);
	*bus = (struct sm_bus){ 0 };
}

/* How many ranges begin at or below the address. */
static size_t upper_bound(const struct sm_bus *bus, uint64_t address)
{
	size_t low = 0, high = bus->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (bus->ranges[middle].base <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int overlap(const struct sm_bus_range *one, const struct sm_bus_range *other, struct sm_error *err)
{
	return sm_error_set(err, EEXIST, "address range 0x%llx + 0x%llx overlaps 0x%llx + 0x%llx",
	                    (unsigned long long)one->base, (unsigned long long)one->length,
	                    (unsigned long long)other->base, (unsigned long long)other->length);
}

int sm_bus_add(struct sm_bus *bus, const struct sm_bus_range *range, struct sm_error *err)
{
	if (range->length == 0 || range->base + (range->length - 1) < range->base)
		return sm_error_set(err, EINVAL, "address range 0x%llx + 0x%llx is empty or wraps",
		                    (unsigned long long)range->base, (unsigned long long)range->length);
	size_t at = upper_bound(bus, range->base);
	const struct sm_bus_range *below = at > 0 ? &bus->ranges[at - 1] : NULL;
	const struct sm_bus_range *above = at < bus->count ? &bus->ranges[at] : NULL;
	if (below && range->base - below->base < below->length)
		return overlap(range, below, err);
	if (above && above->base - range->base < range->length)
		return overlap(range, above, err);

	if (bus->count == bus->cap) {
		size_t cap = bus->cap ? bus->cap * 2 : 16;
		struct sm_bus_range *ranges = realloc(bus->ranges, cap * sizeof *ranges);
		if (!ranges)
			return sm_error_set(err, ENOMEM, "address range: out of memory");
		bus->ranges = ranges;
		bus->cap = cap;
	}
	memmove(bus->ranges + at + 1, bus->ranges + at, (bus->count - at) * sizeof *range);
	bus->ranges[at] = *range;
	bus->count++;
	return 0;
}

const struct sm_bus_range *sm_bus_find(const struct sm_bus *bus, uint64_t address, unsigned size)
{
	size_t at = upper_bound(bus, address);
	if (at == 0)
		return NULL;
	const struct sm_bus_range *range = &bus->ranges[at - 1];
	uint64_t offset = address - range->base;
	return offset < range->length && size <= range->length - offset ? range : NULL;
}

static uint64_t all_ones(unsigned size)
{
	return size >= 8 ? UINT64_MAX : (UINT64_C(1) << (8 * size)) - 1;
}

bool sm_bus_read(const struct sm_bus *bus, uint64_t address, unsigned size, uint64_t *ret_value)
{
	const struct sm_bus_range *range = sm_bus_find(bus, address, size);
	*ret_value = all_ones(size);
	if (range && range->read)
		*ret_value &= range->read(range->ctx, address - range->base, size);
	return range != NULL;
}

bool sm_bus_write(const struct sm_bus *bus, uint64_t address, unsigned size, uint64_t value)
{
	const struct sm_bus_range *range = sm_bus_find(bus, address, size);
	if (range && range->write)
		range->write(range->ctx, address - range->base, size, value & all_ones(size));
	return range != NULL;
}
