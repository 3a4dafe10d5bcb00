#include "base/op.h"

#include "base/fd.h"
#include "base/thread.h"

#include <errno.h>
#include <stdlib.h>

struct sm_op {
	pthread_t thread;
	int done_fd;
	bool joined;
	atomic_bool cancelled;
	atomic_int cancel_fd; /* -1: nobody has asked for it */
	sm_op_run run;
	void *arg;
	void (*free_arg)(void *arg);
	int result; /* result and err belong to the thread until it is joined */
	struct sm_error err;
};

static void *op_main(void *arg)
{
	struct sm_op *op = arg;
	op->result = op->run(op, op->arg, &op->err);
	sm_fd_event_raise(op->done_fd);
	return NULL;
}

int sm_op_begin(sm_op_run run, void *arg, void (*free_arg)(void *arg), struct sm_op **ret_op, struct sm_error *err)
{
	*ret_op = NULL;
	struct sm_op *op = calloc(1, sizeof *op);
	if (!op)
		return sm_error_sys(err, ENOMEM, "start operation");
	op->run = run;
	op->arg = arg;
	op->free_arg = free_arg;
	atomic_init(&op->cancelled, false);
	atomic_init(&op->cancel_fd, -1);
	op->done_fd = sm_fd_event();
	if (op->done_fd < 0) {
		int code = sm_error_sys(err, op->done_fd, "start operation: eventfd");
		free(op);
		return code;
	}
	int code = sm_thread_start(&op->thread, "sm-op", op_main, op);
	if (code < 0) {
		sm_fd_close(&op->done_fd);
		free(op);
		return sm_error_sys(err, code, "start operation: thread");
	}
	*ret_op = op;
	return 0;
}

int sm_op_fd(const struct sm_op *op)
{
	return op->done_fd;
}

int sm_op_finish(struct sm_op *op, struct sm_error *err)
{
	if (!op->joined) {
		pthread_join(op->thread, NULL);
		op->joined = true;
	}
	if (op->result < 0 && err) {
		/* A run that failed without a message still names its errno. */
		if (op->err.code)
			*err = op->err;
		else
			sm_error_sys(err, op->result, "operation");
	}
	return op->result;
}

void sm_op_cancel(struct sm_op *op)
{
	atomic_store(&op->cancelled, true);
	int fd = atomic_load(&op->cancel_fd);
	if (fd >= 0)
		sm_fd_event_raise(fd);
}

/* Either the cancel sees the descriptor, or this sees the flag. */
int sm_op_cancel_fd(struct sm_op *op)
{
	int fd = atomic_load(&op->cancel_fd);
	if (fd >= 0)
		return fd;
	fd = sm_fd_event();
	if (fd < 0)
		return fd;
	atomic_store(&op->cancel_fd, fd);
	if (sm_op_cancelled(op))
		sm_fd_event_raise(fd);
	return fd;
}

bool sm_op_cancelled(const struct sm_op *op)
{
	return atomic_load(&op->cancelled);
}

const atomic_bool *sm_op_cancel_flag(const struct sm_op *op)
{
	return &op->cancelled;
}

void *sm_op_arg(const struct sm_op *op)
{
	return op->arg;
}

void sm_op_free(struct sm_op *op)
{
	if (!op)
		return;
	sm_op_cancel(op);
	sm_op_finish(op, NULL);
	if (op->free_arg)
		op->free_arg(op->arg);
	sm_fd_close(&op->done_fd);
	int cancel_fd = atomic_load(&op->cancel_fd);
	sm_fd_close(&cancel_fd);
	free(op);
}
