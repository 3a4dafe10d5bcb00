/* A volume's file on the host: found or made, checked, and locked. */
#ifndef SM_SNAPSHOT_VOLUME_FILE_H
#define SM_SNAPSHOT_VOLUME_FILE_H

#include "base/error.h"
#include "plan/volume.h"

#include <stdbool.h>
#include <stdint.h>

/* What a user wishes for. */
struct sm_volume_source {
	char *path;     /* owned by whoever has the struct */
	uint64_t bytes; /* 0: as large as it is; a larger file is refused, a smaller one grows, with what is in it */
	bool readonly;  /* the file must be there */
	bool format;    /* it holds ext4, or nothing yet, and then gets it */
	bool overlay;   /* the machine's writes are its own and end with it: the file is only read, and may be shared */
};

/* A regular file, and no link to one, of whole sectors.  It is locked (flock(2)): exclusively, or shared where it is
 * only read, until the last copy of the descriptors is closed.  One that is missing or empty is made sparse, under
 * another name until it is whole.
 *
 * -EBUSY: another machine has it; -EINVAL and -ENOENT say what is wrong with it.  ret->index is left at 0. */
int sm_volume_file_open(const struct sm_volume_source *source, struct sm_volume *ret, struct sm_error *err);
void sm_volume_file_close(struct sm_volume *volume);

/* A file without a name for an overlay: in $TMPDIR, else /var/tmp.  A descriptor. */
int sm_volume_overlay(struct sm_error *err);

#endif
