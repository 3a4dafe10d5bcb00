/* Registers one by one, and their names. */
#include "hv_kvm/aarch64.h"

#include <errno.h>
#include <stdio.h>
#include <sys/ioctl.h>

size_t sm_kvm_arm64_register_bytes(uint64_t id)
{
	return (size_t)1 << ((id & KVM_REG_SIZE_MASK) >> KVM_REG_SIZE_SHIFT);
}

int sm_kvm_arm64_get(int vcpu_fd, uint64_t id, void *value)
{
	struct kvm_one_reg reg = { .id = id, .addr = (uintptr_t)value };
	return ioctl(vcpu_fd, KVM_GET_ONE_REG, &reg) < 0 ? -errno : 0;
}

int sm_kvm_arm64_set(int vcpu_fd, uint64_t id, const void *value)
{
	struct kvm_one_reg reg = { .id = id, .addr = (uintptr_t)value };
	return ioctl(vcpu_fd, KVM_SET_ONE_REG, &reg) < 0 ? -errno : 0;
}

/* Those by which hosts differ, so those that a refusal may name. */
static const struct {
	uint64_t id;
	const char *name;
} names[] = {
	{ ARM64_SYS_REG(3, 0, 0, 0, 0), "MIDR_EL1" },
	{ ARM64_SYS_REG(3, 0, 0, 0, 5), "MPIDR_EL1" },
	{ ARM64_SYS_REG(3, 0, 0, 0, 6), "REVIDR_EL1" },
	{ ARM64_SYS_REG(3, 0, 0, 4, 0), "ID_AA64PFR0_EL1" },
	{ ARM64_SYS_REG(3, 0, 0, 4, 1), "ID_AA64PFR1_EL1" },
	{ ARM64_SYS_REG(3, 0, 0, 4, 4), "ID_AA64ZFR0_EL1" },
	{ ARM64_SYS_REG(3, 0, 0, 5, 0), "ID_AA64DFR0_EL1" },
	{ ARM64_SYS_REG(3, 0, 0, 6, 0), "ID_AA64ISAR0_EL1" },
	{ ARM64_SYS_REG(3, 0, 0, 6, 1), "ID_AA64ISAR1_EL1" },
	{ ARM64_SYS_REG(3, 0, 0, 6, 2), "ID_AA64ISAR2_EL1" },
	{ ARM64_SYS_REG(3, 0, 0, 7, 0), "ID_AA64MMFR0_EL1" },
	{ ARM64_SYS_REG(3, 0, 0, 7, 1), "ID_AA64MMFR1_EL1" },
	{ ARM64_SYS_REG(3, 0, 0, 7, 2), "ID_AA64MMFR2_EL1" },
	{ ARM64_SYS_REG(3, 1, 0, 0, 1), "CLIDR_EL1" },
	{ ARM64_SYS_REG(3, 1, 0, 0, 7), "AIDR_EL1" },
	{ ARM64_SYS_REG(3, 3, 0, 0, 1), "CTR_EL0" },
	{ ARM64_SYS_REG(3, 0, 2, 1, 0), "APIAKEYLO_EL1 (pointer authentication)" },
	{ KVM_REG_ARM_TIMER_CTL, "CNTV_CTL_EL0" },
	{ KVM_REG_ARM_TIMER_CVAL, "CNTV_CVAL_EL0" },
	{ KVM_REG_ARM_TIMER_CNT, "CNTVCT_EL0" },
	{ KVM_REG_ARM_PTIMER_CTL, "CNTP_CTL_EL0" },
	{ KVM_REG_ARM_PTIMER_CVAL, "CNTP_CVAL_EL0" },
	{ KVM_REG_ARM_PTIMER_CNT, "CNTPCT_EL0" },
	{ KVM_REG_ARM64_SVE_VLS, "SVE vector lengths" },
	{ KVM_REG_ARM_PSCI_VERSION, "PSCI version" },
	{ KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1, "SMCCC_ARCH_WORKAROUND_1" },
	{ KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2, "SMCCC_ARCH_WORKAROUND_2" },
	{ KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3, "SMCCC_ARCH_WORKAROUND_3" },
	{ KVM_REG_ARM_STD_BMAP, "KVM_REG_ARM_STD_BMAP" },
	{ KVM_REG_ARM_STD_HYP_BMAP, "KVM_REG_ARM_STD_HYP_BMAP" },
	{ KVM_REG_ARM_VENDOR_HYP_BMAP, "KVM_REG_ARM_VENDOR_HYP_BMAP" },
};

static unsigned part(uint64_t id, uint64_t mask, unsigned shift)
{
	return (unsigned)((id & mask) >> shift);
}

const char *sm_kvm_arm64_register_name(uint64_t id, char out[SM_KVM_ARM64_NAME_MAX])
{
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (names[i].id == id)
			return names[i].name;
	if ((id & KVM_REG_ARM_COPROC_MASK) == KVM_REG_ARM64_SYSREG)
		snprintf(out, SM_KVM_ARM64_NAME_MAX, "S%u_%u_C%u_C%u_%u",
		         part(id, KVM_REG_ARM64_SYSREG_OP0_MASK, KVM_REG_ARM64_SYSREG_OP0_SHIFT),
		         part(id, KVM_REG_ARM64_SYSREG_OP1_MASK, KVM_REG_ARM64_SYSREG_OP1_SHIFT),
		         part(id, KVM_REG_ARM64_SYSREG_CRN_MASK, KVM_REG_ARM64_SYSREG_CRN_SHIFT),
		         part(id, KVM_REG_ARM64_SYSREG_CRM_MASK, KVM_REG_ARM64_SYSREG_CRM_SHIFT),
		         part(id, KVM_REG_ARM64_SYSREG_OP2_MASK, KVM_REG_ARM64_SYSREG_OP2_SHIFT));
	else
		snprintf(out, SM_KVM_ARM64_NAME_MAX, "0x%llx", (unsigned long long)id);
	return out;
}
