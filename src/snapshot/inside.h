/* An open snapshot, and how a folder comes to be.  Private to this room. */
#ifndef SM_SNAPSHOT_INSIDE_H
#define SM_SNAPSHOT_INSIDE_H

#include "snapshot/format.h"
#include "snapshot/snapshot.h"

#include <pthread.h>
#include <stdatomic.h>

/* What the RAM files are read ahead by.  Written to by open, and by whoever has set `begun`. */
struct sm_working_set {
	struct sm_memory_touched touched; /* as the file said when the snapshot was opened */
	struct sm_error why_not;          /* code 0: it said */
	bool wanted;
	atomic_bool begun;  /* the one thread is somebody's to start: to read ahead or, without a set, to write */
	atomic_bool cancel; /* what it still has to read */
	bool started;       /* to be joined */
	pthread_t thread;
	struct sm_memory_touched learned; /* what it writes */
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
	unsigned nvolumes;
	int volume_fds[SM_PLAN_SLOTS_MAX]; /* as meta lists them */
	struct sm_opened opened;           /* the disks, kept open so that a restore opens nothing */
	struct sm_working_set working_set;
};

/* working_set.c.  Nothing that goes wrong with it is an error of the snapshot. */
void sm_working_set_open(struct sm_snapshot *snapshot, const struct sm_snapshot_open *how);
void sm_working_set_close(struct sm_snapshot *snapshot); /* joins its thread, before the files are closed */
/* The RAM files are about to be mapped: the first time, what there is of the set is read ahead.  Any thread. */
void sm_working_set_prefetch(struct sm_snapshot *snapshot);

/* A new folder at `path`, whole or not at all.  `fill` writes the RAM and state files and the volumes', and says in
 * meta what is in the first; meta has plan, sources, metadata, parent and the volumes' slots and sizes, and gets the
 * rest. */
typedef int (*sm_snapshot_fill)(void *arg, int ram_fd, int state_fd, const int *volume_fds, struct sm_format_meta *meta,
                                struct sm_error *err);
int sm_snapshot_publish(struct sm_format_meta *meta, sm_snapshot_fill fill, void *arg, const char *path,
                        struct sm_snapshot_times *ret_times, struct sm_error *err);

/* A new file of a folder; a descriptor to read and write. */
int sm_snapshot_create(const char *folder, const char *name, mode_t mode, struct sm_error *err);
/* One of a snapshot's files, held and checked; a descriptor to read. */
int sm_snapshot_open_file(const char *folder, const char *name, const struct sm_format_file *expected,
                          const struct sm_snapshot_open *how, struct sm_error *err);

/* Its first `bytes`, zeros where it is shorter, as a file in memory that can neither be written to nor change its size
 * any more.  A descriptor, or -ENOMEM and what else write(2) says. */
int sm_snapshot_seal(int fd, const char *name, uint64_t bytes, struct sm_error *err);

#endif
