#include "machine/control.h"

#include "base/fd.h"
#include "machine/machine.h"
#include "machine/request.h"
#include "machine/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct sm_control {
	atomic_int references;
	struct sm_plan plan;
	struct sm_machine *machine; /* direct transport */
	struct sm_worker *worker;   /* worker transport */
	pthread_mutex_t lock;       /* one request at a time */
	pthread_mutex_t whole;      /* above it: a capture is many requests, and no reset comes between them */
	int end_read, end_write;    /* socketpair; the machine sends one end record */
	uint8_t id[16];             /* under the lock, as the next */
	uint32_t identity_us;
};

/* The one place where the transports differ. */
static int call(struct sm_control *control, uint32_t op, struct sm_message *request, struct sm_message *reply,
                struct sm_error *err)
{
	if (sm_buf_failed(&request->body))
		return sm_error_sys(err, request->body.failed, "control request %u", op);
	pthread_mutex_lock(&control->lock);
	int code = control->worker ? sm_worker_call(control->worker, op, request, reply, err)
	                           : sm_request_serve(&control->machine, control->end_write, op, request, reply, err);
	pthread_mutex_unlock(&control->lock);
	return code;
}

/* A request without fields, with nothing in the reply. */
static int call_simple(struct sm_control *control, uint32_t op, struct sm_error *err)
{
	struct sm_message request, reply;
	sm_message_init(&request);
	sm_message_init(&reply);
	int code = call(control, op, &request, &reply, err);
	sm_message_done(&request);
	sm_message_done(&reply);
	return code;
}

/* ---- open and close ----------------------------------------------------------------------------------------- */

static int build(struct sm_control *control, const struct sm_control_build *what, struct sm_error *err)
{
	struct sm_message request, reply;
	sm_message_init(&request);
	sm_message_init(&reply);
	sm_request_put_build(&request, what);
	int code = call(control, SM_REQUEST_BUILD, &request, &reply, err);
	sm_message_done(&request);
	sm_message_done(&reply);
	return code;
}

int sm_control_open(enum sm_control_transport transport, const struct sm_control_build *what,
                    struct sm_control **ret_control, struct sm_error *err)
{
	struct sm_control *control = calloc(1, sizeof *control);
	if (!control)
		return sm_error_set(err, ENOMEM, "control: out of memory");
	atomic_init(&control->references, 1);
	control->plan = *what->plan;
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

/* ---- requests ----------------------------------------------------------------------------------------------- */

int sm_control_resume(struct sm_control *control, struct sm_error *err)
{
	return call_simple(control, SM_REQUEST_RESUME, err);
}

int sm_control_pause(struct sm_control *control, struct sm_error *err)
{
	return call_simple(control, SM_REQUEST_PAUSE, err);
}

static int capture_step(struct sm_control *control, bool *ret_more, struct sm_error *err)
{
	struct sm_message request, reply;
	sm_message_init(&request);
	sm_message_init(&reply);
	int code = call(control, SM_REQUEST_CAPTURE_STEP, &request, &reply, err);
	if (code >= 0) {
		struct sm_reader in;
		sm_reader_init(&in, reply.body.data, reply.body.len);
		*ret_more = sm_get_u8(&in) != 0;
	}
	sm_message_done(&request);
	sm_message_done(&reply);
	return code;
}

static int capture_end(struct sm_control *control, struct sm_control_captured *ret,
                       struct sm_memory_extents *ret_extents, struct sm_error *err)
{
	struct sm_message request, reply;
	sm_message_init(&request);
	sm_message_init(&reply);
	int code = call(control, SM_REQUEST_CAPTURE_END, &request, &reply, err);
	if (code >= 0) {
		struct sm_reader in;
		sm_reader_init(&in, reply.body.data, reply.body.len);
		ret->ram_bytes = sm_get_u64(&in);
		ret->written_bytes = sm_get_u64(&in);
		ret->pause_us = sm_get_u64(&in);
		ret->rounds = sm_get_u32(&in);
		if (ret_extents)
			code = sm_memory_extents_get(&in, control->plan.memory_mib * SM_MIB, ret_extents, err);
	}
	sm_message_done(&request);
	sm_message_done(&reply);
	return code;
}

int sm_control_capture(struct sm_control *control, int ram_fd, int state_fd, struct sm_control_captured *ret,
                       struct sm_memory_extents *ret_extents, struct sm_error *err)
{
	struct sm_message request, reply;
	sm_message_init(&request);
	sm_message_init(&reply);
	sm_message_put_fd(&request, ram_fd);
	sm_message_put_fd(&request, state_fd);
	sm_put_u8(&request.body, ret_extents != NULL);
	pthread_mutex_lock(&control->whole);
	int code = call(control, SM_REQUEST_CAPTURE, &request, &reply, err);
	for (bool more = true; code >= 0 && more;)
		code = capture_step(control, &more, err);
	if (code >= 0)
		code = capture_end(control, ret, ret_extents, err);
	pthread_mutex_unlock(&control->whole);
	sm_message_done(&request);
	sm_message_done(&reply);
	return code;
}

int sm_control_reset(struct sm_control *control, struct sm_control_reset *ret, struct sm_error *err)
{
	struct sm_message request, reply;
	sm_message_init(&request);
	sm_message_init(&reply);
	pthread_mutex_lock(&control->whole);
	int code = call(control, SM_REQUEST_RESET, &request, &reply, err);
	pthread_mutex_unlock(&control->whole);
	if (code >= 0) {
		struct sm_reader in;
		sm_reader_init(&in, reply.body.data, reply.body.len);
		ret->copied_bytes = sm_get_u64(&in);
		ret->dropped_bytes = sm_get_u64(&in);
		ret->stop_us = sm_get_u32(&in);
		ret->memory_us = sm_get_u32(&in);
		ret->total_us = sm_get_u32(&in);
	}
	sm_message_done(&request);
	sm_message_done(&reply);
	return code;
}

/* The machine's process opens no path: it is given its own pagemap. */
static int open_pagemap(const struct sm_control *control, struct sm_error *err)
{
	char path[64] = "/proc/self/pagemap";
	if (control->worker)
		snprintf(path, sizeof path, "/proc/%d/pagemap", (int)sm_worker_pid(control->worker));
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? sm_error_sys(err, errno, "%s", path) : fd;
}

int sm_control_touched(struct sm_control *control, struct sm_memory_extents *ret_extents, struct sm_error *err)
{
	int pagemap_fd SM_FD_CLEANUP = open_pagemap(control, err);
	if (pagemap_fd < 0)
		return pagemap_fd;
	struct sm_message request, reply;
	sm_message_init(&request);
	sm_message_init(&reply);
	sm_message_put_fd(&request, pagemap_fd);
	int code = call(control, SM_REQUEST_TOUCHED, &request, &reply, err);
	if (code >= 0) {
		struct sm_reader in;
		sm_reader_init(&in, reply.body.data, reply.body.len);
		code = sm_memory_extents_get(&in, control->plan.memory_mib * SM_MIB, ret_extents, err);
	}
	sm_message_done(&request);
	sm_message_done(&reply);
	return code;
}

static int call_stream(struct sm_control *control, uint32_t op, uint32_t port, int *ret_fd, struct sm_error *err)
{
	struct sm_message request, reply;
	sm_message_init(&request);
	sm_message_init(&reply);
	sm_put_u32(&request.body, port);
	int code = call(control, op, &request, &reply, err);
	if (code >= 0)
		*ret_fd = reply.fds[0];
	sm_message_done(&request);
	sm_message_done(&reply);
	return code;
}

int sm_control_connect(struct sm_control *control, uint32_t port, int *ret_fd, struct sm_error *err)
{
	return call_stream(control, SM_REQUEST_CONNECT, port, ret_fd, err);
}

int sm_control_listen(struct sm_control *control, uint32_t port, int *ret_fd, struct sm_error *err)
{
	return call_stream(control, SM_REQUEST_LISTEN, port, ret_fd, err);
}

int sm_control_set_generation(struct sm_control *control, const uint8_t guid[16], struct sm_error *err)
{
	struct sm_message request, reply;
	sm_message_init(&request);
	sm_message_init(&reply);
	sm_put_bytes(&request.body, guid, 16);
	int code = call(control, SM_REQUEST_GENERATION, &request, &reply, err);
	sm_message_done(&request);
	sm_message_done(&reply);
	return code;
}

int sm_control_set_balloon(struct sm_control *control, uint64_t mib, struct sm_error *err)
{
	struct sm_message request, reply;
	sm_message_init(&request);
	sm_message_init(&reply);
	sm_put_u64(&request.body, mib);
	int code = call(control, SM_REQUEST_BALLOON, &request, &reply, err);
	sm_message_done(&request);
	sm_message_done(&reply);
	return code;
}

int sm_control_console(struct sm_control *control, uint64_t *cursor, struct sm_buf *out, uint64_t *ret_lost,
                       struct sm_error *err)
{
	struct sm_message request, reply;
	sm_message_init(&request);
	sm_message_init(&reply);
	sm_put_u64(&request.body, *cursor);
	int code = call(control, SM_REQUEST_CONSOLE, &request, &reply, err);
	if (code >= 0) {
		struct sm_reader in;
		sm_reader_init(&in, reply.body.data, reply.body.len);
		*cursor = sm_get_u64(&in);
		*ret_lost = sm_get_u64(&in);
		size_t len = 0;
		const void *text = sm_get_bytes(&in, &len);
		code = sm_buf_append(out, text, len);
		if (code < 0)
			sm_error_sys(err, code, "console");
	}
	sm_message_done(&request);
	sm_message_done(&reply);
	return code;
}

int sm_control_devices(struct sm_control *control, struct sm_control_device **ret_devices, unsigned *ret_count,
                       struct sm_error *err)
{
	struct sm_message request, reply;
	sm_message_init(&request);
	sm_message_init(&reply);
	int code = call(control, SM_REQUEST_DEVICES, &request, &reply, err);
	if (code >= 0) {
		struct sm_reader in;
		sm_reader_init(&in, reply.body.data, reply.body.len);
		unsigned count = sm_get_u32(&in);
		struct sm_control_device *devices = NULL;
		if (count == control->plan.nslots)
			devices = calloc(count ? count : 1, sizeof *devices);
		if (!devices)
			code = sm_error_set(err, ENOMEM, "devices: out of memory");
		for (unsigned i = 0; devices && i < count; i++) {
			devices[i].slot = control->plan.slots[i];
			devices[i].requests = sm_get_u64(&in);
			devices[i].bytes = sm_get_u64(&in);
			devices[i].errors = sm_get_u64(&in);
			devices[i].kicks = sm_get_u64(&in);
			devices[i].interrupts = sm_get_u64(&in);
		}
		*ret_devices = devices;
		*ret_count = count;
	}
	sm_message_done(&request);
	sm_message_done(&reply);
	return code;
}

int sm_control_statistics(struct sm_control *control, struct sm_control_statistics *ret, struct sm_error *err)
{
	struct sm_message request, reply;
	sm_message_init(&request);
	sm_message_init(&reply);
	int code = call(control, SM_REQUEST_STATISTICS, &request, &reply, err);
	if (code >= 0) {
		struct sm_reader in;
		sm_reader_init(&in, reply.body.data, reply.body.len);
		ret->exits = sm_get_u64(&in);
		ret->mmio_exits = sm_get_u64(&in);
		ret->pio_exits = sm_get_u64(&in);
		ret->kicks = sm_get_u64(&in);
		ret->unhandled = sm_get_u64(&in);
		ret->balloon_mib = sm_get_u32(&in);
	}
	sm_message_done(&request);
	sm_message_done(&reply);
	return code;
}

int sm_control_times(struct sm_control *control, struct sm_control_times *ret, struct sm_error *err)
{
	struct sm_message request, reply;
	sm_message_init(&request);
	sm_message_init(&reply);
	int code = call(control, SM_REQUEST_TIMES, &request, &reply, err);
	if (code >= 0) {
		struct sm_reader in;
		sm_reader_init(&in, reply.body.data, reply.body.len);
		sm_get_exact(&in, ret, sizeof *ret);
		pthread_mutex_lock(&control->lock);
		ret->identity_us = control->identity_us;
		pthread_mutex_unlock(&control->lock);
	}
	sm_message_done(&request);
	sm_message_done(&reply);
	return code;
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
