/* What this host's KVM is worth: opened, asked, and tried with small guests.  Behind `supermachine doctor`. */
#ifndef SM_HV_KVM_PROBE_H
#define SM_HV_KVM_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#define SM_KVM_PROBE_REASONS      16
#define SM_KVM_PROBE_REASON_MAX   256
#define SM_KVM_PROBE_CAPABILITIES 32

struct sm_kvm_probe {
	bool usable; /* a small guest ran */
	bool fit;    /* a Linux guest and its programs can run */
	/* What is missing or slow, each with what to do about it, as sentences. */
	unsigned nreasons;
	char reasons[SM_KVM_PROBE_REASONS][SM_KVM_PROBE_REASON_MAX];

	unsigned ncapabilities; /* KVM_CHECK_EXTENSION's answers */
	struct {
		const char *name;
		unsigned value;
	} capabilities[SM_KVM_PROBE_CAPABILITIES];

	unsigned max_vcpus, gpa_bits;
	uint64_t instructions_per_second; /* simple ones, guest kernel mode; 0: not measured */
	uint64_t exit_ns;                 /* one port or MMIO access, there and back; 0: not measured */
	bool user_mode;                   /* a system call from guest user mode arrives in guest kernel mode */
};

/* Fills in ret; there is no failure but what the reasons say.  path: /dev/kvm.  Takes tens of milliseconds; any
 * thread (the guests run on one of their own). */
void sm_kvm_probe(const char *path, struct sm_kvm_probe *ret);

#endif
