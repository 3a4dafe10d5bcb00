/* The table, the machine, its memory slots and its interrupts.  Source: Documentation/virt/kvm/api.rst. */
#include "hv_kvm/kvm.h"

#include "base/fd.h"
#include "hv_kvm/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

const struct sm_kvm_need sm_kvm_needs[] = {
	{ KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY" },
	{ KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD" },
	{ KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT" },
	{ KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE" },
	{ 0, NULL },
};

/* KVM_CHECK_EXTENSION says yes or no, or how many. */
static unsigned extension(int fd, int capability)
{
	int value = ioctl(fd, KVM_CHECK_EXTENSION, capability);
	return value > 0 ? (unsigned)value : 0;
}

static int check_needs(int device_fd, const struct sm_kvm_need *need, struct sm_error *err)
{
	for (; need->name; need++)
		if (!extension(device_fd, need->capability))
			return sm_error_set(err, ENOTSUP, "this host's KVM lacks %s", need->name);
	return 0;
}

static int kvm_caps(int device_fd, struct sm_hv_caps *ret_caps, struct sm_error *err)
{
	int version = ioctl(device_fd, KVM_GET_API_VERSION, 0);
	if (version < 0)
		return sm_error_set(err, ENOTSUP, "KVM_GET_API_VERSION: %s: not a KVM device", strerror(errno));
	if (version != KVM_API_VERSION)
		return sm_error_set(err, ENOTSUP, "KVM API version %d, %d is needed", version, KVM_API_VERSION);
	int code = check_needs(device_fd, sm_kvm_needs, err);
	if (code >= 0)
		code = check_needs(device_fd, sm_kvm_arch_needs, err);
	if (code < 0)
		return code;
	*ret_caps = (struct sm_hv_caps){
		.name = "kvm",
		.ioeventfd = true,
		.any_thread = true,
		.max_vcpus = extension(device_fd, KVM_CAP_MAX_VCPUS),
		.gpa_bits = sm_kvm_arch_gpa_bits(device_fd),
		.plain_boot = sm_kvm_arch_plain_boot,
	};
	return 0;
}

static void kvm_vm_free(struct sm_hv_vm *vm)
{
	if (!vm)
		return;
	sm_kvm_arch_vm_done(vm);
	sm_fd_close(&vm->fd);
	sm_fd_close(&vm->device_fd);
	pthread_mutex_destroy(&vm->lock);
	free(vm->slots);
	free(vm);
}

/* A signal can interrupt the creation of a VM (kernel threads are started for it); it is tried again. */
static int create_vm(int device_fd, const struct sm_plan *plan, struct sm_error *err)
{
	unsigned long type = 0;
	int fd, code = sm_kvm_arch_vm_type(device_fd, plan, &type, err);
	if (code < 0)
		return code;
	do
		fd = ioctl(device_fd, KVM_CREATE_VM, type);
	while (fd < 0 && errno == EINTR);
	return fd < 0 ? sm_error_sys(err, errno, "KVM_CREATE_VM") : fd;
}

static int kvm_vm_new(int device_fd, const struct sm_plan *plan, struct sm_hv_vm **ret_vm, struct sm_error *err)
{
	struct sm_hv_vm *vm = calloc(1, sizeof *vm);
	if (!vm)
		return sm_error_set(err, ENOMEM, "VM: out of memory");
	vm->fd = -1;
	vm->vcpus = plan->vcpus;
	memcpy(vm->cpu_disable, plan->cpu_disable, sizeof vm->cpu_disable);
	pthread_mutex_init(&vm->lock, NULL);

	int code = vm->device_fd = sm_fd_dup(device_fd);
	if (code < 0) {
		sm_error_sys(err, code, "duplicate the KVM descriptor");
		goto fail;
	}
	code = vm->fd = create_vm(vm->device_fd, plan, err);
	if (code < 0)
		goto fail;
	code = ioctl(vm->device_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (code < (int)sizeof(struct kvm_run)) {
		code = sm_error_sys(err, code < 0 ? errno : EPROTO, "KVM_GET_VCPU_MMAP_SIZE");
		goto fail;
	}
	vm->run_bytes = (size_t)code;
	code = sm_kvm_arch_vm_init(vm, err);
	if (code < 0)
		goto fail;
	*ret_vm = vm;
	return 0;
fail:
	kvm_vm_free(vm);
	return code;
}

/* ---- memory slots ------------------------------------------------------------------------------------------- */

static struct sm_kvm_slot *find_slot(struct sm_hv_vm *vm, uint64_t gpa)
{
	for (unsigned i = 0; i < vm->nslots; i++)
		if (vm->slots[i].bytes && vm->slots[i].gpa == gpa)
			return &vm->slots[i];
	return NULL;
}

static struct sm_kvm_slot *free_slot(struct sm_hv_vm *vm)
{
	for (unsigned i = 0; i < vm->nslots; i++)
		if (!vm->slots[i].bytes)
			return &vm->slots[i];
	struct sm_kvm_slot *slots = realloc(vm->slots, (vm->nslots + 1) * sizeof *slots);
	if (!slots)
		return NULL;
	vm->slots = slots;
	slots[vm->nslots] = (struct sm_kvm_slot){ 0 };
	return &slots[vm->nslots++];
}

static int set_slot(struct sm_hv_vm *vm, const struct sm_kvm_slot *slot, uint64_t gpa, void *hva, uint64_t bytes,
                    unsigned flags)
{
	struct kvm_userspace_memory_region region = {
		.slot = (uint32_t)(slot - vm->slots),
		.flags = (flags & SM_HV_MAP_READ_ONLY ? KVM_MEM_READONLY : 0) |
		         (flags & SM_HV_MAP_LOG ? KVM_MEM_LOG_DIRTY_PAGES : 0),
		.guest_phys_addr = gpa,
		.memory_size = bytes,
		.userspace_addr = (uintptr_t)hva,
	};
	return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? -errno : 0;
}

static int kvm_vm_map(struct sm_hv_vm *vm, uint64_t gpa, void *hva, uint64_t bytes, unsigned flags,
                      struct sm_error *err)
{
	if (!bytes)
		return sm_error_set(err, EINVAL, "memory slot at 0x%llx: no bytes", (unsigned long long)gpa);
	struct sm_kvm_slot *slot = free_slot(vm);
	if (!slot)
		return sm_error_set(err, ENOMEM, "memory slot: out of memory");
	int code = set_slot(vm, slot, gpa, hva, bytes, flags);
	if (code < 0)
		return sm_error_sys(err, code, "memory slot %u: 0x%llx bytes at 0x%llx", (unsigned)(slot - vm->slots),
		                    (unsigned long long)bytes, (unsigned long long)gpa);
	*slot = (struct sm_kvm_slot){ .gpa = gpa, .hva = hva, .bytes = bytes, .flags = flags };
	return 0;
}

static int kvm_vm_unmap(struct sm_hv_vm *vm, uint64_t gpa, struct sm_error *err)
{
	struct sm_kvm_slot *slot = find_slot(vm, gpa);
	if (!slot)
		return sm_error_set(err, ENOENT, "no memory slot at 0x%llx", (unsigned long long)gpa);
	int code = set_slot(vm, slot, gpa, NULL, 0, 0);
	if (code < 0)
		return sm_error_sys(err, code, "remove the memory slot at 0x%llx", (unsigned long long)gpa);
	slot->bytes = 0;
	return 0;
}

static int kvm_vm_dirty(struct sm_hv_vm *vm, uint64_t gpa, uint64_t *ret_bits, struct sm_error *err)
{
	struct sm_kvm_slot *slot = find_slot(vm, gpa);
	if (!slot)
		return sm_error_set(err, ENOENT, "no memory slot at 0x%llx", (unsigned long long)gpa);
	struct kvm_dirty_log log = { .slot = (uint32_t)(slot - vm->slots), .dirty_bitmap = ret_bits };
	if (ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log) < 0)
		return sm_error_sys(err, errno, "KVM_GET_DIRTY_LOG of the memory slot at 0x%llx",
		                    (unsigned long long)gpa);
	return 0;
}

/* KVM changes a slot's flags in place, with the vCPUs running. */
static int kvm_vm_log(struct sm_hv_vm *vm, uint64_t gpa, bool on, struct sm_error *err)
{
	struct sm_kvm_slot *slot = find_slot(vm, gpa);
	if (!slot)
		return sm_error_set(err, ENOENT, "no memory slot at 0x%llx", (unsigned long long)gpa);
	unsigned flags = on ? slot->flags | SM_HV_MAP_LOG : slot->flags & ~(unsigned)SM_HV_MAP_LOG;
	int code = flags == slot->flags ? 0 : set_slot(vm, slot, gpa, slot->hva, slot->bytes, flags);
	if (code < 0)
		return sm_error_sys(err, code, "turn the dirty log of the memory slot at 0x%llx %s",
		                    (unsigned long long)gpa, on ? "on" : "off");
	slot->flags = flags;
	return 0;
}

/* ---- interrupts and doorbells ------------------------------------------------------------------------------- */

static int kvm_vm_irq_set(struct sm_hv_vm *vm, unsigned irq, bool level)
{
	struct kvm_irq_level line = { .irq = sm_kvm_arch_irq_line(irq), .level = level };
	return ioctl(vm->fd, KVM_IRQ_LINE, &line) < 0 ? -errno : 0;
}

static int kvm_vm_ioeventfd(struct sm_hv_vm *vm, int event_fd, uint64_t gpa, struct sm_error *err)
{
	struct kvm_ioeventfd ioeventfd = { .addr = gpa, .len = 4, .fd = event_fd };
	if (ioctl(vm->fd, KVM_IOEVENTFD, &ioeventfd) < 0)
		return sm_error_sys(err, errno, "KVM_IOEVENTFD at 0x%llx", (unsigned long long)gpa);
	return 0;
}

const struct sm_hv sm_hv_kvm = {
	.caps = kvm_caps,
	.vm_new = kvm_vm_new,
	.vm_free = kvm_vm_free,
	.vm_map = kvm_vm_map,
	.vm_dirty = kvm_vm_dirty,
	.vm_log = kvm_vm_log,
	.vm_unmap = kvm_vm_unmap,
	.vm_irqchip_new = sm_kvm_arch_irqchip_new,
	.vm_irq_set = kvm_vm_irq_set,
	.vm_ioeventfd = kvm_vm_ioeventfd,
	.vm_save = sm_kvm_arch_vm_save,
	.vm_load = sm_kvm_arch_vm_load,
	.vm_clock_save = sm_kvm_arch_clock_save,
	.vm_clock_load = sm_kvm_arch_clock_load,
	.vcpu_new = sm_kvm_vcpu_new,
	.vcpu_free = sm_kvm_vcpu_free,
	.vcpu_boot = sm_kvm_arch_vcpu_boot,
	.vcpu_run = sm_kvm_vcpu_run,
	.vcpu_kick = sm_kvm_vcpu_kick,
	.vcpu_settle = sm_kvm_vcpu_settle,
	.vcpu_halted = sm_kvm_arch_vcpu_halted,
	.vcpu_where = sm_kvm_arch_vcpu_where,
	.vcpu_save = sm_kvm_arch_vcpu_save,
	.vcpu_load = sm_kvm_arch_vcpu_load,
	.vcpu_resumed = sm_kvm_arch_vcpu_resumed,
};
