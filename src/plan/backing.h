/* What is behind a slot, by its kind; all NULL: nothing yet. */
#ifndef SM_PLAN_BACKING_H
#define SM_PLAN_BACKING_H

#include "plan/disk.h"
#include "plan/mount.h"
#include "plan/volume.h"

struct sm_backing {
	const struct sm_disk *disk;     /* of block devices */
	const struct sm_volume *volume; /* of volumes */
	const struct sm_mount *mount;   /* of virtio-fs */
};

#endif
