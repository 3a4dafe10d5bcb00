/* From a plan and descriptors to a paused machine, and the way back.  Cold boot and restore differ in one step. */
#include "arch/arch.h"
#include "base/fd.h"
#include "base/time.h"
#include "machine/devices.h"
#include "machine/machine.h"
#include "machine/platform.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int check_host(struct sm_machine *machine, int hv_fd, struct sm_error *err)
{
	int code = machine->hv->caps(hv_fd, &machine->caps, err);
	if (code < 0)
		return code;
	const struct sm_plan *plan = &machine->plan;
	if (plan->arch != sm_plan_arch_host())
		return sm_error_set(err, ENOEXEC, "the machine is %s, this host is %s", sm_plan_arch_name(plan->arch),
		                    sm_plan_arch_name(sm_plan_arch_host()));
	if (plan->vcpus > machine->caps.max_vcpus)
		return sm_error_set(err, ENOTSUP, "vcpus: %u, and %s here gives at most %u", plan->vcpus,
		                    machine->caps.name, machine->caps.max_vcpus);
	uint64_t end = sm_plan_end(plan);
	if (machine->caps.gpa_bits < 64 && end > UINT64_C(1) << machine->caps.gpa_bits)
		return sm_error_set(err, ENOTSUP, "memory_mib: RAM and DAX end at 0x%llx, the host has %u address bits",
		                    (unsigned long long)end, machine->caps.gpa_bits);
	return 0;
}

static const struct sm_volume *volume_of(const struct sm_control_build *build, unsigned index)
{
	for (unsigned i = 0; i < build->nvolumes; i++)
		if (build->volumes[i].index == index)
			return &build->volumes[i];
	return NULL;
}

/* What is behind each slot, by its number: what there is of each kind, in slot order. */
static int assign_backings(const struct sm_machine *machine, const struct sm_control_build *build,
                           struct sm_backing backings[SM_PLAN_SLOTS_MAX], struct sm_error *err)
{
	unsigned disks = 0, volumes = 0, mounts = 0;
	for (unsigned i = 0; i < machine->plan.nslots; i++) {
		const struct sm_plan_slot *slot = &machine->plan.slots[i];
		backings[i] = (struct sm_backing){ 0 };
		if (slot->kind == SM_PLAN_VOLUME) {
			backings[i].volume = volume_of(build, slot->index);
			volumes += backings[i].volume != NULL;
			if (slot->backed && !backings[i].volume)
				return sm_error_set(err, EINVAL, "no volume %u is given", slot->index);
		} else if (slot->backed && slot->kind == SM_PLAN_BLOCK) {
			if (disks == build->ndisks)
				return sm_error_set(err, EINVAL, "%u disks given, the plan has more", build->ndisks);
			backings[i].disk = &build->disks[disks++];
		} else if (slot->backed && slot->kind == SM_PLAN_FS) {
			if (mounts == build->nmounts)
				return sm_error_set(err, EINVAL, "%u mounts given, the plan has more", build->nmounts);
			backings[i].mount = &build->mounts[mounts++];
		}
	}
	if (disks != build->ndisks)
		return sm_error_set(err, EINVAL, "%u disks given, the plan has %u", build->ndisks, disks);
	if (volumes != build->nvolumes)
		return sm_error_set(err, EINVAL, "%u volumes given, and slots for %u of them", build->nvolumes,
		                    volumes);
	if (mounts != build->nmounts)
		return sm_error_set(err, EINVAL, "%u mounts given, the plan has %u", build->nmounts, mounts);
	return 0;
}

/* What the guest writes there is a file's, not RAM's: no log. */
static int build_window(struct sm_machine *machine, unsigned number, const struct sm_mount *mount, struct sm_error *err)
{
	const struct sm_plan_range *dax = &machine->plan.slots[number].dax;
	struct sm_memory_window *window = &machine->devices[number].window;
	if (!dax->bytes || (mount && !mount->dax))
		return 0;
	int code = sm_memory_add_window(machine->memory, dax->gpa, dax->bytes, window, err);
	return code < 0 ? code
	                : machine->hv->vm_map(machine->vm, window->gpa, window->hva, window->bytes,
	                                      mount && mount->readonly ? SM_HV_MAP_READ_ONLY : 0, err);
}

/* A slot set before the irqchip is cheaper. */
static int build_slots(struct sm_machine *machine, const struct sm_backing *backings, bool log, struct sm_error *err)
{
	const struct sm_memory_region *regions;
	size_t count = sm_memory_regions(machine->memory, &regions);
	int code = 0;
	for (size_t i = 0; i < count && code >= 0; i++)
		code = machine->hv->vm_map(machine->vm, regions[i].gpa, regions[i].hva, regions[i].bytes,
		                           log ? SM_HV_MAP_LOG : 0, err);
	for (unsigned i = 0; i < machine->plan.nslots && code >= 0; i++)
		code = build_window(machine, i, backings[i].mount, err);
	return code;
}

static int build_device(struct sm_machine *machine, unsigned number, const struct sm_backing *backing,
                        struct sm_error *err)
{
	const struct sm_plan_slot *slot = &machine->plan.slots[number];
	struct sm_machine_device *device = &machine->devices[number];

	const struct sm_virtio_env env = {
		.memory = machine->memory,
		.loop = machine->loop,
		.line = sm_machine_line(machine, slot->irq),
		.window = device->window,
	};
	int code = sm_devices_new(slot, &env, backing, &device->virtio, err);
	if (code < 0)
		return code;
	if (machine->caps.ioeventfd)
		code = machine->hv->vm_ioeventfd(machine->vm, sm_virtio_kick_fd(device->virtio),
		                                 slot->base + SM_VIRTIO_QUEUE_NOTIFY, err);
	return code < 0 ? code : sm_machine_add_device(machine, number, err);
}

static int build_devices(struct sm_machine *machine, const struct sm_backing *backings, struct sm_error *err)
{
	int code = sm_loop_new(&machine->loop, err);
	if (code >= 0)
		code = sm_platform_new(machine, &machine->platform, err);
	if (code < 0)
		return code;
	for (unsigned i = 0; i < machine->plan.nslots; i++) {
		const struct sm_plan_slot *slot = &machine->plan.slots[i];
		code = build_device(machine, i, &backings[i], err);
		if (code < 0)
			return sm_error_context(err, "device %s %u", sm_plan_kind_name(slot->kind), slot->index);
	}
	return 0;
}

/* How the vCPUs come to their state: a call to each, right after its creation. */
struct start {
	struct sm_hv_boot first, others; /* cold boot */
	struct sm_machine_state state;   /* restore */
};

static int boot_vcpu(struct sm_machine *machine, struct sm_hv_vcpu *hv_vcpu, void *arg, struct sm_error *err)
{
	return machine->hv->vcpu_boot(hv_vcpu, arg, err);
}

/* Where each has its own thread for that, they are started together and waited for in order. */
static int build_vcpus(struct sm_machine *machine, struct start *start, struct sm_error *err)
{
	int code = 0;
	for (unsigned i = 0; i < machine->plan.vcpus && code == 0; i++) {
		if (machine->origin_state)
			code = sm_vcpu_new(machine, i, sm_machine_load_vcpu, &start->state.vcpus[i], &machine->vcpus[i],
			                   err);
		else
			code = sm_vcpu_new(machine, i, boot_vcpu, i == 0 ? &start->first : &start->others,
			                   &machine->vcpus[i], err);
		if (code == 0)
			machine->nvcpus++;
	}
	for (unsigned i = 0; i < machine->nvcpus; i++) {
		struct sm_error first;
		int one = sm_vcpu_call_wait(machine->vcpus[i], &first);
		if (one < 0 && code == 0)
			code = sm_error_pass(err, &first, "vCPU %u", i);
	}
	return code;
}

/* Read and not mapped: nobody can cut it off below a machine then. */
static int read_state(struct sm_machine *machine, int state_fd, struct sm_error *err)
{
	struct stat st;
	if (fstat(state_fd, &st) < 0)
		return sm_error_sys(err, errno, "machine state");
	if (st.st_size == 0)
		return sm_error_set(err, EBADMSG, "machine state: the file is empty");
	if (st.st_size > SM_MACHINE_STATE_MAX)
		return sm_error_set(err, EBADMSG, "machine state: %lld bytes, at most %u", (long long)st.st_size,
		                    SM_MACHINE_STATE_MAX);
	machine->origin_state_len = (size_t)st.st_size;
	machine->origin_state = malloc(machine->origin_state_len);
	if (!machine->origin_state)
		return sm_error_set(err, ENOMEM, "machine state: out of memory");
	int code = sm_fd_pread_full(state_fd, machine->origin_state, machine->origin_state_len, 0);
	return code < 0 ? sm_error_sys(err, code, "machine state") : 0;
}

static int prepare(struct sm_machine *machine, const struct sm_control_build *build, struct start *start,
                   struct sm_error *err)
{
	if (build->state_fd < 0) {
		start->others.kind = SM_HV_BOOT_WAIT;
		return sm_arch_load(&machine->plan, machine->memory, build->kernel_fd, build->initrd_fd, &start->first,
		                    err);
	}
	int code = read_state(machine, build->state_fd, err);
	return code < 0 ? code
	                : sm_machine_load_begin(machine, machine->origin_state, machine->origin_state_len,
	                                        &start->state, err);
}

static int build_stages(struct sm_machine *machine, const struct sm_control_build *build, struct start *start,
                        struct sm_control_times *times, struct sm_error *err)
{
	struct sm_backing backings[SM_PLAN_SLOTS_MAX];
	uint64_t since = sm_time_us();

	int code = check_host(machine, build->hv_fd, err);
	if (code >= 0)
		code = assign_backings(machine, build, backings, err);
	if (code >= 0)
		code = machine->hv->vm_new(build->hv_fd, &machine->plan, &machine->vm, err);
	if (code < 0)
		return code;
	sm_time_lap(&since, &times->vm_us);

	code = sm_memory_new(&machine->plan, build->ram, 0, &machine->memory, err);
	if (code >= 0)
		code = prepare(machine, build, start, err);
	if (code < 0)
		return code;
	sm_time_lap(&since, &times->map_us);

	code = build_slots(machine, backings, build->ram != NULL, err);
	if (code < 0)
		return code;
	sm_time_lap(&since, &times->memslot_us);

	code = machine->hv->vm_irqchip_new(machine->vm, err);
	if (code < 0)
		return code;
	sm_time_lap(&since, &times->irqchip_us);

	code = build_devices(machine, backings, err);
	if (code < 0)
		return code;
	sm_time_lap(&since, &times->devices_us);

	code = build_vcpus(machine, start, err);
	if (code < 0)
		return code;
	sm_time_lap(&since, &times->vcpus_us);

	start->state.times = times;
	return machine->origin_state ? sm_machine_load_finish(machine, &start->state, err) : 0;
}

int sm_machine_build(const struct sm_control_build *build, int end_fd, struct sm_machine **ret_machine,
                     struct sm_error *err)
{
	struct sm_machine *machine = calloc(1, sizeof *machine);
	if (!machine)
		return sm_error_set(err, ENOMEM, "build: out of memory");
	machine->plan = *build->plan;
	machine->hv = sm_hv_host();
	machine->end_fd = end_fd;
	machine->halt_timer = -1;
	pthread_mutex_init(&machine->end_lock, NULL);

	struct start start = { 0 };
	uint64_t begin = sm_time_us();
	int code = build_stages(machine, build, &start, &machine->times, err);
	if (code < 0) {
		sm_machine_free(machine);
		return sm_error_context(err, build->state_fd >= 0 ? "restore" : "build");
	}
	machine->times.total_us = (uint32_t)(sm_time_us() - begin);
	*ret_machine = machine;
	return 0;
}

/* Devices' loop work first, then vCPUs, and only then RAM. */
void sm_machine_free(struct sm_machine *machine)
{
	if (!machine)
		return;
	for (unsigned i = 0; i < machine->nvcpus; i++)
		sm_vcpu_park(machine->vcpus[i]);
	for (unsigned i = 0; i < machine->nvcpus; i++)
		sm_vcpu_park_wait(machine->vcpus[i]);
	/* Of a worker whose parent has died it may be under way; it needs all that follows. */
	sm_machine_capture_drop(machine);
	sm_loop_remove(machine->halt_source);
	for (unsigned i = 0; i < machine->plan.nslots; i++)
		sm_virtio_free(machine->devices[i].virtio);
	sm_loop_free(machine->loop);
	for (unsigned i = 0; i < machine->nvcpus; i++)
		sm_vcpu_free(machine->vcpus[i]);
	if (machine->vm)
		machine->hv->vm_free(machine->vm);
	sm_platform_free(machine->platform);
	sm_bus_done(&machine->mmio);
	sm_bus_done(&machine->pio);
	sm_memory_free(machine->memory);
	free(machine->origin_state);
	sm_fd_close(&machine->halt_timer);
	pthread_mutex_destroy(&machine->end_lock);
	free(machine);
}

int sm_machine_set_generation(struct sm_machine *machine, const uint8_t guid[16], struct sm_error *err)
{
	int code = sm_memory_write(machine->memory, machine->plan.vmgenid_gpa, guid, 16);
	if (code < 0)
		return sm_error_sys(err, code, "generation ID at 0x%llx",
		                    (unsigned long long)machine->plan.vmgenid_gpa);
	const struct sm_line event_device = sm_machine_line(machine, machine->plan.vmgenid_irq);
	sm_line_raise(&event_device);
	return 0;
}
