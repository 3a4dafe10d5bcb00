/* An open snapshot, and how a folder comes to be.  Private to this room. */
#ifndef SM_SNAPSHOT_INSIDE_H
#define SM_SNAPSHOT_INSIDE_H

#include "snapshot/format.h"
#include "snapshot/snapshot.h"

#include <stdatomic.h>

struct sm_snapshot {
	atomic_int references;
	char path[PATH_MAX];     /* as it was given */
	char absolute[PATH_MAX]; /* what children know it by */
	struct sm_format_meta meta;
	unsigned nfiles;
	int files[SM_MEMORY_FILES_MAX]; /* its own RAM file and its parents' */
	struct sm_memory_source ram;    /* of these */
	int state_fd;
	struct sm_opened opened; /* the disks, kept open so that a restore opens nothing */
};

/* A new folder at `path`, whole or not at all.  `fill` writes the RAM and state files, and says in meta what is in
 * them; meta has plan, sources, metadata and parent, and gets the rest. */
typedef int (*sm_snapshot_fill)(void *arg, int ram_fd, int state_fd, struct sm_format_meta *meta, struct sm_error *err);
int sm_snapshot_publish(struct sm_format_meta *meta, sm_snapshot_fill fill, void *arg, const char *path,
                        struct sm_snapshot_times *ret_times, struct sm_error *err);

/* What a file has in [offset, end) to the same place in another; holes stay holes.  chunk: SM_SNAPSHOT_CHUNK bytes. */
#define SM_SNAPSHOT_CHUNK (1u << 20)
int sm_snapshot_copy_data(int from, int to, uint64_t offset, uint64_t end, uint8_t *chunk, uint64_t *data_bytes);

/* Its first `bytes`, zeros where it is shorter, as a file in memory that can neither be written to nor change its size
 * any more.  A descriptor, or -ENOMEM and what else write(2) says. */
int sm_snapshot_seal(int fd, const char *name, uint64_t bytes, struct sm_error *err);

#endif
