/* What the x86_64 files of this back end share. */
#ifndef SM_HV_KVM_X86_64_H
#define SM_HV_KVM_X86_64_H

#include "arch/x86_64/cpuid.h"
#include "hv_kvm/internal.h"

#define SM_KVM_STATE_VERSION 2

#define SM_KVM_MSR_TSC          0x10u
#define SM_KVM_MSR_TSC_DEADLINE 0x6e0u

struct sm_kvm_arch_vm {
	size_t xsave_bytes; /* of the area that KVM_GET_XSAVE2 and KVM_SET_XSAVE move */
	/* Under the VM's lock, asked for when first needed: on some hosts KVM_GET_SUPPORTED_CPUID takes longer than
	 * the rest of a restore. */
	size_t host_count;
	struct sm_x86_cpuid_entry *host; /* NULL: not yet */
	/* Those made so far, by index: the clock is theirs, too. */
	struct sm_hv_vcpu *vcpus[SM_PLAN_VCPUS_MAX];
};

struct sm_kvm_arch_vcpu {
	/* What the guest's CPUID says; NULL: not set yet. */
	size_t cpuid_count;
	struct sm_x86_cpuid_entry *cpuid;
	bool scaled;       /* its TSC runs at another rate than the host's */
	uint64_t deadline; /* of the timer, loaded: armed once the TSC that it is measured in is right */
	bool timer_unused; /* until then: it was never armed */
	bool clock_unused; /* as loaded, until it runs: the guest does not look at KVM's clock */
};

/* clock_x86_64.c */
int sm_kvm_x86_tsc_save(struct sm_hv_vcpu *vcpu, struct sm_buf *out, struct sm_error *err);
int sm_kvm_x86_tsc_load(struct sm_hv_vcpu *vcpu, struct sm_reader *in, struct sm_error *err);

/* cpuid_x86_64.c */
int sm_kvm_x86_cpuid_boot(struct sm_hv_vcpu *vcpu, struct sm_error *err);
void sm_kvm_x86_cpuid_save(struct sm_hv_vcpu *vcpu, struct sm_buf *out);
/* Sets the saved CPUID.  -ENOTSUP names what this host lacks. */
int sm_kvm_x86_cpuid_load(struct sm_hv_vcpu *vcpu, struct sm_reader *in, struct sm_error *err);

/* msr_x86_64.c */
struct sm_kvm_msr {
	uint32_t index;
	uint64_t value;
};
/* Sets them in order.  An MSR that this host refuses is left out when the value is the one it would have
 * anyway; else -ENOTSUP names it. */
int sm_kvm_x86_msrs_set(struct sm_hv_vcpu *vcpu, const struct sm_kvm_msr *msrs, size_t count, struct sm_error *err);
/* Reads msr->index into msr->value.  -ENOTSUP: this host has no such register. */
int sm_kvm_x86_msr_get(struct sm_hv_vcpu *vcpu, struct sm_kvm_msr *msr, struct sm_error *err);
int sm_kvm_x86_msrs_save(struct sm_hv_vcpu *vcpu, struct sm_buf *out, struct sm_error *err);
int sm_kvm_x86_msrs_load(struct sm_hv_vcpu *vcpu, struct sm_reader *in, struct sm_error *err);

#endif
