#include "machine/control_call.h"

#include "base/fd.h"
#include "machine/machine.h"
#include "machine/worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

void sm_call_init(struct sm_call *call)
{
	sm_message_init(&call->request);
	sm_message_init(&call->reply);
	sm_reader_init(&call->in, NULL, 0);
}

void sm_call_done(struct sm_call *call)
{
	sm_message_close_fds(&call->reply);
	sm_message_done(&call->request);
	sm_message_done(&call->reply);
}

int sm_call_make(struct sm_call *call, struct sm_control *control, uint32_t op, struct sm_error *err)
{
	if (sm_buf_failed(&call->request.body))
		return sm_error_sys(err, call->request.body.failed, "control request %u", op);
	pthread_mutex_lock(&control->lock);
	int code = control->worker
	               ? sm_worker_call(control->worker, op, &call->request, &call->reply, err)
	               : sm_request_serve(&control->machine, control->end_write, op, &call->request, &call->reply, err);
	pthread_mutex_unlock(&control->lock);
	sm_reader_init(&call->in, call->reply.body.data, call->reply.body.len);
	return code;
}

int sm_call_take_fd(struct sm_call *call)
{
	int fd = sm_message_get_fd(&call->in, &call->reply);
	for (size_t i = 0; i < call->reply.nfds; i++)
		if (call->reply.fds[i] == fd)
			call->reply.fds[i] = -1;
	call->in.failed |= fd < 0;
	return fd;
}

int sm_call_end(const struct sm_call *call, struct sm_error *err)
{
	return call->in.failed ? sm_error_set(err, EBADMSG, "the machine's reply is malformed") : 0;
}

int sm_call_simple(struct sm_control *control, uint32_t op, struct sm_error *err)
{
	struct sm_call call SM_CALL_CLEANUP;
	sm_call_init(&call);
	return sm_call_make(&call, control, op, err);
}

/* ---- open and close ----------------------------------------------------------------------------------------- */

static int build(struct sm_control *control, const struct sm_control_build *what, struct sm_error *err)
{
	struct sm_call call SM_CALL_CLEANUP;
	sm_call_init(&call);
	sm_request_put_build(&call.request, what);
	return sm_call_make(&call, control, SM_REQUEST_BUILD, err);
}

int sm_control_open(enum sm_control_transport transport, const struct sm_control_build *what,
                    struct sm_control **ret_control, struct sm_error *err)
{
	struct sm_control *control = calloc(1, sizeof *control);
	if (!control)
		return sm_error_set(err, ENOMEM, "control: out of memory");
	atomic_init(&control->references, 1);
	control->plan = *what->plan;
	for (unsigned i = 0; i < control->plan.nslots; i++)
		control->built_backed[i] = control->plan.slots[i].backed;
	pthread_mutex_init(&control->lock, NULL);
	pthread_mutex_init(&control->whole, NULL);

	int code = 0, ends[2] = { -1, -1 };
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		code = sm_error_sys(err, errno, "control: socketpair");
	control->end_read = ends[0];
	control->end_write = ends[1];
	if (code == 0 && transport == SM_CONTROL_WORKER) {
		code = sm_worker_start(control->end_write, &control->worker, err);
		sm_fd_close(&control->end_write); /* so that a dead worker reads as end of file */
	}
	if (code == 0)
		code = build(control, what, err);
	if (code < 0) {
		sm_control_close(control);
		return code;
	}
	*ret_control = control;
	return 0;
}

struct sm_control *sm_control_ref(struct sm_control *control)
{
	atomic_fetch_add(&control->references, 1);
	return control;
}

bool sm_control_shared(const struct sm_control *control)
{
	return atomic_load(&control->references) > 1;
}

void sm_control_close(struct sm_control *control)
{
	if (!control || atomic_fetch_sub(&control->references, 1) > 1)
		return;
	sm_worker_stop(control->worker);
	sm_machine_free(control->machine);
	sm_fd_close(&control->end_read);
	sm_fd_close(&control->end_write);
	pthread_mutex_destroy(&control->whole);
	pthread_mutex_destroy(&control->lock);
	free(control);
}

void sm_control_set_id(struct sm_control *control, const uint8_t id[16], uint32_t identity_us)
{
	pthread_mutex_lock(&control->lock);
	memcpy(control->id, id, sizeof control->id);
	control->identity_us = identity_us;
	pthread_mutex_unlock(&control->lock);
}

void sm_control_id(struct sm_control *control, uint8_t ret_id[16])
{
	pthread_mutex_lock(&control->lock);
	memcpy(ret_id, control->id, sizeof control->id);
	pthread_mutex_unlock(&control->lock);
}

/* ---- the end ------------------------------------------------------------------------------------------------ */

const char *sm_control_end_name(enum sm_control_end end)
{
	static const char *const names[] = {
		[SM_CONTROL_RUNNING] = "running", [SM_CONTROL_POWEROFF] = "poweroff",
		[SM_CONTROL_RESET] = "reset",     [SM_CONTROL_HALT] = "halt",
		[SM_CONTROL_PANIC] = "panic",     [SM_CONTROL_TRIPLE_FAULT] = "triple-fault",
		[SM_CONTROL_FAULT] = "fault",     [SM_CONTROL_WORKER_DIED] = "worker-died",
	};
	return end <= SM_CONTROL_WORKER_DIED ? names[end] : "?";
}

int sm_control_end_fd(const struct sm_control *control)
{
	return control->end_read;
}

enum sm_control_end sm_control_ended(struct sm_control *control, char detail[256])
{
	char message[4 + 256];
	uint32_t end;
	/* Only looked at, never taken, so that the descriptor stays readable. */
	ssize_t len = recv(control->end_read, message, sizeof message - 1, MSG_PEEK | MSG_DONTWAIT);
	detail[0] = '\0';
	if (len < 0)
		return SM_CONTROL_RUNNING;
	if (len < 4) {
		memcpy(detail, "worker process ended", sizeof "worker process ended");
		return SM_CONTROL_WORKER_DIED;
	}
	memcpy(&end, message, 4);
	memcpy(detail, message + 4, (size_t)len - 4);
	detail[len - 4] = '\0';
	return end <= SM_CONTROL_WORKER_DIED ? (enum sm_control_end)end : SM_CONTROL_FAULT;
}

const struct sm_plan *sm_control_plan(const struct sm_control *control)
{
	return &control->plan;
}

int sm_control_pid(const struct sm_control *control)
{
	return control->worker ? (int)sm_worker_pid(control->worker) : 0;
}
