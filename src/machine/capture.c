/* A machine into files, while it runs: RAM first, in rounds of what the round before has missed, and at the end, with
 * everything standing still, what little is left, and the state. */
#include "base/fd.h"
#include "base/time.h"
#include "machine/machine.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define STEP_BYTES (16 * SM_MIB) /* of RAM written in one step: others wait that long */
#define LEFT_BYTES (256 * 1024)  /* so little is written faster than another round finds out what it is */
#define ROUNDS_MAX 30
/* A round that leaves more than this share of what it had to write is no progress: the guest writes as fast. */
#define SHRINK_NUMERATOR   3
#define SHRINK_DENOMINATOR 4

struct sm_capture {
	int ram_fd, state_fd; /* our own */
	bool live;            /* RAM is written while the guest runs, and its writes are logged */
	bool differing;
	struct sm_machine_copy volumes; /* descriptors are likewise our own */
	struct sm_memory_save *ram;
	uint64_t left; /* what this round began with */
	struct sm_control_captured result;
};

/* A booted machine is logged only while it is captured. */
static int set_log(struct sm_machine *machine, bool on, struct sm_error *err)
{
	const struct sm_memory_region *regions;
	size_t count = sm_memory_regions(machine->memory, &regions);
	int code = 0;
	for (size_t i = 0; i < count && !machine->origin_state; i++) {
		int one = machine->hv->vm_log(machine->vm, regions[i].gpa, on, code < 0 ? NULL : err);
		if (one < 0 && code == 0)
			code = one;
	}
	return code;
}

/* A device marks a page before it writes to it: with devices paused, what is marked is written. */
static int new_round(struct sm_machine *machine, uint64_t *ret_left, struct sm_error *err)
{
	sm_machine_pause_devices(machine);
	int code = sm_machine_harvest(machine, err);
	sm_machine_resume_devices(machine);
	return code < 0 ? code : sm_memory_save_round(machine->capture->ram, ret_left, err);
}

void sm_machine_capture_drop(struct sm_machine *machine)
{
	struct sm_capture *capture = machine->capture;
	if (!capture)
		return;
	if (capture->live)
		set_log(machine, false, NULL);
	sm_memory_save_free(capture->ram);
	sm_fd_close(&capture->ram_fd);
	sm_fd_close(&capture->state_fd);
	if (capture->volumes.count) {
		sm_machine_pause_devices(machine);
		sm_machine_copy_drop(machine, &capture->volumes);
		sm_machine_resume_devices(machine);
	}
	while (capture->volumes.count > 0)
		sm_fd_close(&capture->volumes.list[--capture->volumes.count].fd);
	free(capture);
	machine->capture = NULL;
}

static int take_volumes(struct sm_capture *capture, const struct sm_control_volume *volumes, unsigned nvolumes,
                        struct sm_error *err)
{
	for (unsigned i = 0; i < nvolumes; i++) {
		int fd = sm_fd_dup(volumes[i].fd);
		if (fd < 0)
			return sm_error_sys(err, fd, "volume %u: duplicate a descriptor", volumes[i].index);
		capture->volumes.list[capture->volumes.count++] = (struct sm_control_volume){ volumes[i].index, fd };
	}
	return 0;
}

static int begin(struct sm_machine *machine, int ram_fd, int state_fd, struct sm_error *err)
{
	struct sm_capture *capture = machine->capture;
	capture->ram_fd = sm_fd_dup(ram_fd);
	capture->state_fd = sm_fd_dup(state_fd);
	if (capture->ram_fd < 0 || capture->state_fd < 0)
		return sm_error_sys(err, capture->ram_fd < 0 ? capture->ram_fd : capture->state_fd,
		                    "duplicate a descriptor");
	int code = sm_memory_save_begin(machine->memory, capture->ram_fd, capture->differing, &capture->ram, err);
	if (code >= 0 && capture->volumes.count) {
		sm_machine_pause_devices(machine);
		code = sm_machine_copy_begin(machine, &capture->volumes, err);
		sm_machine_resume_devices(machine);
	}
	if (code < 0 || !machine->running)
		return code;
	capture->live = true;
	code = set_log(machine, true, err);
	return code < 0 ? code : new_round(machine, &capture->left, err);
}

int sm_machine_capture_begin(struct sm_machine *machine, int ram_fd, int state_fd,
                             const struct sm_control_volume *volumes, unsigned nvolumes, bool differing,
                             struct sm_error *err)
{
	if (machine->capture)
		return sm_error_set(err, EBUSY, "capture: another one is under way");
	if (differing && !machine->origin_state)
		return sm_error_set(err, EINVAL,
		                    "capture: the machine was booted: there is no snapshot to differ from");
	machine->capture = calloc(1, sizeof *machine->capture);
	if (!machine->capture)
		return sm_error_set(err, ENOMEM, "capture: out of memory");
	machine->capture->ram_fd = machine->capture->state_fd = -1;
	machine->capture->differing = differing;
	int code = take_volumes(machine->capture, volumes, nvolumes, err);
	if (code >= 0)
		code = begin(machine, ram_fd, state_fd, err);
	if (code < 0) {
		sm_machine_capture_drop(machine);
		return sm_error_context(err, "capture");
	}
	return 0;
}

static int step(struct sm_machine *machine, bool *ret_more, struct sm_error *err)
{
	struct sm_capture *capture = machine->capture;
	bool done, volumes;
	*ret_more = capture->live;
	if (!capture->live)
		return 0;
	/* Volumes first: guests write to RAM faster. */
	int code = sm_machine_copy_step(machine, &capture->volumes, STEP_BYTES, &volumes, err);
	if (code < 0 || volumes)
		return code;
	code = sm_memory_save_write(capture->ram, STEP_BYTES, &done, err);
	if (code < 0 || !done)
		return code;
	capture->result.rounds++;
	uint64_t left;
	code = new_round(machine, &left, err);
	*ret_more = left > LEFT_BYTES && capture->result.rounds < ROUNDS_MAX &&
	            left <= capture->left / SHRINK_DENOMINATOR * SHRINK_NUMERATOR;
	capture->left = left;
	return code;
}

int sm_machine_capture_step(struct sm_machine *machine, bool *ret_more, struct sm_error *err)
{
	if (!machine->capture)
		return sm_error_set(err, EINVAL, "capture: none is under way");
	int code = step(machine, ret_more, err);
	if (code < 0) {
		sm_machine_capture_drop(machine);
		return sm_error_context(err, "capture");
	}
	return 0;
}

/* Devices that are paused have no request half done. */
static int last_round(struct sm_machine *machine, struct sm_buf *state, struct sm_error *err)
{
	struct sm_capture *capture = machine->capture;
	bool done;
	sm_machine_pause_devices(machine);
	/* State first: saving it may write to RAM (the tables of an interrupt controller). */
	int code = sm_machine_save(machine, state, err);
	if (code >= 0 && (capture->live || machine->origin_state))
		code = sm_machine_harvest(machine, err);
	if (code >= 0)
		code = sm_memory_save_round(capture->ram, &capture->left, err);
	if (code >= 0)
		code = sm_memory_save_write(capture->ram, UINT64_MAX, &done, err);
	uint64_t start = sm_time_us();
	if (code >= 0)
		code = sm_machine_copy_finish(machine, &capture->volumes, err);
	capture->result.volumes_us = sm_time_us() - start;
	sm_machine_resume_devices(machine);
	return code;
}

static int end(struct sm_machine *machine, struct sm_buf *state, struct sm_error *err)
{
	struct sm_capture *capture = machine->capture;
	const bool running = machine->running;
	uint64_t start = sm_time_us();
	int code = running ? sm_machine_pause(machine, err) : 0;
	if (code >= 0)
		code = last_round(machine, state, err);
	if (running && !atomic_load(&machine->ended)) {
		int resumed = sm_machine_resume(machine, code < 0 ? NULL : err);
		if (resumed < 0 && code >= 0)
			code = resumed;
	}
	capture->result.rounds++;
	if (running)
		capture->result.pause_us = sm_time_us() - start;
	if (code < 0)
		return code;
	code = sm_fd_pwrite_full(capture->state_fd, state->data, state->len, 0);
	if (code < 0 || ftruncate(capture->state_fd, (off_t)state->len) < 0)
		return sm_error_sys(err, code < 0 ? code : errno, "write the machine state");
	return 0;
}

int sm_machine_capture_end(struct sm_machine *machine, struct sm_control_captured *ret,
                           struct sm_memory_extents *ret_extents, struct sm_error *err)
{
	if (!machine->capture)
		return sm_error_set(err, EINVAL, "capture: none is under way");
	struct sm_buf state SM_BUF_CLEANUP;
	sm_buf_init(&state, SM_MACHINE_STATE_MAX);
	int code = end(machine, &state, err);
	if (code >= 0) {
		struct sm_memory_saved saved;
		sm_memory_save_result(machine->capture->ram, &saved);
		*ret = machine->capture->result;
		ret->ram_bytes = saved.data_bytes;
		ret->written_bytes = saved.written_bytes;
		*ret_extents = saved.extents;
	}
	sm_machine_capture_drop(machine);
	return code < 0 ? sm_error_context(err, "capture") : 0;
}
