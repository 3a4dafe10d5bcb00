/* From a plan and descriptors to a paused machine, and the way back.  Cold boot and restore differ in one step. */
#include "arch/arch.h"
#include "base/fd.h"
#include "machine/devices.h"
#include "machine/machine.h"
#include "machine/platform.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static uint32_t us_since(const struct timespec *start)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint32_t)((now.tv_sec - start->tv_sec) * 1000000 + (now.tv_nsec - start->tv_nsec) / 1000);
}

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

/* A slot set before the irqchip is cheaper. */
static int build_memory(struct sm_machine *machine, const struct sm_memory_source *ram, struct sm_error *err)
{
	int code = sm_memory_new(&machine->plan, ram, 0, &machine->memory, err);
	if (code < 0)
		return code;
	const struct sm_memory_region *regions;
	size_t count = sm_memory_regions(machine->memory, &regions);
	for (size_t i = 0; i < count; i++) {
		code = machine->hv->vm_map(machine->vm, regions[i].gpa, regions[i].hva, regions[i].bytes,
		                           ram ? SM_HV_MAP_LOG : 0, err);
		if (code < 0)
			return code;
	}
	return machine->hv->vm_irqchip_new(machine->vm, err);
}

static int build_device(struct sm_machine *machine, unsigned number, const struct sm_disk *disk, struct sm_error *err)
{
	const struct sm_plan_slot *slot = &machine->plan.slots[number];
	struct sm_machine_device *device = &machine->devices[number];

	device->irq_fd = sm_fd_event();
	if (device->irq_fd < 0)
		return sm_error_sys(err, device->irq_fd, "create an eventfd");
	const struct sm_virtio_env env = {
		.memory = machine->memory,
		.loop = machine->loop,
		.irq_fd = device->irq_fd,
	};
	int code = sm_devices_new(slot, &env, disk, &device->virtio, err);
	if (code < 0)
		return code;
	code = sm_machine_wire_irq(machine, device->irq_fd, slot->irq, err);
	if (code >= 0 && machine->caps.ioeventfd)
		code = machine->hv->vm_ioeventfd(machine->vm, sm_virtio_kick_fd(device->virtio),
		                                 slot->base + SM_VIRTIO_QUEUE_NOTIFY, err);
	return code < 0 ? code : sm_machine_add_device(machine, number, err);
}

static int build_devices(struct sm_machine *machine, const struct sm_control_build *build, struct sm_error *err)
{
	machine->generation_fd = sm_fd_event();
	if (machine->generation_fd < 0)
		return sm_error_sys(err, machine->generation_fd, "create an eventfd");
	int code = sm_machine_wire_irq(machine, machine->generation_fd, machine->plan.vmgenid_irq, err);
	if (code < 0)
		return code;
	code = sm_platform_new(machine, &machine->platform, err);
	if (code < 0)
		return code;

	unsigned disks = 0;
	for (unsigned i = 0; i < machine->plan.nslots; i++) {
		const struct sm_plan_slot *slot = &machine->plan.slots[i];
		bool is_disk = slot->backed && (slot->kind == SM_PLAN_BLOCK || slot->kind == SM_PLAN_VOLUME);
		if (is_disk && disks == build->ndisks)
			return sm_error_set(err, EINVAL, "%u disks given, the plan has more", build->ndisks);
		code = build_device(machine, i, is_disk ? &build->disks[disks++] : NULL, err);
		if (code < 0)
			return sm_error_context(err, "device %s %u", sm_plan_kind_name(slot->kind), slot->index);
	}
	if (disks != build->ndisks)
		return sm_error_set(err, EINVAL, "%u disks given, the plan has %u", build->ndisks, disks);
	return 0;
}

/* How the vCPUs come to their state: a call on each one's own thread, right after its creation. */
struct start {
	struct sm_hv_boot first, others; /* cold boot */
	struct sm_machine_state state;   /* restore */
};

static int boot_vcpu(struct sm_machine *machine, struct sm_hv_vcpu *hv_vcpu, void *arg, struct sm_error *err)
{
	return machine->hv->vcpu_boot(hv_vcpu, arg, err);
}

/* They are started together and waited for in order. */
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

static int map_state(struct sm_machine *machine, int state_fd, struct sm_error *err)
{
	struct stat st;
	if (fstat(state_fd, &st) < 0)
		return sm_error_sys(err, errno, "machine state");
	if (st.st_size == 0)
		return sm_error_set(err, EBADMSG, "machine state: the file is empty");
	void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, state_fd, 0);
	if (data == MAP_FAILED)
		return sm_error_sys(err, errno, "map the machine state");
	machine->origin_state = data;
	machine->origin_state_len = (size_t)st.st_size;
	return 0;
}

static int prepare(struct sm_machine *machine, const struct sm_control_build *build, struct start *start,
                   struct sm_error *err)
{
	if (build->state_fd < 0) {
		start->others.kind = SM_HV_BOOT_WAIT;
		return sm_arch_load(&machine->plan, machine->memory, build->kernel_fd, build->initrd_fd, &start->first,
		                    err);
	}
	int code = map_state(machine, build->state_fd, err);
	return code < 0 ? code
	                : sm_machine_load_begin(machine, machine->origin_state, machine->origin_state_len,
	                                        &start->state, err);
}

static int build_stages(struct sm_machine *machine, const struct sm_control_build *build, struct start *start,
                        struct sm_control_times *times, struct sm_error *err)
{
	struct timespec begin;
	clock_gettime(CLOCK_MONOTONIC, &begin);

	int code = check_host(machine, build->hv_fd, err);
	if (code < 0)
		return code;
	code = sm_loop_new(&machine->loop, err);
	if (code < 0)
		return code;
	code = machine->hv->vm_new(build->hv_fd, &machine->plan, &machine->vm, err);
	if (code < 0)
		return code;
	times->vm_us = us_since(&begin);

	code = build_memory(machine, build->ram, err);
	if (code < 0)
		return code;
	times->memory_us = us_since(&begin);

	code = build_devices(machine, build, err);
	if (code < 0)
		return code;
	times->devices_us = us_since(&begin);

	code = prepare(machine, build, start, err);
	if (code >= 0)
		code = build_vcpus(machine, start, err);
	if (code >= 0)
		code = sm_machine_watch_halt(machine, err);
	if (code < 0)
		return code;
	times->vcpus_us = us_since(&begin);

	if (machine->origin_state)
		code = sm_machine_load_finish(machine, &start->state, err);
	times->state_us = times->total_us = us_since(&begin);
	return code;
}

int sm_machine_build(const struct sm_control_build *build, int end_fd, struct sm_machine **ret_machine,
                     struct sm_control_times *ret_times, struct sm_error *err)
{
	struct sm_machine *machine = calloc(1, sizeof *machine);
	if (!machine)
		return sm_error_set(err, ENOMEM, "build: out of memory");
	machine->plan = *build->plan;
	machine->hv = sm_hv_host();
	machine->end_fd = end_fd;
	machine->generation_fd = machine->halt_timer = -1;
	for (unsigned i = 0; i < SM_PLAN_SLOTS_MAX; i++)
		machine->devices[i].irq_fd = -1;
	pthread_mutex_init(&machine->end_lock, NULL);

	struct sm_control_times times = { 0 };
	struct start start = { 0 };
	int code = build_stages(machine, build, &start, &times, err);
	if (code < 0) {
		sm_machine_free(machine);
		return sm_error_context(err, build->state_fd >= 0 ? "restore" : "build");
	}
	if (ret_times)
		*ret_times = times;
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
	sm_loop_remove(machine->halt_source);
	sm_machine_unwire_irqs(machine);
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
	sm_machine_capture_drop(machine);
	sm_memory_free(machine->memory);
	for (unsigned i = 0; i < machine->plan.nslots; i++)
		sm_fd_close(&machine->devices[i].irq_fd);
	sm_fd_close(&machine->generation_fd);
	if (machine->origin_state)
		munmap(machine->origin_state, machine->origin_state_len);
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
	sm_fd_event_raise(machine->generation_fd);
	return 0;
}
