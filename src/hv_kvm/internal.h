/* What the files of this back end share: the VM and the vCPU, and what each architecture must give.
 * Threads are those of hv.h. */
#ifndef SM_HV_KVM_INTERNAL_H
#define SM_HV_KVM_INTERNAL_H

#include "hv/hv.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

struct sm_kvm_slot {
	uint64_t gpa;
	void *hva;
	uint64_t bytes; /* 0: free */
	unsigned flags; /* SM_HV_MAP_* */
};

struct sm_hv_vm {
	int fd;
	int device_fd;    /* /dev/kvm, ours */
	size_t run_bytes; /* of each vCPU's shared area */
	unsigned vcpus;   /* as planned */
	char cpu_disable[sizeof((struct sm_plan *)NULL)->cpu_disable];

	unsigned nslots; /* the index is the slot's number */
	struct sm_kvm_slot *slots;

	pthread_mutex_t lock; /* of what is below, and of who runs which vCPU */
	struct sm_kvm_arch_vm *arch;
};

/* An access the guest waits for, handed out in parts when KVM gives more than one value at once. */
struct sm_kvm_access {
	uint8_t *data;    /* in the shared area; NULL: none */
	uint64_t address; /* of the next part */
	unsigned size;    /* of one part */
	unsigned step;    /* from one part's address to the next one's */
	unsigned left;    /* parts, the one handed out included */
	bool write;
	enum sm_hv_exit_kind kind;
};

struct sm_hv_vcpu {
	struct sm_hv_vm *vm;
	unsigned index;
	int fd;
	struct kvm_run *run;
	pid_t thread;       /* whose vcpu_run it is; 0: it has not run.  Written under the VM's lock */
	atomic_bool kicked; /* a kick signal is on its way or pending */
	bool untouched;     /* has neither run nor been loaded: state is as KVM creates it */
	struct sm_kvm_access access;
	struct sm_kvm_arch_vcpu *arch;
};

/* A capability the back end cannot do without. */
struct sm_kvm_need {
	int capability;
	const char *name;
};
/* End with a NULL name: what every architecture needs, and what this one does. */
extern const struct sm_kvm_need sm_kvm_needs[];
extern const struct sm_kvm_need sm_kvm_arch_needs[];
unsigned sm_kvm_arch_gpa_bits(int device_fd);
extern const enum sm_hv_boot_kind sm_kvm_arch_plain_boot;

/* What KVM_CREATE_VM is to be given for this plan. */
int sm_kvm_arch_vm_type(int device_fd, const struct sm_plan *plan, unsigned long *ret_type, struct sm_error *err);
int sm_kvm_arch_vm_init(struct sm_hv_vm *vm, struct sm_error *err);
void sm_kvm_arch_vm_done(struct sm_hv_vm *vm); /* also after a failed init */
int sm_kvm_arch_irqchip_new(struct sm_hv_vm *vm, struct sm_error *err);
/* What KVM_IRQ_LINE calls the plan's irq. */
uint32_t sm_kvm_arch_irq_line(unsigned irq);
int sm_kvm_arch_vm_save(struct sm_hv_vm *vm, struct sm_buf *out, struct sm_error *err);
int sm_kvm_arch_vm_load(struct sm_hv_vm *vm, struct sm_reader *in, struct sm_error *err);
int sm_kvm_arch_clock_save(struct sm_hv_vm *vm, struct sm_buf *out, struct sm_error *err);
int sm_kvm_arch_clock_load(struct sm_hv_vm *vm, struct sm_reader *in, struct sm_error *err);

/* The descriptor of vCPU `index`, the caller's from then on. */
int sm_kvm_arch_vcpu_open(struct sm_hv_vm *vm, unsigned index, struct sm_error *err);
int sm_kvm_arch_vcpu_init(struct sm_hv_vcpu *vcpu, struct sm_error *err);
void sm_kvm_arch_vcpu_done(struct sm_hv_vcpu *vcpu); /* also after a failed init */
int sm_kvm_arch_vcpu_boot(struct sm_hv_vcpu *vcpu, const struct sm_hv_boot *boot, struct sm_error *err);
bool sm_kvm_arch_vcpu_halted(struct sm_hv_vcpu *vcpu);
uint64_t sm_kvm_arch_vcpu_where(struct sm_hv_vcpu *vcpu);
int sm_kvm_arch_vcpu_save(struct sm_hv_vcpu *vcpu, struct sm_buf *out, struct sm_error *err);
int sm_kvm_arch_vcpu_load(struct sm_hv_vcpu *vcpu, struct sm_reader *in, struct sm_error *err);
void sm_kvm_arch_vcpu_resumed(struct sm_hv_vcpu *vcpu);

/* vcpu.c, for the table. */
int sm_kvm_vcpu_new(struct sm_hv_vm *vm, unsigned index, struct sm_hv_vcpu **ret_vcpu, struct sm_error *err);
void sm_kvm_vcpu_free(struct sm_hv_vcpu *vcpu);
void sm_kvm_vcpu_run(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *io);
void sm_kvm_vcpu_kick(struct sm_hv_vcpu *vcpu);
int sm_kvm_vcpu_settle(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *io, struct sm_error *err);

#endif
