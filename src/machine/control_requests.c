/* Each request of control.h: its fields, and those of the reply, as machine/request.c serves them. */
#include "machine/control_call.h"

#include "base/fd.h"
#include "machine/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

int sm_control_resume(struct sm_control *control, struct sm_error *err)
{
	return sm_call_simple(control, SM_REQUEST_RESUME, err);
}

int sm_control_pause(struct sm_control *control, struct sm_error *err)
{
	return sm_call_simple(control, SM_REQUEST_PAUSE, err);
}

static int capture_step(struct sm_control *control, bool *ret_more, struct sm_error *err)
{
	struct sm_call call SM_CALL_CLEANUP;
	sm_call_init(&call);
	int code = sm_call_make(&call, control, SM_REQUEST_CAPTURE_STEP, err);
	if (code < 0)
		return code;
	*ret_more = sm_get_u8(&call.in) != 0;
	return sm_call_end(&call, err);
}

static int capture_end(struct sm_control *control, struct sm_control_captured *ret,
                       struct sm_memory_extents *ret_extents, struct sm_error *err)
{
	struct sm_call call SM_CALL_CLEANUP;
	sm_call_init(&call);
	int code = sm_call_make(&call, control, SM_REQUEST_CAPTURE_END, err);
	if (code < 0)
		return code;
	ret->ram_bytes = sm_get_u64(&call.in);
	ret->written_bytes = sm_get_u64(&call.in);
	ret->pause_us = sm_get_u64(&call.in);
	ret->volumes_us = sm_get_u64(&call.in);
	ret->rounds = sm_get_u32(&call.in);
	code = sm_call_end(&call, err);
	if (code < 0 || !ret_extents)
		return code;
	return sm_memory_extents_get(&call.in, control->plan.memory_mib * SM_MIB, ret_extents, err);
}

int sm_control_capture(struct sm_control *control, int ram_fd, int state_fd, const struct sm_control_volume *volumes,
                       unsigned nvolumes, struct sm_control_captured *ret, struct sm_memory_extents *ret_extents,
                       struct sm_error *err)
{
	struct sm_call call SM_CALL_CLEANUP;
	sm_call_init(&call);
	sm_message_put_fd(&call.request, ram_fd);
	sm_message_put_fd(&call.request, state_fd);
	sm_put_u8(&call.request.body, ret_extents != NULL);
	sm_put_u32(&call.request.body, nvolumes);
	for (unsigned i = 0; i < nvolumes; i++) {
		sm_put_u32(&call.request.body, volumes[i].index);
		sm_message_put_fd(&call.request, volumes[i].fd);
	}
	pthread_mutex_lock(&control->whole);
	int code = sm_call_make(&call, control, SM_REQUEST_CAPTURE, err);
	for (bool more = true; code >= 0 && more;)
		code = capture_step(control, &more, err);
	if (code >= 0)
		code = capture_end(control, ret, ret_extents, err);
	pthread_mutex_unlock(&control->whole);
	return code;
}

int sm_control_volumes(struct sm_control *control, struct sm_volume ret_volumes[SM_PLAN_SLOTS_MAX], unsigned *ret_count,
                       struct sm_error *err)
{
	struct sm_call call SM_CALL_CLEANUP;
	sm_call_init(&call);
	*ret_count = 0;
	int code = sm_call_make(&call, control, SM_REQUEST_VOLUMES, err);
	if (code < 0)
		return code;
	for (uint32_t count = sm_get_u32(&call.in); *ret_count < count && *ret_count < SM_PLAN_SLOTS_MAX;) {
		struct sm_volume *volume = &ret_volumes[(*ret_count)++];
		*volume = (struct sm_volume){ .index = sm_get_u32(&call.in), .fd = -1, .overlay_fd = -1 };
		volume->readonly = sm_get_u8(&call.in) != 0;
		volume->as_writable = sm_get_u8(&call.in) != 0;
		volume->bytes = sm_get_u64(&call.in);
	}
	return sm_call_end(&call, err);
}

int sm_control_reset(struct sm_control *control, struct sm_control_reset *ret, struct sm_error *err)
{
	struct sm_call call SM_CALL_CLEANUP;
	sm_call_init(&call);
	pthread_mutex_lock(&control->whole);
	int code = sm_call_make(&call, control, SM_REQUEST_RESET, err);
	for (unsigned i = 0; i < control->plan.nslots; i++)
		control->plan.slots[i].backed = control->built_backed[i];
	pthread_mutex_unlock(&control->whole);
	if (code < 0)
		return code;
	ret->copied_bytes = sm_get_u64(&call.in);
	ret->dropped_bytes = sm_get_u64(&call.in);
	ret->stop_us = sm_get_u32(&call.in);
	ret->memory_us = sm_get_u32(&call.in);
	ret->total_us = sm_get_u32(&call.in);
	return sm_call_end(&call, err);
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

int sm_control_touched(struct sm_control *control, struct sm_memory_touched *ret, struct sm_error *err)
{
	int pagemap_fd SM_FD_CLEANUP = open_pagemap(control, err);
	if (pagemap_fd < 0)
		return pagemap_fd;
	struct sm_call call SM_CALL_CLEANUP;
	sm_call_init(&call);
	sm_message_put_fd(&call.request, pagemap_fd);
	int code = sm_call_make(&call, control, SM_REQUEST_TOUCHED, err);
	return code < 0 ? code : sm_memory_touched_get(&call.in, control->plan.memory_mib * SM_MIB, ret, err);
}

static int call_stream(struct sm_control *control, uint32_t op, uint32_t port, int *ret_fd, struct sm_error *err)
{
	struct sm_call call SM_CALL_CLEANUP;
	sm_call_init(&call);
	sm_put_u32(&call.request.body, port);
	int code = sm_call_make(&call, control, op, err);
	if (code < 0)
		return code;
	*ret_fd = sm_call_take_fd(&call);
	return sm_call_end(&call, err);
}

int sm_control_connect(struct sm_control *control, uint32_t port, int *ret_fd, struct sm_error *err)
{
	return call_stream(control, SM_REQUEST_CONNECT, port, ret_fd, err);
}

int sm_control_listen(struct sm_control *control, uint32_t port, int *ret_fd, struct sm_error *err)
{
	return call_stream(control, SM_REQUEST_LISTEN, port, ret_fd, err);
}

int sm_control_back(struct sm_control *control, enum sm_plan_kind kind, const struct sm_backing *backing,
                    unsigned *ret_index, struct sm_error *err)
{
	struct sm_call call SM_CALL_CLEANUP;
	sm_call_init(&call);
	sm_put_u32(&call.request.body, kind);
	sm_request_put_backing(&call.request, backing);
	/* No reset or capture between the answer and what the plan says. */
	pthread_mutex_lock(&control->whole);
	int code = sm_call_make(&call, control, SM_REQUEST_BACK, err);
	if (code >= 0) {
		uint32_t number = sm_get_u32(&call.in);
		call.in.failed |= number >= control->plan.nslots;
		code = sm_call_end(&call, err);
		if (code >= 0) {
			control->plan.slots[number].backed = true;
			*ret_index = control->plan.slots[number].index;
		}
	}
	pthread_mutex_unlock(&control->whole);
	return code;
}

int sm_control_set_generation(struct sm_control *control, const uint8_t guid[16], struct sm_error *err)
{
	struct sm_call call SM_CALL_CLEANUP;
	sm_call_init(&call);
	sm_put_bytes(&call.request.body, guid, 16);
	return sm_call_make(&call, control, SM_REQUEST_GENERATION, err);
}

int sm_control_set_balloon(struct sm_control *control, uint64_t mib, struct sm_error *err)
{
	struct sm_call call SM_CALL_CLEANUP;
	sm_call_init(&call);
	sm_put_u64(&call.request.body, mib);
	return sm_call_make(&call, control, SM_REQUEST_BALLOON, err);
}

int sm_control_console(struct sm_control *control, uint64_t *cursor, struct sm_buf *out, uint64_t *ret_lost,
                       struct sm_error *err)
{
	struct sm_call call SM_CALL_CLEANUP;
	sm_call_init(&call);
	sm_put_u64(&call.request.body, *cursor);
	int code = sm_call_make(&call, control, SM_REQUEST_CONSOLE, err);
	if (code < 0)
		return code;
	*cursor = sm_get_u64(&call.in);
	*ret_lost = sm_get_u64(&call.in);
	size_t len = 0;
	const void *text = sm_get_bytes(&call.in, &len);
	code = sm_call_end(&call, err);
	if (code < 0)
		return code;
	code = sm_buf_append(out, text, len);
	return code < 0 ? sm_error_sys(err, code, "console") : 0;
}

int sm_control_devices(struct sm_control *control, struct sm_control_device **ret_devices, unsigned *ret_count,
                       struct sm_error *err)
{
	struct sm_call call SM_CALL_CLEANUP;
	sm_call_init(&call);
	int code = sm_call_make(&call, control, SM_REQUEST_DEVICES, err);
	if (code < 0)
		return code;
	const unsigned count = control->plan.nslots;
	struct sm_control_device *devices = calloc(count ? count : 1, sizeof *devices);
	if (!devices)
		return sm_error_set(err, ENOMEM, "devices: out of memory");
	call.in.failed |= sm_get_u32(&call.in) != count;
	for (unsigned i = 0; i < count; i++) {
		devices[i].slot = control->plan.slots[i];
		devices[i].requests = sm_get_u64(&call.in);
		devices[i].bytes = sm_get_u64(&call.in);
		devices[i].errors = sm_get_u64(&call.in);
		devices[i].full = sm_get_u64(&call.in);
		devices[i].kicks = sm_get_u64(&call.in);
		devices[i].interrupts = sm_get_u64(&call.in);
		devices[i].has_fs = sm_get_u8(&call.in) != 0;
		if (devices[i].has_fs)
			sm_get_exact(&call.in, &devices[i].fs, sizeof devices[i].fs);
	}
	code = sm_call_end(&call, err);
	if (code < 0) {
		free(devices);
		return code;
	}
	*ret_devices = devices;
	*ret_count = count;
	return 0;
}

int sm_control_statistics(struct sm_control *control, struct sm_control_statistics *ret, struct sm_error *err)
{
	struct sm_call call SM_CALL_CLEANUP;
	sm_call_init(&call);
	int code = sm_call_make(&call, control, SM_REQUEST_STATISTICS, err);
	if (code < 0)
		return code;
	ret->exits = sm_get_u64(&call.in);
	ret->mmio_exits = sm_get_u64(&call.in);
	ret->pio_exits = sm_get_u64(&call.in);
	ret->kicks = sm_get_u64(&call.in);
	ret->unhandled = sm_get_u64(&call.in);
	ret->balloon_mib = sm_get_u32(&call.in);
	return sm_call_end(&call, err);
}

int sm_control_times(struct sm_control *control, struct sm_control_times *ret, struct sm_error *err)
{
	struct sm_call call SM_CALL_CLEANUP;
	sm_call_init(&call);
	int code = sm_call_make(&call, control, SM_REQUEST_TIMES, err);
	if (code < 0)
		return code;
	sm_get_exact(&call.in, ret, sizeof *ret);
	pthread_mutex_lock(&control->lock);
	ret->identity_us = control->identity_us;
	pthread_mutex_unlock(&control->lock);
	return sm_call_end(&call, err);
}
