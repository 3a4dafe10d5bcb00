/* The small guests of the probe, one set an architecture. */
#ifndef SM_HV_KVM_PROBE_GUEST_H
#define SM_HV_KVM_PROBE_GUEST_H

#include "hv_kvm/internal.h"

#define SM_KVM_PROBE_RAM   (UINT64_C(2) << 20)
#define SM_KVM_PROBE_ENTRY UINT64_C(0x100000)

struct sm_kvm_probe_guest {
	enum sm_hv_boot_kind boot;
	uint64_t page_table;
	const void *code; /* goes to SM_KVM_PROBE_ENTRY */
	size_t bytes;
	/* What else RAM must hold; NULL: nothing. */
	void (*prepare)(uint8_t *ram);
};

/* Capabilities to show besides those that are needed. */
extern const struct sm_kvm_need sm_kvm_probe_extras[];

/* For ever: reads a 32-bit count, runs that many turns of a loop of two instructions, writes 32 bits. */
extern const struct sm_kvm_probe_guest sm_kvm_probe_speed;
/* Goes to user mode, makes a system call, and writes 0 when it arrived with the kernel's privilege. */
extern const struct sm_kvm_probe_guest sm_kvm_probe_user;

/* What to do when there is no KVM: by what the processor says. */
const char *sm_kvm_probe_module_advice(void);

#endif
