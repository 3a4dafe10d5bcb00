/* A restored machine back to its snapshot, in place: no new VM, no new mapping, only what has changed. */
#include "base/time.h"
#include "machine/machine.h"
#include "machine/platform.h"

#include <errno.h>
#include <stdlib.h>

static int guest_dirty(void *arg, const struct sm_memory_region *region, uint64_t *bits, struct sm_error *err)
{
	struct sm_machine *machine = arg;
	return machine->hv->vm_dirty(machine->vm, region->gpa, bits, err);
}

int sm_machine_harvest(struct sm_machine *machine, struct sm_error *err)
{
	return sm_memory_harvest(machine->memory, guest_dirty, machine, err);
}

/* One after the other: to wake a vCPU's thread takes as long as to load the vCPU. */
static int load_vcpus(struct sm_machine *machine, struct sm_machine_state *state, struct sm_error *err)
{
	for (unsigned i = 0; i < machine->nvcpus; i++)
		if (sm_vcpu_call_now(machine->vcpus[i], sm_machine_load_vcpu, &state->vcpus[i], err) < 0)
			return sm_error_context(err, "vCPU %u", i);
	return 0;
}

static int put_back_ram(struct sm_machine *machine, struct sm_control_reset *ret, struct sm_error *err)
{
	uint64_t start = sm_time_us();
	struct sm_memory_rewound rewound;
	int code = sm_machine_harvest(machine, err);
	if (code >= 0)
		code = sm_memory_rewind(machine->memory, &rewound, err);
	if (code < 0)
		return code;
	ret->copied_bytes = rewound.copied_bytes;
	ret->dropped_bytes = rewound.dropped_bytes;
	ret->memory_us = (uint32_t)(sm_time_us() - start);
	return 0;
}

/* Everything stands still.  Devices let go of the guest's memory before it changes under them.  What KVM writes to RAM
 * as it loads a vCPU (its clock) is in the log for the next time. */
static int rewind_all(struct sm_machine *machine, struct sm_machine_state *state, struct sm_control_reset *ret,
                      struct sm_error *err)
{
	for (unsigned i = 0; i < machine->plan.nslots; i++) {
		sm_virtio_forget(machine->devices[i].virtio);
		machine->backed_later[i] = false;
	}
	sm_ring_clear(sm_platform_console(machine->platform));

	int code = sm_machine_load_begin(machine, machine->origin_state, machine->origin_state_len, state, err);
	if (code >= 0)
		code = put_back_ram(machine, ret, err);
	if (code >= 0)
		code = load_vcpus(machine, state, err);
	return code < 0 ? code : sm_machine_load_finish(machine, state, err);
}

int sm_machine_reset(struct sm_machine *machine, struct sm_control_reset *ret, struct sm_error *err)
{
	*ret = (struct sm_control_reset){ 0 };
	if (!machine->origin_state)
		return sm_error_set(err, EINVAL,
		                    "reset: the machine was booted: only one that was restored can go back");
	uint64_t start = sm_time_us();
	int code = sm_machine_pause(machine, err);
	if (code < 0)
		return sm_error_context(err, "reset");
	struct sm_machine_state *state = malloc(sizeof *state);
	if (!state)
		return sm_error_set(err, ENOMEM, "reset: out of memory");
	sm_machine_pause_devices(machine);
	ret->stop_us = (uint32_t)(sm_time_us() - start);
	code = rewind_all(machine, state, ret, err);
	sm_machine_resume_devices(machine);
	free(state);
	ret->total_us = (uint32_t)(sm_time_us() - start);
	machine->resumed_at_us = 0;
	atomic_store(&machine->first_exit_us, 0);
	if (code < 0) {
		sm_error_context(err, "reset");
		sm_machine_end(machine, SM_CONTROL_FAULT, "a reset that failed");
	}
	return code;
}
