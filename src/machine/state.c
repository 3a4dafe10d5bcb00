/* State as records, and its reverse: vCPUs, interrupt controllers, clock, platform and virtio devices. */
#include "base/time.h"
#include "machine/machine.h"
#include "machine/platform.h"

#include <errno.h>

#define STATE_VERSION 1
static const uint32_t tag_machine = SM_TAG('M', 'A', 'C', 'H');
static const uint32_t tag_vcpu = SM_TAG('V', 'C', 'P', 'U');
static const uint32_t tag_vm = SM_TAG('V', 'M', 'I', 'C');
static const uint32_t tag_platform = SM_TAG('P', 'L', 'A', 'T');
static const uint32_t tag_clock = SM_TAG('C', 'L', 'O', 'K');
static const uint32_t tag_device = SM_TAG('V', 'D', 'E', 'V');

/* ---- save --------------------------------------------------------------------------------------------------- */

static int save_vcpu(struct sm_machine *machine, struct sm_hv_vcpu *hv_vcpu, void *arg, struct sm_error *err)
{
	struct sm_buf *out = arg;
	return machine->hv->vcpu_save(hv_vcpu, out, err);
}

static int save_vcpus(struct sm_machine *machine, struct sm_buf *out, struct sm_error *err)
{
	struct sm_buf each[SM_PLAN_VCPUS_MAX];
	int code = 0;
	for (unsigned i = 0; i < machine->nvcpus; i++) {
		sm_buf_init(&each[i], SM_MACHINE_STATE_MAX);
		sm_vcpu_call_begin(machine->vcpus[i], save_vcpu, &each[i]);
	}
	for (unsigned i = 0; i < machine->nvcpus; i++) {
		struct sm_error first;
		int one = sm_vcpu_call_wait(machine->vcpus[i], &first);
		if (one < 0 && code == 0)
			code = sm_error_pass(err, &first, "vCPU %u", i);
		size_t record = sm_record_begin(out, tag_vcpu, STATE_VERSION);
		sm_put_u32(out, i);
		sm_buf_append(out, each[i].data, each[i].len);
		sm_record_end(out, record);
		if (sm_buf_failed(&each[i]) && code == 0)
			code = sm_error_sys(err, each[i].failed, "vCPU %u: state", i);
		sm_buf_done(&each[i]);
	}
	return code;
}

static int save_devices(struct sm_machine *machine, struct sm_buf *out, struct sm_error *err)
{
	for (unsigned i = 0; i < machine->plan.nslots; i++) {
		const struct sm_plan_slot *slot = &machine->plan.slots[i];
		size_t record = sm_record_begin(out, tag_device, STATE_VERSION);
		sm_put_u32(out, slot->kind);
		sm_put_u32(out, slot->index);
		if (sm_virtio_save(machine->devices[i].virtio, out, err) < 0)
			return sm_error_context(err, "device %s %u", sm_plan_kind_name(slot->kind), slot->index);
		sm_record_end(out, record);
	}
	return 0;
}

int sm_machine_save(struct sm_machine *machine, struct sm_buf *out, struct sm_error *err)
{
	size_t whole = sm_record_begin(out, tag_machine, STATE_VERSION);
	int code = save_vcpus(machine, out, err);
	if (code < 0)
		return code;

	size_t record = sm_record_begin(out, tag_vm, STATE_VERSION);
	code = machine->hv->vm_save(machine->vm, out, err);
	if (code < 0)
		return code;
	sm_record_end(out, record);

	record = sm_record_begin(out, tag_clock, STATE_VERSION);
	code = machine->hv->vm_clock_save(machine->vm, out, err);
	if (code < 0)
		return code;
	sm_record_end(out, record);

	record = sm_record_begin(out, tag_platform, STATE_VERSION);
	code = sm_platform_save(machine->platform, out, err);
	if (code < 0)
		return code;
	sm_record_end(out, record);

	code = save_devices(machine, out, err);
	if (code < 0)
		return code;
	sm_record_end(out, whole);
	return sm_buf_failed(out) ? sm_error_sys(err, out->failed, "machine state") : 0;
}

/* ---- load --------------------------------------------------------------------------------------------------- */

int sm_machine_load_vcpu(struct sm_machine *machine, struct sm_hv_vcpu *hv_vcpu, void *reader, struct sm_error *err)
{
	struct sm_reader *in = reader;
	int code = machine->hv->vcpu_load(hv_vcpu, in, err);
	return code < 0 ? code : sm_record_close(in, "vCPU state", err);
}

int sm_machine_load_begin(struct sm_machine *machine, const void *data, size_t len, struct sm_machine_state *ret_state,
                          struct sm_error *err)
{
	ret_state->times = NULL;
	sm_reader_init(&ret_state->whole, data, len);
	int code =
	    sm_record_open(&ret_state->whole, tag_machine, STATE_VERSION, "machine state", &ret_state->rest, err);
	for (unsigned i = 0; i < machine->plan.vcpus && code >= 0; i++) {
		struct sm_reader *one = &ret_state->vcpus[i];
		code = sm_record_open(&ret_state->rest, tag_vcpu, STATE_VERSION, "vCPU state", one, err);
		if (code < 0)
			return sm_error_context(err, "vCPU %u of %u", i, machine->plan.vcpus);
		if (sm_get_u32(one) != i)
			return sm_error_set(err, EBADMSG, "vCPU state: number %u is out of order", i);
	}
	return code;
}

static int load_devices(struct sm_machine *machine, struct sm_reader *in, struct sm_error *err)
{
	for (unsigned i = 0; i < machine->plan.nslots; i++) {
		const struct sm_plan_slot *slot = &machine->plan.slots[i];
		struct sm_reader record;
		int code = sm_record_open(in, tag_device, STATE_VERSION, "device state", &record, err);
		if (code < 0)
			return code;
		uint32_t kind = sm_get_u32(&record), index = sm_get_u32(&record);
		if (kind != (uint32_t)slot->kind || index != slot->index)
			return sm_error_set(err, EBADMSG, "device state: slot %u holds %s %u, the plan says %s %u", i,
			                    sm_plan_kind_name(kind), index, sm_plan_kind_name(slot->kind), slot->index);
		code = sm_virtio_load(machine->devices[i].virtio, &record, err);
		if (code >= 0)
			code = sm_record_close(&record, "device state", err);
		if (code < 0)
			return sm_error_context(err, "device %s %u", sm_plan_kind_name(slot->kind), slot->index);
	}
	return 0;
}

typedef int (*loader)(struct sm_machine *machine, struct sm_reader *record, struct sm_error *err);

static int load_vm(struct sm_machine *machine, struct sm_reader *record, struct sm_error *err)
{
	return machine->hv->vm_load(machine->vm, record, err);
}

static int load_clock(struct sm_machine *machine, struct sm_reader *record, struct sm_error *err)
{
	return machine->hv->vm_clock_load(machine->vm, record, err);
}

static int load_platform(struct sm_machine *machine, struct sm_reader *record, struct sm_error *err)
{
	return sm_platform_load(machine->platform, record, err);
}

int sm_machine_load_finish(struct sm_machine *machine, struct sm_machine_state *state, struct sm_error *err)
{
	struct sm_control_times unused, *times = state->times ? state->times : &unused;
	uint64_t since = sm_time_us();
	const struct {
		uint32_t tag;
		const char *what;
		loader load;
		uint32_t *stage_us;
	} records[] = {
		{ tag_vm, "interrupt controller state", load_vm, &times->irqchip_us },
		{ tag_clock, "clock state", load_clock, &times->vcpus_us },
		{ tag_platform, "platform state", load_platform, &times->devices_us },
	};
	for (size_t i = 0; i < sizeof records / sizeof *records; i++) {
		struct sm_reader record;
		int code = sm_record_open(&state->rest, records[i].tag, STATE_VERSION, records[i].what, &record, err);
		if (code >= 0)
			code = records[i].load(machine, &record, err);
		if (code >= 0)
			code = sm_record_close(&record, records[i].what, err);
		if (code < 0)
			return code;
		sm_time_lap(&since, records[i].stage_us);
	}
	int code = load_devices(machine, &state->rest, err);
	if (code >= 0)
		code = sm_record_close(&state->rest, "machine state", err);
	if (code >= 0)
		code = sm_record_close(&state->whole, "machine state", err);
	if (code < 0)
		return code;
	for (unsigned i = 0; i < machine->plan.nslots; i++)
		sm_virtio_restored(machine->devices[i].virtio);
	sm_time_lap(&since, &times->devices_us);
	machine->restored = true;
	return 0;
}
