/* The aarch64 machine: what KVM must offer, the making of vCPUs and GIC, the clock. */
#include "arch/aarch64/platform.h"
#include "base/fd.h"
#include "hv_kvm/aarch64.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define IPA_BITS_DEFAULT 40u /* of a KVM that does not say */
#define IPA_BITS_MIN     32u

const struct sm_kvm_need sm_kvm_arch_needs[] = {
	{ KVM_CAP_ONE_REG, "KVM_CAP_ONE_REG" },
	{ KVM_CAP_ARM_PSCI_0_2, "KVM_CAP_ARM_PSCI_0_2" },
	{ KVM_CAP_DEVICE_CTRL, "KVM_CAP_DEVICE_CTRL" },
	{ KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS" },
	{ 0, NULL },
};

unsigned sm_kvm_arch_gpa_bits(int device_fd)
{
	int bits = ioctl(device_fd, KVM_CHECK_EXTENSION, KVM_CAP_ARM_VM_IPA_SIZE);
	return bits > 0 ? (unsigned)bits : IPA_BITS_DEFAULT;
}

/* The smaller the guest's address space, the fewer levels its second translation has. */
int sm_kvm_arch_vm_type(int device_fd, const struct sm_plan *plan, unsigned long *ret_type, struct sm_error *err)
{
	uint64_t end = sm_plan_end(plan);
	unsigned limit = sm_kvm_arch_gpa_bits(device_fd), bits = IPA_BITS_MIN;
	while (bits < 63 && end > UINT64_C(1) << bits)
		bits++;
	if (bits > limit)
		return sm_error_set(
		    err, ENOTSUP,
		    "memory_mib: RAM and DAX end at 0x%llx, which takes %u bits of guest address, and KVM "
		    "here has %u",
		    (unsigned long long)end, bits, limit);
	bool can_choose = ioctl(device_fd, KVM_CHECK_EXTENSION, KVM_CAP_ARM_VM_IPA_SIZE) > 0;
	*ret_type = can_choose ? KVM_VM_TYPE_ARM_IPA_SIZE(bits) : 0;
	return 0;
}

int sm_kvm_arch_vm_init(struct sm_hv_vm *vm, struct sm_error *err)
{
	vm->arch = calloc(1, sizeof *vm->arch);
	if (!vm->arch)
		return sm_error_set(err, ENOMEM, "VM: out of memory");
	vm->arch->gic_fd = -1;
	vm->arch->has_offset = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_COUNTER_OFFSET) > 0;
	/* An access that KVM cannot take apart is then an exit that says so; without it KVM_RUN fails with ENOSYS. */
	struct kvm_enable_cap nisv = { .cap = KVM_CAP_ARM_NISV_TO_USER };
	(void)ioctl(vm->fd, KVM_ENABLE_CAP, &nisv);
	return sm_kvm_arm64_features(vm, err);
}

void sm_kvm_arch_vm_done(struct sm_hv_vm *vm)
{
	if (!vm->arch)
		return;
	for (unsigned i = 0; i < vm->arch->nvcpus; i++)
		sm_fd_close(&vm->arch->vcpu_fds[i]);
	sm_fd_close(&vm->arch->gic_fd);
	free(vm->arch);
	vm->arch = NULL;
}

/* ---- vCPUs and GIC -------------------------------------------------------------------------------------------- */

static int make_vcpus(struct sm_hv_vm *vm, struct sm_error *err)
{
	struct sm_kvm_arch_vm *arch = vm->arch;
	while (arch->nvcpus < vm->vcpus) {
		int fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)arch->nvcpus);
		if (fd < 0)
			return sm_error_sys(err, errno, "KVM_CREATE_VCPU %u", arch->nvcpus);
		arch->vcpu_fds[arch->nvcpus++] = fd;
	}
	for (unsigned i = 0; i < arch->nvcpus; i++) {
		struct kvm_vcpu_init init = arch->init;
		if (ioctl(arch->vcpu_fds[i], KVM_ARM_VCPU_INIT, &init) < 0)
			return sm_error_sys(err, errno, "KVM_ARM_VCPU_INIT of vCPU %u (features 0x%x)", i,
			                    arch->init.features[0]);
		int code = sm_kvm_arm64_get(arch->vcpu_fds[i], ARM64_SYS_REG(3, 0, 0, 0, 5), &arch->mpidr[i]);
		if (code < 0)
			return sm_error_sys(err, code, "read MPIDR_EL1 of vCPU %u", i);
	}
	return 0;
}

static int start_counter(struct sm_hv_vm *vm, struct sm_error *err);

int sm_kvm_arch_irqchip_new(struct sm_hv_vm *vm, struct sm_error *err)
{
	if (vm->vcpus > SM_PLAN_VCPUS_MAX)
		return sm_error_set(err, EINVAL, "vcpus: %u, %d is the most", vm->vcpus, SM_PLAN_VCPUS_MAX);
	int code = sm_kvm_arm64_gic_new(vm, err);
	if (code >= 0)
		code = make_vcpus(vm, err);
	if (code >= 0)
		code = sm_kvm_arm64_gic_start(vm, err);
	return code < 0 ? code : start_counter(vm, err);
}

uint32_t sm_kvm_arch_irq_line(unsigned irq)
{
	return KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | irq;
}

/* ---- clock ---------------------------------------------------------------------------------------------------- */

/* The guest's clock is its counter, one for all vCPUs: a single offset against the host's, which KVM keeps for the VM.
 * Registers that hold it are no part of a vCPU's state (each write would move the others' time), timers' deadlines are,
 * and mean the same again once the counter goes on from where it stopped.  Until then no vCPU runs, so no deadline has
 * been looked at.
 *
 * These calls go to the first vCPU's descriptor from the control thread: KVM allows that, and no vCPU runs then. */

static const char what_clock[] = "guest clock";
static const uint32_t tag_clock = SM_TAG('C', 'N', 'T', 'R');

static uint32_t frequency_here(void)
{
	uint64_t hz;
	__asm__ volatile("mrs %0, cntfrq_el0" : "=r"(hz));
	return (uint32_t)hz;
}

static int read_counter(struct sm_hv_vm *vm, uint64_t id, uint64_t *ret_value, struct sm_error *err)
{
	int code = sm_kvm_arm64_get(vm->arch->vcpu_fds[0], id, ret_value);
	return code < 0 ? sm_error_sys(err, code, "read the guest's counter") : 0;
}

/* Linux 6.4 and newer: physical and virtual counter show the same. */
static int set_by_offset(struct sm_hv_vm *vm, uint64_t value, struct sm_error *err)
{
	uint64_t physical;
	int code = read_counter(vm, KVM_REG_ARM_PTIMER_CNT, &physical, err);
	if (code < 0)
		return code;
	struct kvm_arm_counter_offset offset = { .counter_offset = physical + vm->arch->offset - value };
	if (ioctl(vm->fd, KVM_ARM_SET_COUNTER_OFFSET, &offset) < 0)
		return sm_error_sys(err, errno, "KVM_ARM_SET_COUNTER_OFFSET");
	vm->arch->offset = offset.counter_offset;
	return 0;
}

/* Older: the virtual counter alone; the physical one is the host's, whatever is saved or restored. */
static int set_by_register(struct sm_hv_vm *vm, uint64_t value, struct sm_error *err)
{
	int code = sm_kvm_arm64_set(vm->arch->vcpu_fds[0], KVM_REG_ARM_TIMER_CNT, &value);
	return code < 0 ? sm_error_sys(err, code, "set the guest's counter") : 0;
}

static int set_counter(struct sm_hv_vm *vm, uint64_t value, struct sm_error *err)
{
	return vm->arch->has_offset ? set_by_offset(vm, value, err) : set_by_register(vm, value, err);
}

/* KVM lets the virtual counter begin at 0 and the physical one not: from the start both are the same here, so that a
 * restore changes neither. */
static int start_counter(struct sm_hv_vm *vm, struct sm_error *err)
{
	return vm->arch->has_offset ? set_by_offset(vm, 0, err) : 0;
}

int sm_kvm_arch_clock_save(struct sm_hv_vm *vm, struct sm_buf *out, struct sm_error *err)
{
	uint64_t value;
	int code = read_counter(vm, KVM_REG_ARM_TIMER_CNT, &value, err);
	if (code < 0)
		return code;
	size_t record = sm_record_begin(out, tag_clock, SM_KVM_STATE_VERSION);
	sm_put_u64(out, value);
	sm_put_u32(out, frequency_here());
	sm_record_end(out, record);
	return 0;
}

int sm_kvm_arch_clock_load(struct sm_hv_vm *vm, struct sm_reader *in, struct sm_error *err)
{
	struct sm_reader record;
	int code = sm_record_open(in, tag_clock, SM_KVM_STATE_VERSION, what_clock, &record, err);
	if (code < 0)
		return code;
	uint64_t value = sm_get_u64(&record);
	uint32_t frequency = sm_get_u32(&record);
	code = sm_record_close(&record, what_clock, err);
	if (code < 0)
		return code;
	/* The guest reads it itself, and nothing can scale it. */
	if (frequency != frequency_here())
		return sm_error_set(err, ENOTSUP, "guest clock: saved at %u Hz, this host's counter has %u Hz",
		                    frequency, frequency_here());
	return set_counter(vm, value, err);
}
