/* A cgroup for each request's processes: what ends them all, wherever they have moved. */
#ifndef SM_GUEST_CGROUP_H
#define SM_GUEST_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

#define SM_CGROUP_ROOT "/sys/fs/cgroup"

/* Once, when cgroup 2 is mounted: hand the controllers down.  Those that the kernel lacks stay away. */
void sm_cgroup_enable(void);
/* Make number `id`, unless it is there.  -errno. */
int sm_cgroup_prepare(unsigned long id);
/* The same, and open its cgroup.procs, close-on-exec: a write of "0" moves the writer in.
 * Memory limits in bytes, UINT64_MAX: none.  -errno; nothing is left behind then. */
int sm_cgroup_new(unsigned long id, uint64_t memory_soft, uint64_t memory_hard, int *ret_procs_fd);
/* SIGKILL to every process in it. */
void sm_cgroup_kill(unsigned long id);
/* False when there are processes in it still. */
bool sm_cgroup_remove(unsigned long id);
/* Remove the empty ones for which `in_use` says no. */
void sm_cgroup_sweep(bool (*in_use)(void *arg, unsigned long id), void *arg, bool *ret_left);

#endif
