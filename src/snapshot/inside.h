/* An open snapshot, and how a folder comes to be.  Private to this room. */
#ifndef SM_SNAPSHOT_INSIDE_H
#define SM_SNAPSHOT_INSIDE_H

#include "snapshot/format.h"
#include "snapshot/snapshot.h"

#include <pthread.h>
#include <stdatomic.h>

/* What the RAM files are read ahead by.  Written to by open, and by whoever has set `begun`. */
struct sm_working_set {
	struct sm_memory_extents extents; /* as the file said when the snapshot was opened */
	struct sm_error why_not;          /* code 0: it said */
	bool wanted;
	atomic_bool begun;  /* the one thread is somebody's to start: to read ahead or, without extents, to write */
	atomic_bool cancel; /* what it still has to read */
	bool started;       /* to be joined */
	pthread_t thread;
	struct sm_memory_extents learned; /* what it writes */
};

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
	struct sm_working_set working_set;
};

/* working_set.c.  Nothing that goes wrong with it is an error of the snapshot. */
void sm_working_set_open(struct sm_snapshot *snapshot, const struct sm_snapshot_open *how);
void sm_working_set_close(struct sm_snapshot *snapshot); /* joins its thread, before the files are closed */
/* The RAM files are about to be mapped: the first time, what there is of the set is read ahead.  Any thread. */
void sm_working_set_prefetch(struct sm_snapshot *snapshot);

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
