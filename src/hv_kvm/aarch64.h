/* What the aarch64 files of this back end share. */
#ifndef SM_HV_KVM_AARCH64_H
#define SM_HV_KVM_AARCH64_H

#include "hv_kvm/internal.h"

/* Newer than some systems' headers (Linux 6.4). */
#ifndef KVM_CAP_COUNTER_OFFSET
#define KVM_CAP_COUNTER_OFFSET 227
struct kvm_arm_counter_offset {
	uint64_t counter_offset;
	uint64_t reserved;
};
#define KVM_ARM_SET_COUNTER_OFFSET _IOW(KVMIO, 0xb5, struct kvm_arm_counter_offset)
#endif

#define SM_KVM_STATE_VERSION 1

/* KVM makes vCPUs and GIC together: redistributors are given out in the order in which vCPUs are created, registers
 * that say the topology are right once all are, and the GIC takes interrupts only after that.  So the VM
 * makes all the planned vCPUs with its GIC, in order; each one's own thread takes its descriptor over later. */
struct sm_kvm_arch_vm {
	struct kvm_vcpu_init init; /* of every vCPU */
	int gic_fd;
	unsigned nvcpus;                 /* made */
	int vcpu_fds[SM_PLAN_VCPUS_MAX]; /* ours; a vCPU has a duplicate */
	uint64_t mpidr[SM_PLAN_VCPUS_MAX];
	bool has_offset; /* KVM_ARM_SET_COUNTER_OFFSET */
	uint64_t offset; /* what was set with it */
};

struct sm_kvm_arch_vcpu {
	bool finalized; /* no feature can change any more */
};

/* boot_aarch64.c */
/* Which features the machine's vCPUs have: those of the host that need no help from outside, without `cpu_disable`. */
int sm_kvm_arm64_features(struct sm_hv_vm *vm, struct sm_error *err);
/* Before registers are read or the guest runs, and after the vector lengths are set. */
int sm_kvm_arm64_finalize(struct sm_hv_vcpu *vcpu, struct sm_error *err);

/* gic_aarch64.c */
/* The device, its addresses and its size; then, once all vCPUs are there, the rest. */
int sm_kvm_arm64_gic_new(struct sm_hv_vm *vm, struct sm_error *err);
int sm_kvm_arm64_gic_start(struct sm_hv_vm *vm, struct sm_error *err);

/* register_aarch64.c */
#define SM_KVM_ARM64_REGISTER_MAX 256 /* bytes of the widest: an SVE vector */
#define SM_KVM_ARM64_NAME_MAX     48
/* The bytes of a register, by its number. */
size_t sm_kvm_arm64_register_bytes(uint64_t id);
/* 0 or -errno. */
int sm_kvm_arm64_get(int vcpu_fd, uint64_t id, void *value);
int sm_kvm_arm64_set(int vcpu_fd, uint64_t id, const void *value);
/* As Arm's manuals or KVM's documentation call it; what has no name there, as assemblers do. */
const char *sm_kvm_arm64_register_name(uint64_t id, char out[SM_KVM_ARM64_NAME_MAX]);

#endif
