/* Time: the TSC with the timers' deadlines in it, and KVM's clock.
 *
 * A vCPU's guest reads the host's TSC plus an offset, and the offsets of a machine are the same, or its clock steps
 * when a task changes cores and KVM's clock is no longer read from the TSC.  So what is saved is one moment, the first
 * vCPU's, and each one's distance from it (a guest may have moved one), not a value a vCPU: those are read one after
 * another, on threads that a busy host may hold up for seconds between them. (Linux:
 * Documentation/virt/kvm/devices/vcpu.rst, KVM_VCPU_TSC_OFFSET.)
 *
 * These calls go to all vCPUs from the control thread: KVM allows that, and no vCPU runs then. */
#include "hv_kvm/x86_64.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <x86intrin.h>

/* ---- a vCPU's part: the rate, and its timer's deadline -------------------------------------------------------- */

static const char what_tsc[] = "TSC";
static const uint32_t tag_tsc = SM_TAG('T', 'S', 'C', 'R');

/* Beyond this the guest's rate is set, where the processor can scale. */
#define RATE_PPM_SAME 250u
/* Where it cannot: the guest reads time from KVM's clock, which is right at any rate, and its timers are wrong by the
 * same small part.  Beyond this a guest made elsewhere is refused. */
#define RATE_PPM_MAX 50000u

/* The VM's descriptor answers without loading the vCPU; only newer kernels do (Linux 5.16). */
static int get_rate(struct sm_hv_vcpu *vcpu)
{
	int khz = ioctl(vcpu->vm->fd, KVM_GET_TSC_KHZ, 0);
	if (khz <= 0)
		khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
	return khz > 0 ? khz : 0;
}

static int set_rate(struct sm_hv_vcpu *vcpu, uint32_t saved, struct sm_error *err)
{
	uint32_t here = (uint32_t)get_rate(vcpu);
	if (!saved || !here)
		return 0;
	uint64_t ppm = (saved > here ? saved - here : here - saved) * UINT64_C(1000000) / here;
	if (ppm <= RATE_PPM_SAME)
		return 0;
	if (ioctl(vcpu->fd, KVM_SET_TSC_KHZ, (unsigned long)saved) >= 0) {
		vcpu->arch->scaled = true;
		return 0;
	}
	if (ppm <= RATE_PPM_MAX)
		return 0;
	return sm_error_set(err, ENOTSUP, "TSC rate: saved at %u kHz, this host has %u kHz and cannot scale", saved,
	                    here);
}

/* To be asked before the local APIC: a timer that fires between the two is then saved as both, and not as neither. */
int sm_kvm_x86_tsc_save(struct sm_hv_vcpu *vcpu, struct sm_buf *out, struct sm_error *err)
{
	struct sm_kvm_msr deadline = { .index = SM_KVM_MSR_TSC_DEADLINE };
	int code = sm_kvm_x86_msr_get(vcpu, &deadline, err);
	if (code < 0)
		return code;
	size_t record = sm_record_begin(out, tag_tsc, SM_KVM_STATE_VERSION);
	sm_put_u32(out, (uint32_t)get_rate(vcpu));
	sm_put_u64(out, deadline.value);
	sm_record_end(out, record);
	return 0;
}

int sm_kvm_x86_tsc_load(struct sm_hv_vcpu *vcpu, struct sm_reader *in, struct sm_error *err)
{
	struct sm_reader record;
	int code = sm_record_open(in, tag_tsc, SM_KVM_STATE_VERSION, what_tsc, &record, err);
	if (code < 0)
		return code;
	uint32_t rate = sm_get_u32(&record);
	vcpu->arch->deadline = sm_get_u64(&record);
	vcpu->arch->timer_unused = vcpu->untouched;
	code = sm_record_close(&record, what_tsc, err);
	return code < 0 ? code : set_rate(vcpu, rate, err);
}

/* ---- offsets -------------------------------------------------------------------------------------------------- */

/* -ENXIO: a host without the attribute (before Linux 5.16). */
static int move_offset(struct sm_hv_vcpu *vcpu, unsigned long call, uint64_t *offset)
{
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)offset,
	};
	return ioctl(vcpu->fd, call, &attr) < 0 ? -errno : 0;
}

/* 0 where the host does not tell. */
static uint64_t distance(struct sm_hv_vcpu *first, struct sm_hv_vcpu *vcpu)
{
	uint64_t from, to;
	bool known =
	    move_offset(first, KVM_GET_DEVICE_ATTR, &from) >= 0 && move_offset(vcpu, KVM_GET_DEVICE_ATTR, &to) >= 0;
	return known ? to - from : 0;
}

/* The offset that makes the vCPU's TSC `tsc` now.  At the host's own rate it needs no call, and each one that has to
 * load the vCPU is microseconds. */
static int find_offset(struct sm_hv_vcpu *vcpu, uint64_t tsc, uint64_t *ret_offset, struct sm_error *err)
{
	if (!vcpu->arch->scaled) {
		*ret_offset = tsc - __rdtsc();
		return 0;
	}
	struct sm_kvm_msr now = { .index = SM_KVM_MSR_TSC };
	int code = move_offset(vcpu, KVM_GET_DEVICE_ATTR, ret_offset);
	if (code < 0)
		return code == -ENXIO ? 0 : sm_error_sys(err, code, "read the TSC's offset");
	code = sm_kvm_x86_msr_get(vcpu, &now, err);
	*ret_offset += tsc - now.value;
	return code;
}

/* Where there are no offsets, the value itself is written to all vCPUs, which KVM takes as the wish for one offset when
 * the writes are near enough in time. */
static int set_tsc(struct sm_hv_vcpu *vcpu, uint64_t offset, uint64_t tsc, struct sm_error *err)
{
	int code = move_offset(vcpu, KVM_SET_DEVICE_ATTR, &offset);
	if (code == -ENXIO)
		return sm_kvm_x86_msrs_set(vcpu, &(struct sm_kvm_msr){ SM_KVM_MSR_TSC, tsc }, 1, err);
	return code < 0 ? sm_error_sys(err, code, "set the TSC's offset") : 0;
}

/* Each vCPU's TSC is `tsc` and its distance now, and its timer is armed by it. */
static int set_tscs(struct sm_kvm_arch_vm *arch, uint64_t tsc, const uint64_t *distances, struct sm_error *err)
{
	uint64_t offset = 0;
	int code = find_offset(arch->vcpus[0], tsc, &offset, err);
	for (unsigned i = 0; i < SM_PLAN_VCPUS_MAX && code >= 0; i++) {
		struct sm_hv_vcpu *vcpu = arch->vcpus[i];
		if (!vcpu)
			continue;
		code = set_tsc(vcpu, offset + distances[i], tsc + distances[i], err);
		const struct sm_kvm_msr deadline = { SM_KVM_MSR_TSC_DEADLINE, vcpu->arch->deadline };
		if (code >= 0 && (deadline.value || !vcpu->arch->timer_unused))
			code = sm_kvm_x86_msrs_set(vcpu, &deadline, 1, err);
		if (code < 0)
			sm_error_context(err, "vCPU %u", i);
	}
	return code;
}

/* ---- the machine's part --------------------------------------------------------------------------------------- */

static const char what_clock[] = "guest clock";
static const uint32_t tag_clock = SM_TAG('K', 'C', 'L', 'K');

/* KVM's clock first, and last when it is set: if anything comes between, a timer fires early, which is harmless. */
int sm_kvm_arch_clock_save(struct sm_hv_vm *vm, struct sm_buf *out, struct sm_error *err)
{
	struct sm_kvm_arch_vm *arch = vm->arch;
	if (!arch->vcpus[0])
		return sm_error_set(err, EINVAL, "guest clock: no vCPU has been made");
	struct kvm_clock_data clock = { 0 };
	if (ioctl(vm->fd, KVM_GET_CLOCK, &clock) < 0)
		return sm_error_sys(err, errno, "KVM_GET_CLOCK");
	struct sm_kvm_msr tsc = { .index = SM_KVM_MSR_TSC };
	int code = sm_kvm_x86_msr_get(arch->vcpus[0], &tsc, err);
	if (code < 0)
		return code;

	size_t record = sm_record_begin(out, tag_clock, SM_KVM_STATE_VERSION);
	sm_put_u64(out, clock.clock);
	sm_put_u64(out, tsc.value);
	for (unsigned i = 0; i < vm->vcpus; i++)
		sm_put_u64(out, arch->vcpus[i] ? distance(arch->vcpus[0], arch->vcpus[i]) : 0);
	sm_record_end(out, record);
	return 0;
}

/* No flags: the guest's time goes on from where it stopped; what passed meanwhile is told through its agent. */
int sm_kvm_arch_clock_load(struct sm_hv_vm *vm, struct sm_reader *in, struct sm_error *err)
{
	struct sm_reader record;
	int code = sm_record_open(in, tag_clock, SM_KVM_STATE_VERSION, what_clock, &record, err);
	if (code < 0)
		return code;
	struct kvm_clock_data clock = { .clock = sm_get_u64(&record) };
	uint64_t tsc = sm_get_u64(&record), distances[SM_PLAN_VCPUS_MAX] = { 0 };
	for (unsigned i = 0; i < vm->vcpus && i < SM_PLAN_VCPUS_MAX; i++)
		distances[i] = sm_get_u64(&record);
	code = sm_record_close(&record, what_clock, err);
	if (code >= 0 && !vm->arch->vcpus[0])
		code = sm_error_set(err, EINVAL, "guest clock: no vCPU has been made");
	if (code >= 0)
		code = set_tscs(vm->arch, tsc, distances, err);
	if (code >= 0 && ioctl(vm->fd, KVM_SET_CLOCK, &clock) < 0)
		code = sm_error_sys(err, errno, "KVM_SET_CLOCK");
	return code;
}

/* A guest without KVM's clock has nothing to be told (EINVAL).  Once it has run it may have begun to use it. */
void sm_kvm_arch_vcpu_resumed(struct sm_hv_vcpu *vcpu)
{
	if (!vcpu->arch->clock_unused)
		ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, 0);
	vcpu->arch->clock_unused = false;
}
