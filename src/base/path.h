/* Paths: the user's folders, and files that appear whole or not at all. */
#ifndef SM_BASE_PATH_H
#define SM_BASE_PATH_H

#include "base/error.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* $XDG_DATA_HOME/supermachine and $XDG_CACHE_HOME/supermachine, or their defaults below $HOME
 * (XDG Base Directory Specification).  Written into out; nothing is created. */
int sm_path_data_home(char out[PATH_MAX], struct sm_error *err);
int sm_path_cache_home(char out[PATH_MAX], struct sm_error *err);
/* $XDG_CONFIG_HOME/PROGRAM, or below $HOME: "supermachine", or that of another program whose files we read. */
int sm_path_config_home(const char *program, char out[PATH_MAX], struct sm_error *err);

/* snprintf into out with -ENAMETOOLONG instead of a cut. */
int sm_path_format(char out[PATH_MAX], struct sm_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* mkdir -p; existing folders are fine. */
int sm_path_make_dirs(const char *path, mode_t mode, struct sm_error *err);

/* Remove a file or a whole tree without following symbolic links; absent is success. */
int sm_path_remove_tree(const char *path, struct sm_error *err);

/* Remove what was killed while it made `path` has left: regular files, or folders, named `path` + infix + six letters,
 * that nobody holds by flock(2).  As far as that is possible. */
void sm_path_remove_leftovers(const char *path, const char *infix, bool folders);

/* A file that appears at `path` whole or not at all: begin opens `path` + ".tmp.XXXXXX" for writing;
 * commit fsyncs the file, renames it, and fsyncs the folder; discard removes the temporary.  Exactly one of commit and
 * discard ends it (discard after commit is a no-op, so it can stand in a cleanup). */
struct sm_path_new {
	int fd; /* -1 when ended */
	char path[PATH_MAX];
	char temporary[PATH_MAX];
};
int sm_path_new_begin(struct sm_path_new *file, const char *path, mode_t mode, struct sm_error *err);
int sm_path_new_commit(struct sm_path_new *file, struct sm_error *err);
void sm_path_new_discard(struct sm_path_new *file);

/* fsync a folder by path. */
int sm_path_sync_dir(const char *path, struct sm_error *err);

/* Read a whole file of at most `max` bytes into *ret_data (malloc, one extra NUL byte). */
int sm_path_read(const char *path, size_t max, char **ret_data, size_t *ret_len, struct sm_error *err);

#endif
