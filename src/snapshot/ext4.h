/* ext4 in a file, as far as the host has to do with it.  Private to this room. */
#ifndef SM_SNAPSHOT_EXT4_H
#define SM_SNAPSHOT_EXT4_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct sm_ext4 {
	uint64_t bytes;
	bool journal; /* has what is to be replayed: it was not unmounted */
};
/* Whether there is one, and what it says of itself. */
bool sm_ext4_find(int fd, struct sm_ext4 *ret);
/* Make one as large as the file, which is all zeros. */
int sm_ext4_make(const char *path, struct sm_error *err);
/* Replay its journal. */
int sm_ext4_replay(const char *path, struct sm_error *err);
/* Check it, with what is left in its journal, and make it as large as the file. */
int sm_ext4_grow(const char *path, struct sm_error *err);

#endif
