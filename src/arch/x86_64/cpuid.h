/* CPUID as pure data: what a guest's vCPU says about itself, shaped from what the host supports.
 *
 * The guest sees N cores of one thread each in one package.  Hidden, because a snapshot cannot carry it to another host
 * or at all: VMX and SVM (nested state), the PMU, SGX, SEV, Intel PT, and the invariant TSC (a restored guest may
 * find itself on a TSC of another rate: kvm-clock follows, a TSC clocksource would not).  Any thread. */
#ifndef SM_ARCH_X86_64_CPUID_H
#define SM_ARCH_X86_64_CPUID_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SM_X86_CPUID_MAX            256 /* entries of one vCPU */
#define SM_X86_CPUID_SUBLEAF_COUNTS 1u  /* flags: the subleaf is significant (KVM_CPUID_FLAG_SIGNIFCANT_INDEX) */

struct sm_x86_cpuid_entry {
	uint32_t leaf, subleaf, flags;
	uint32_t eax, ebx, ecx, edx;
};

/* The entries of vCPU `vcpu` of `vcpus` (APIC ID = its number).
 * host: what the hypervisor supports (KVM_GET_SUPPORTED_CPUID); hypervisor leaves 0x40000000 to 0x4fffffff pass as they
 * are. tsc_deadline: the hypervisor has the LAPIC's TSC-deadline timer, which it does not say in CPUID. cpu_disable:
 * the plan's comma-separated names, also of groups ("avx512"); what depends on a hidden feature is hidden too.  -EINVAL
 * names an unknown feature, -ENOSPC when more than `max` entries are needed. */
int sm_x86_cpuid_shape(const struct sm_x86_cpuid_entry *host, size_t host_count, bool tsc_deadline, unsigned vcpus,
                       unsigned vcpu, const char *cpu_disable, struct sm_x86_cpuid_entry *ret_entries, size_t max,
                       size_t *ret_count, struct sm_error *err);

/* Whether `cpu_disable` names only features known here.  -EINVAL names the first that is not. */
int sm_x86_cpuid_check_names(const char *cpu_disable, struct sm_error *err);

/* Whether a host (as above) can run a guest that was given `saved` (as shape made it).  -ENOTSUP names the feature, or
 * the leaf, register and bit, that the host lacks. */
int sm_x86_cpuid_covered(const struct sm_x86_cpuid_entry *saved, size_t saved_count,
                         const struct sm_x86_cpuid_entry *host, size_t host_count, bool tsc_deadline,
                         struct sm_error *err);

#endif
