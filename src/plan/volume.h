/* A writable disk as pure data: what the device behind a volume slot is made from. */
#ifndef SM_PLAN_VOLUME_H
#define SM_PLAN_VOLUME_H

#include <stdbool.h>
#include <stdint.h>

#define SM_VOLUME_SECTOR 512u

struct sm_volume {
	unsigned index;   /* of its slot, among the plan's volumes */
	int fd;           /* a file of at least `bytes` */
	int overlay_fd;   /* an empty file that takes all writes, so that `fd` is only read; -1: writes go to `fd` */
	bool readonly;    /* enforced here, whatever the guest thinks */
	bool as_writable; /* the device offers what a writable one does: its slot was empty when the guest asked */
	uint64_t bytes;   /* a multiple of SM_VOLUME_SECTOR */
};

#endif
