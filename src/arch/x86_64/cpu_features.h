/* CPU features by name, as Linux' /proc/cpuinfo has them, and what depends on what.  Private to this folder. */
#ifndef SM_ARCH_X86_64_CPU_FEATURES_H
#define SM_ARCH_X86_64_CPU_FEATURES_H

#include "arch/x86_64/cpuid.h"

#define SM_X86_FEATURES_MAX 160

enum sm_x86_register {
	SM_X86_EAX,
	SM_X86_EBX,
	SM_X86_ECX,
	SM_X86_EDX,
};

struct sm_x86_feature {
	const char *name;
	uint32_t leaf, subleaf;
	enum sm_x86_register reg;
	unsigned bit;
};

/* All of them; *ret_count at most SM_X86_FEATURES_MAX. */
const struct sm_x86_feature *sm_x86_features(size_t *ret_count);

/* The name of a bit, or NULL. */
const char *sm_x86_feature_name(uint32_t leaf, uint32_t subleaf, enum sm_x86_register reg, unsigned bit);

/* off[i] for each feature that a guest is not to see: those of `cpu_disable`, those that no guest sees, and what
 * depends on either.  -EINVAL names an unknown one. */
int sm_x86_features_off(const char *cpu_disable, bool off[SM_X86_FEATURES_MAX], struct sm_error *err);

#endif
