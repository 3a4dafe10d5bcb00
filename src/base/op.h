/* A blocking piece of work on its own thread, with a descriptor that says when it is done:
 * begin / fd / finish / cancel, the shape of every blocking core call. */
#ifndef SM_BASE_OP_H
#define SM_BASE_OP_H

#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>

struct sm_op;

/* Runs on the operation's thread.  Returns 0 or -errno with *err set.  Long work looks at
 * sm_op_cancelled(op) now and then and ends with -ECANCELED. */
typedef int (*sm_op_run)(struct sm_op *op, void *arg, struct sm_error *err);

/* Start `run(arg)`.  `free_arg` (may be NULL) is called once, by sm_op_free, after the thread has ended. */
int sm_op_begin(sm_op_run run, void *arg, void (*free_arg)(void *arg), struct sm_op **ret_op, struct sm_error *err);
/* Readable (POLLIN) when the work is done.  Borrowed. */
int sm_op_fd(const struct sm_op *op);
/* Waits for the end; returns run's result and copies its error.  May be called once or more. */
int sm_op_finish(struct sm_op *op, struct sm_error *err);
/* Asks the work to end early; does not wait. */
void sm_op_cancel(struct sm_op *op);
bool sm_op_cancelled(const struct sm_op *op);
/* For libraries that take a flag to look at (curl's progress callback and the like). */
const atomic_bool *sm_op_cancel_flag(const struct sm_op *op);
/* A descriptor that is readable once the work is to end early: for the thread of the operation, which waits for it
 * beside its own.  Borrowed; -errno when there is none to be had. */
int sm_op_cancel_fd(struct sm_op *op);
void *sm_op_arg(const struct sm_op *op);
/* Cancels, waits, frees.  NULL is fine. */
void sm_op_free(struct sm_op *op);

#endif
