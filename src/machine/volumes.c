/* The volumes among a machine's devices. */
#include "machine/machine.h"

#include <errno.h>

unsigned sm_machine_volumes(struct sm_machine *machine, struct sm_volume ret_volumes[SM_PLAN_SLOTS_MAX])
{
	unsigned count = 0;
	for (unsigned i = 0; i < machine->plan.nslots; i++) {
		const struct sm_plan_slot *slot = &machine->plan.slots[i];
		if (slot->kind != SM_PLAN_VOLUME ||
		    !sm_virtio_volume_get(machine->devices[i].virtio, &ret_volumes[count]))
			continue;
		ret_volumes[count++].index = slot->index;
	}
	return count;
}

static struct sm_virtio *device_of(struct sm_machine *machine, unsigned index)
{
	const struct sm_plan_slot *slot = sm_plan_find(&machine->plan, SM_PLAN_VOLUME, index);
	return slot ? machine->devices[slot - machine->plan.slots].virtio : NULL;
}

int sm_machine_copy_begin(struct sm_machine *machine, struct sm_machine_copy *copy, struct sm_error *err)
{
	copy->at = 0;
	copy->offset = 0;
	for (unsigned i = 0; i < copy->count; i++) {
		const unsigned index = copy->list[i].index;
		struct sm_virtio *device = device_of(machine, index);
		int code = device ? sm_virtio_volume_track(device, err)
		                  : sm_error_set(err, EINVAL, "the machine has no such slot");
		if (code < 0)
			return sm_error_context(err, "volume %u", index);
	}
	return 0;
}

int sm_machine_copy_step(struct sm_machine *machine, struct sm_machine_copy *copy, uint64_t max_bytes, bool *ret_more,
                         struct sm_error *err)
{
	if (copy->at < copy->count) {
		const struct sm_control_volume *volume = &copy->list[copy->at];
		struct sm_virtio *device = device_of(machine, volume->index);
		struct sm_volume now;
		if (sm_virtio_volume_copy(device, volume->fd, &copy->offset, max_bytes, err) < 0)
			return sm_error_context(err, "volume %u", volume->index);
		if (sm_virtio_volume_get(device, &now) && copy->offset == now.bytes) {
			copy->at++;
			copy->offset = 0;
		}
	}
	*ret_more = copy->at < copy->count;
	return 0;
}

int sm_machine_copy_finish(struct sm_machine *machine, struct sm_machine_copy *copy, struct sm_error *err)
{
	struct sm_volume present[SM_PLAN_SLOTS_MAX];
	if (sm_machine_volumes(machine, present) != copy->count)
		return sm_error_set(err, EAGAIN, "the machine has got another volume meanwhile");
	for (bool more = true; more;) {
		int code = sm_machine_copy_step(machine, copy, UINT64_MAX, &more, err);
		if (code < 0)
			return code;
	}
	for (unsigned i = 0; i < copy->count; i++) {
		uint64_t bytes;
		struct sm_virtio *device = device_of(machine, copy->list[i].index);
		if (sm_virtio_volume_finish(device, copy->list[i].fd, &bytes, err) < 0)
			return sm_error_context(err, "volume %u", copy->list[i].index);
	}
	return 0;
}

void sm_machine_copy_drop(struct sm_machine *machine, struct sm_machine_copy *copy)
{
	for (unsigned i = 0; i < copy->count; i++) {
		struct sm_virtio *device = device_of(machine, copy->list[i].index);
		if (device)
			sm_virtio_volume_untrack(device);
	}
}
