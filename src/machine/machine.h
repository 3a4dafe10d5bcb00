/* One machine: everything that lives between build and teardown.  Private to this room: above it there is control.h. */
#ifndef SM_MACHINE_MACHINE_H
#define SM_MACHINE_MACHINE_H

#include "base/line.h"
#include "base/loop.h"
#include "device/bus.h"
#include "device/ring.h"
#include "hv/hv.h"
#include "machine/control.h"
#include "machine/vcpu.h"
#include "memory/memory.h"
#include "plan/plan.h"
#include "virtio/virtio.h"

#include <pthread.h>
#include <stdatomic.h>

struct sm_capture;
struct sm_platform; /* the architecture's fixed devices: machine/platform.h */

struct sm_machine_device {
	struct sm_virtio *virtio;
	struct sm_memory_window window; /* fs: DAX; bytes 0: none */
};

struct sm_machine {
	struct sm_plan plan;
	const struct sm_hv *hv;
	struct sm_hv_caps caps;
	struct sm_hv_vm *vm;
	struct sm_memory *memory;
	struct sm_loop *loop;
	struct sm_bus mmio, pio;
	struct sm_platform *platform;
	struct sm_machine_device devices[SM_PLAN_SLOTS_MAX];
	bool backed_later[SM_PLAN_SLOTS_MAX]; /* which got something behind them since the build or the last reset */
	unsigned nvcpus;
	struct sm_vcpu *vcpus[SM_PLAN_VCPUS_MAX];
	bool running;
	bool restored; /* not yet resumed since */
	/* The state it was restored from, for the way back.  NULL: it was booted. */
	void *origin_state;
	size_t origin_state_len;
	struct sm_capture *capture; /* under way; NULL: none */

	int halt_timer; /* timerfd: looks now and then whether all vCPUs sleep for good */
	struct sm_loop_source *halt_source;
	uint64_t cpu_ns; /* of all vCPUs at the last look */
	uint64_t vcpu_ns[SM_PLAN_VCPUS_MAX];
	unsigned halted_probes; /* in a row, that found every vCPU halted */
	atomic_bool all_halted; /* what the last one found */

	int end_fd; /* socket; one end record is sent when the machine ends by itself.  Borrowed. */
	pthread_mutex_t end_lock;
	atomic_bool ended;
	struct sm_control_times times; /* but for the first run */
	uint64_t resumed_at_us;        /* CLOCK_MONOTONIC of the first resume */
	atomic_uint_fast64_t first_exit_us;
};

/* build.c: a paused machine, cold or restored.  Opens no path. */
int sm_machine_build(const struct sm_control_build *build, int end_fd, struct sm_machine **ret_machine,
                     struct sm_error *err);
void sm_machine_free(struct sm_machine *machine);

/* volumes.c: those that it has now, in slot order; their number. */
unsigned sm_machine_volumes(struct sm_machine *machine, struct sm_volume ret_volumes[SM_PLAN_SLOTS_MAX]);
/* A copy of each, as they are at the moment of finish, to files that hold nothing.  begin and finish while devices are
 * paused; a step at any time in between, until *ret_more is false.  They are to be exactly those that there are then:
 * -EAGAIN.  drop: whatever came of it. */
struct sm_machine_copy {
	unsigned count, at; /* the next to be copied, */
	uint64_t offset;    /* from here on */
	struct sm_control_volume list[SM_PLAN_SLOTS_MAX];
};
int sm_machine_copy_begin(struct sm_machine *machine, struct sm_machine_copy *copy, struct sm_error *err);
int sm_machine_copy_step(struct sm_machine *machine, struct sm_machine_copy *copy, uint64_t max_bytes, bool *ret_more,
                         struct sm_error *err);
int sm_machine_copy_finish(struct sm_machine *machine, struct sm_machine_copy *copy, struct sm_error *err);
void sm_machine_copy_drop(struct sm_machine *machine, struct sm_machine_copy *copy);

/* run.c */
int sm_machine_resume(struct sm_machine *machine, struct sm_error *err);
int sm_machine_pause(struct sm_machine *machine, struct sm_error *err);
/* Any thread; the first reason wins.  Parks the vCPUs without waiting. */
void sm_machine_end(struct sm_machine *machine, enum sm_control_end end, const char *detail);
void sm_machine_endf(struct sm_machine *machine, enum sm_control_end end, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A reset may be how a panicked kernel ends: the console's last words tell. */
void sm_machine_end_reset(struct sm_machine *machine, enum sm_control_end end, const char *detail);
/* After each served exit. */
void sm_machine_served(struct sm_machine *machine);

/* io.c: dispatch an access; false when nothing is there (reads as all ones). */
bool sm_machine_mmio(struct sm_machine *machine, struct sm_hv_exit *io);
bool sm_machine_pio(struct sm_machine *machine, struct sm_hv_exit *io);
/* Put the device of slot `number` on the bus. */
int sm_machine_add_device(struct sm_machine *machine, unsigned number, struct sm_error *err);
/* The loop between two handlers and no device inside a request: nothing but vCPUs touches RAM until it is resumed. */
void sm_machine_pause_devices(struct sm_machine *machine);
void sm_machine_resume_devices(struct sm_machine *machine);
/* A vCPU could not reach memory: whether a device has mended it. */
bool sm_machine_mend(struct sm_machine *machine);
bool sm_machine_has_windows(const struct sm_machine *machine);
/* Once its interrupt controllers and vCPUs are there, and as long as its VM is. */
struct sm_line sm_machine_line(struct sm_machine *machine, unsigned irq);

/* state.c: everything but RAM, while paused. */
#define SM_MACHINE_STATE_MAX (64u << 20)
int sm_machine_save(struct sm_machine *machine, struct sm_buf *out, struct sm_error *err);
/* Loading is in two halves around the creation of the vCPUs, each of which takes its own record on its own thread:
 * begin finds the records, sm_machine_load_vcpu is the vCPU's call with its record as argument, finish does the rest.
 */
struct sm_machine_state {
	struct sm_reader vcpus[SM_PLAN_VCPUS_MAX];
	struct sm_reader whole, rest;
	struct sm_control_times *times; /* finish adds its stages; begin sets it to NULL: nobody asks */
};
int sm_machine_load_begin(struct sm_machine *machine, const void *data, size_t len, struct sm_machine_state *ret_state,
                          struct sm_error *err);
int sm_machine_load_vcpu(struct sm_machine *machine, struct sm_hv_vcpu *hv_vcpu, void *reader, struct sm_error *err);
int sm_machine_load_finish(struct sm_machine *machine, struct sm_machine_state *state, struct sm_error *err);

/* capture.c: RAM and state into files.  begin; of a running machine, steps until there is no *ret_more; end.  A step is
 * a few milliseconds' work, so that others are served between two of them.  A failure ends the capture, too; the
 * machine runs on. */
int sm_machine_capture_begin(struct sm_machine *machine, int ram_fd, int state_fd,
                             const struct sm_control_volume *volumes, unsigned nvolumes, bool differing,
                             struct sm_error *err);
int sm_machine_capture_step(struct sm_machine *machine, bool *ret_more, struct sm_error *err);
/* ret_extents: filled when only what differs was asked for, else empty. */
int sm_machine_capture_end(struct sm_machine *machine, struct sm_control_captured *ret,
                           struct sm_memory_extents *ret_extents, struct sm_error *err);
void sm_machine_capture_drop(struct sm_machine *machine); /* none: fine */
/* reset.c: what the guest and the devices have written, for sm_memory_next_dirty.  While nothing of it runs. */
int sm_machine_harvest(struct sm_machine *machine, struct sm_error *err);

/* reset.c: a machine that was restored, as it was then: RAM, vCPUs, interrupt controllers, clock and devices; it is
 * paused.  After a failure it must not run any more. */
int sm_machine_reset(struct sm_machine *machine, struct sm_control_reset *ret, struct sm_error *err);

int sm_machine_set_generation(struct sm_machine *machine, const uint8_t guid[16], struct sm_error *err);

#endif
