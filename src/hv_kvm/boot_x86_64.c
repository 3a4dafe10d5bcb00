/* How a vCPU starts, and its life as far as it is x86_64's own. */
#include "arch/x86_64/platform.h"
#include "hv_kvm/x86_64.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define CR0_PE   (UINT64_C(1) << 0)
#define CR0_ET   (UINT64_C(1) << 4)
#define CR0_PG   (UINT64_C(1) << 31)
#define CR4_PAE  (UINT64_C(1) << 5)
#define EFER_LME (UINT64_C(1) << 8)
#define EFER_LMA (UINT64_C(1) << 10)
#define RFLAGS_1 UINT64_C(2) /* the bit that is always set */

#define TYPE_CODE 11u /* execute, read, accessed */
#define TYPE_DATA 3u  /* read, write, accessed */
#define TYPE_TSS  11u /* 32-bit, busy */

#define PVH_CS 0x08u
#define PVH_DS 0x10u

#define MSR_IA32_MISC_ENABLE    0x1a0u
#define MISC_ENABLE_FAST_STRING UINT64_C(1)
#define MSR_MTRR_DEF_TYPE       0x2ffu
#define MTRR_ENABLE_WRITE_BACK  UINT64_C(0x806)

const enum sm_hv_boot_kind sm_kvm_arch_plain_boot = SM_HV_BOOT_PVH;

int sm_kvm_arch_vcpu_open(struct sm_hv_vm *vm, unsigned index, struct sm_error *err)
{
	int fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)index);
	return fd < 0 ? sm_error_sys(err, errno, "KVM_CREATE_VCPU %u", index) : fd;
}

int sm_kvm_arch_vcpu_init(struct sm_hv_vcpu *vcpu, struct sm_error *err)
{
	if (vcpu->index >= SM_PLAN_VCPUS_MAX)
		return sm_error_set(err, EINVAL, "vCPU %u: %d is the most", vcpu->index, SM_PLAN_VCPUS_MAX - 1);
	vcpu->arch = calloc(1, sizeof *vcpu->arch);
	if (!vcpu->arch)
		return sm_error_set(err, ENOMEM, "vCPU %u: out of memory", vcpu->index);
	vcpu->vm->arch->vcpus[vcpu->index] = vcpu;
	return 0;
}

void sm_kvm_arch_vcpu_done(struct sm_hv_vcpu *vcpu)
{
	if (!vcpu->arch)
		return;
	vcpu->vm->arch->vcpus[vcpu->index] = NULL;
	free(vcpu->arch->cpuid);
	free(vcpu->arch);
	vcpu->arch = NULL;
}

static struct kvm_segment flat(uint16_t selector, uint8_t type, bool wide)
{
	return (struct kvm_segment){
		.limit = UINT32_MAX,
		.selector = selector,
		.type = type,
		.present = 1,
		.db = !wide,
		.s = 1,
		.l = wide,
		.g = 1,
	};
}

static void set_segments(struct kvm_sregs2 *sregs, uint16_t code, uint16_t data, bool wide)
{
	sregs->cs = flat(code, TYPE_CODE, wide);
	struct kvm_segment segment = flat(data, TYPE_DATA, false);
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = segment;
	/* Entering a guest without a task register is refused on some processors. */
	sregs->tr = (struct kvm_segment){ .limit = 0x67, .type = TYPE_TSS, .present = 1 };
	sregs->ldt = (struct kvm_segment){ .unusable = 1 };
}

/* Source: Xen's docs/misc/pvh.pandoc, "Direct route PVH". */
static void boot_pvh(const struct sm_hv_boot *boot, struct kvm_sregs2 *sregs, struct kvm_regs *regs)
{
	set_segments(sregs, PVH_CS, PVH_DS, false);
	sregs->cr0 = CR0_PE | CR0_ET;
	sregs->cr4 = 0;
	sregs->efer = 0;
	regs->rbx = boot->arg;
}

/* Source: Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol". */
static void boot_long64(const struct sm_hv_boot *boot, struct kvm_sregs2 *sregs, struct kvm_regs *regs)
{
	set_segments(sregs, SM_X86_BOOT_CS, SM_X86_BOOT_DS, true);
	sregs->gdt = (struct kvm_dtable){ .base = SM_X86_GDT_GPA, .limit = SM_X86_GDT_LIMIT };
	sregs->cr0 = CR0_PE | CR0_ET | CR0_PG;
	sregs->cr3 = boot->page_table;
	sregs->cr4 = CR4_PAE;
	sregs->efer = EFER_LME | EFER_LMA;
	regs->rsi = boot->arg;
}

/* What firmware would have set. */
static int set_firmware_msrs(struct sm_hv_vcpu *vcpu, struct sm_error *err)
{
	static const struct sm_kvm_msr msrs[] = {
		{ MSR_IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING },
		{ MSR_MTRR_DEF_TYPE, MTRR_ENABLE_WRITE_BACK },
	};
	return sm_kvm_x86_msrs_set(vcpu, msrs, sizeof msrs / sizeof *msrs, err);
}

/* The first vCPU waits only when it is told to; KVM lets all others wait by itself. */
static int wait_for_start(struct sm_hv_vcpu *vcpu, struct sm_error *err)
{
	struct kvm_mp_state state = { .mp_state = KVM_MP_STATE_UNINITIALIZED };
	if (vcpu->index == 0 && ioctl(vcpu->fd, KVM_SET_MP_STATE, &state) < 0)
		return sm_error_sys(err, errno, "KVM_SET_MP_STATE");
	return 0;
}

static int start_here(struct sm_hv_vcpu *vcpu, struct sm_error *err)
{
	struct kvm_mp_state state = { .mp_state = KVM_MP_STATE_RUNNABLE };
	if (vcpu->index != 0 && ioctl(vcpu->fd, KVM_SET_MP_STATE, &state) < 0)
		return sm_error_sys(err, errno, "KVM_SET_MP_STATE");
	return 0;
}

int sm_kvm_arch_vcpu_boot(struct sm_hv_vcpu *vcpu, const struct sm_hv_boot *boot, struct sm_error *err)
{
	vcpu->untouched = false;
	int code = sm_kvm_x86_cpuid_boot(vcpu, err);
	if (code < 0)
		return code;
	code = set_firmware_msrs(vcpu, err);
	if (code < 0)
		return code;
	if (boot->kind == SM_HV_BOOT_WAIT)
		return wait_for_start(vcpu, err);

	struct kvm_sregs2 sregs;
	struct kvm_regs regs = { .rip = boot->entry, .rflags = RFLAGS_1 };
	if (ioctl(vcpu->fd, KVM_GET_SREGS2, &sregs) < 0)
		return sm_error_sys(err, errno, "KVM_GET_SREGS2");
	switch (boot->kind) {
	case SM_HV_BOOT_PVH:
		boot_pvh(boot, &sregs, &regs);
		break;
	case SM_HV_BOOT_LONG64:
		boot_long64(boot, &sregs, &regs);
		break;
	default:
		return sm_error_set(err, EINVAL, "an x86_64 vCPU cannot start in boot kind %d", (int)boot->kind);
	}
	if (ioctl(vcpu->fd, KVM_SET_SREGS2, &sregs) < 0)
		return sm_error_sys(err, errno, "KVM_SET_SREGS2");
	if (ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
		return sm_error_sys(err, errno, "KVM_SET_REGS");
	return start_here(vcpu, err);
}
