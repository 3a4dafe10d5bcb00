/* Starting one process. */
#ifndef SM_GUEST_SPAWN_H
#define SM_GUEST_SPAWN_H

#include "user.h"

#include <stdbool.h>
#include <sys/resource.h>

#define SM_SPAWN_LIMITS_MAX 17 /* those of a request, and the default number of open files */

struct sm_spawn_limit {
	int resource;
	struct rlimit value;
};

struct sm_spawn {
	char *const *argv; /* argv[0] without a slash is looked for in env's PATH */
	char *const *env;
	const char *cwd;
	const struct sm_user *user;
	int in, out, err; /* 3 or more, each */
	bool tty;         /* in is a terminal, to be the controlling one */
	int cgroup_fd;    /* -1: none */
	size_t nlimits;
	struct sm_spawn_limit limits[SM_SPAWN_LIMITS_MAX];
};

enum sm_spawn_stage {
	SM_SPAWN_NONE,
	SM_SPAWN_CGROUP,
	SM_SPAWN_TERMINAL,
	SM_SPAWN_LIMITS,
	SM_SPAWN_CWD,
	SM_SPAWN_USER,
	SM_SPAWN_PROGRAM,
};

/* Starts the process in a session of its own; returns when its program runs, or could not be started: a negative errno,
 * and at what stage (SM_SPAWN_NONE: before there was a process). */
int sm_spawn_start(const struct sm_spawn *spawn, pid_t *ret_pid, enum sm_spawn_stage *ret_stage);

#endif
