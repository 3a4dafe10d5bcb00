/* A machine in a process of its own, reached over a socketpair.  Private to this room.
 *
 * The worker is a plain fork: it has the program's text, gets the plan and descriptors as messages, closes every other
 * descriptor, and opens no path, so that it can be jailed. */
#ifndef SM_MACHINE_WORKER_H
#define SM_MACHINE_WORKER_H

#include "base/error.h"
#include "machine/request.h"

#include <stdint.h>
#include <sys/types.h>

struct sm_worker;

/* end_fd: passed to the machine in the worker (borrowed). */
int sm_worker_start(int end_fd, struct sm_worker **ret_worker, struct sm_error *err);
/* Send a request, wait for its reply.  Reply descriptors are new.  -EPIPE: the worker is gone. */
int sm_worker_call(struct sm_worker *worker, uint32_t op, const struct sm_message *request, struct sm_message *reply,
                   struct sm_error *err);
/* Hang up, wait for the process to end (killed after 10 s), reap it. */
void sm_worker_stop(struct sm_worker *worker);
pid_t sm_worker_pid(const struct sm_worker *worker);

#endif
