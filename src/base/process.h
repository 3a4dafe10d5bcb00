/* Programs of the host, started as a user's shell would. */
#ifndef SM_BASE_PROCESS_H
#define SM_BASE_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

/* Starts argv[0], looked for in $PATH and then where an ordinary user's $PATH does not lead (/usr/sbin, /sbin), with
 * our environment, no signal blocked or ignored, and no descriptor but 0, 1 and 2, which are fds[0] to fds[2] (-1:
 * /dev/null; each above 2 otherwise).  own_group: it leads a process group, so that all of it can be killed.
 * 0, or -errno: -ENOENT when there is no such program.  Source: posix_spawn(3). */
int sm_process_start(const char *const *argv, const int fds[3], bool own_group, pid_t *ret_pid);

/* A descriptor above 2, where no dup2 of a child's hits it: *fd itself, or a copy in its place.  0 or -errno. */
int sm_process_lift(int *fd);

#endif
