/* An address space (MMIO or ports) as a sorted table of ranges.
 *
 * Filled while the machine is built; after that any number of vCPU threads look things up without a lock. */
#ifndef SM_DEVICE_BUS_H
#define SM_DEVICE_BUS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* offset: within the range.  size: 1, 2, 4 or 8 bytes; the access lies wholly within the range. */
typedef uint64_t (*sm_bus_read_handler)(void *ctx, uint64_t offset, unsigned size);
typedef void (*sm_bus_write_handler)(void *ctx, uint64_t offset, unsigned size, uint64_t value);

struct sm_bus_range {
	uint64_t base;
	uint64_t length;            /* bytes */
	sm_bus_read_handler read;   /* NULL: reads as all ones */
	sm_bus_write_handler write; /* NULL: writes are dropped */
	void *ctx;
};

/* Zeroed is empty. */
struct sm_bus {
	struct sm_bus_range *ranges; /* ascending, no overlap */
	size_t count, cap;
};

void sm_bus_init(struct sm_bus *bus);
void sm_bus_done(struct sm_bus *bus); /* safe on a zeroed bus and twice */

/* -EEXIST for an overlap (naming both ranges), -EINVAL for an empty or wrapping range, -ENOMEM. */
int sm_bus_add(struct sm_bus *bus, const struct sm_bus_range *range, struct sm_error *err);

/* The range that holds the whole access, or NULL. */
const struct sm_bus_range *sm_bus_find(const struct sm_bus *bus, uint64_t address, unsigned size);

/* Dispatch; false (read: *ret_value all ones of that size) when no range holds the access. */
bool sm_bus_read(const struct sm_bus *bus, uint64_t address, unsigned size, uint64_t *ret_value);
bool sm_bus_write(const struct sm_bus *bus, uint64_t address, unsigned size, uint64_t value);

#endif
