/* What a vCPU is, how it starts, and its life as far as it is aarch64's own. */
#include "base/fd.h"
#include "hv_kvm/aarch64.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define CORE_REGISTER(name) (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(name))

#define PSTATE_EL1H_MASKED UINT64_C(0x3c5) /* EL1 on its own stack pointer; debug, SError, IRQ and FIQ masked */

/* ---- features ------------------------------------------------------------------------------------------------- */

/* What a host may have and a guest be denied.  The PMU is for none: its counters are the host's business. */
static const struct feature {
	const char *name; /* in cpu_disable */
	int capabilities[2];
	uint32_t bits;
} features[] = {
	{ "sve", { KVM_CAP_ARM_SVE, KVM_CAP_ARM_SVE }, 1u << KVM_ARM_VCPU_SVE },
	{ "pauth",
	  { KVM_CAP_ARM_PTRAUTH_ADDRESS, KVM_CAP_ARM_PTRAUTH_GENERIC }, /* both or neither */
	  1u << KVM_ARM_VCPU_PTRAUTH_ADDRESS | 1u << KVM_ARM_VCPU_PTRAUTH_GENERIC },
};
#define NFEATURES (sizeof features / sizeof *features)

static const struct feature *find_feature(const char *name, size_t len)
{
	for (size_t i = 0; i < NFEATURES; i++)
		if (strlen(features[i].name) == len && !memcmp(features[i].name, name, len))
			return &features[i];
	return NULL;
}

static int disabled(const char *names, uint32_t *ret_bits, struct sm_error *err)
{
	*ret_bits = 0;
	while (*(names += strspn(names, ", "))) {
		size_t len = strcspn(names, ", ");
		const struct feature *feature = find_feature(names, len);
		if (!feature)
			return sm_error_set(err, EINVAL,
			                    "cpu_disable: '%.*s' is not a CPU feature that can be hidden (sve, pauth)",
			                    (int)(len < 64 ? len : 64), names);
		*ret_bits |= feature->bits;
		names += len;
	}
	return 0;
}

static bool has(const struct sm_hv_vm *vm, int capability)
{
	return ioctl(vm->fd, KVM_CHECK_EXTENSION, capability) > 0;
}

int sm_kvm_arm64_features(struct sm_hv_vm *vm, struct sm_error *err)
{
	struct kvm_vcpu_init *init = &vm->arch->init;
	uint32_t off;
	int code = disabled(vm->cpu_disable, &off, err);
	if (code < 0)
		return code;
	if (ioctl(vm->fd, KVM_ARM_PREFERRED_TARGET, init) < 0)
		return sm_error_sys(err, errno, "KVM_ARM_PREFERRED_TARGET");
	memset(init->features, 0, sizeof init->features);
	init->features[0] = 1u << KVM_ARM_VCPU_PSCI_0_2;
	for (size_t i = 0; i < NFEATURES; i++)
		if (has(vm, features[i].capabilities[0]) && has(vm, features[i].capabilities[1]))
			init->features[0] |= features[i].bits & ~off;
	return 0;
}

int sm_kvm_arm64_finalize(struct sm_hv_vcpu *vcpu, struct sm_error *err)
{
	int feature = KVM_ARM_VCPU_SVE;
	bool sve = vcpu->vm->arch->init.features[0] & 1u << KVM_ARM_VCPU_SVE;
	if (sve && !vcpu->arch->finalized && ioctl(vcpu->fd, KVM_ARM_VCPU_FINALIZE, &feature) < 0)
		return sm_error_sys(err, errno, "KVM_ARM_VCPU_FINALIZE of vCPU %u", vcpu->index);
	vcpu->arch->finalized = true;
	return 0;
}

/* ---- life ----------------------------------------------------------------------------------------------------- */

int sm_kvm_arch_vcpu_open(struct sm_hv_vm *vm, unsigned index, struct sm_error *err)
{
	if (index >= vm->arch->nvcpus)
		return sm_error_set(err, EINVAL, "vCPU %u: the machine has %u", index, vm->arch->nvcpus);
	int fd = sm_fd_dup(vm->arch->vcpu_fds[index]);
	return fd < 0 ? sm_error_sys(err, fd, "duplicate the descriptor of vCPU %u", index) : fd;
}

int sm_kvm_arch_vcpu_init(struct sm_hv_vcpu *vcpu, struct sm_error *err)
{
	vcpu->arch = calloc(1, sizeof *vcpu->arch);
	if (!vcpu->arch)
		return sm_error_set(err, ENOMEM, "vCPU %u: out of memory", vcpu->index);
	return 0;
}

void sm_kvm_arch_vcpu_done(struct sm_hv_vcpu *vcpu)
{
	free(vcpu->arch);
	vcpu->arch = NULL;
}

/* Off, as after PSCI's CPU_OFF: another vCPU's CPU_ON starts it. */
static int wait_for_start(struct sm_hv_vcpu *vcpu, struct sm_error *err)
{
	struct kvm_mp_state state = { .mp_state = KVM_MP_STATE_STOPPED };
	if (ioctl(vcpu->fd, KVM_SET_MP_STATE, &state) < 0)
		return sm_error_sys(err, errno, "KVM_SET_MP_STATE");
	return 0;
}

/* Source: Linux Documentation/arch/arm64/booting.rst, "Call the kernel image". */
static int boot_arm64(struct sm_hv_vcpu *vcpu, const struct sm_hv_boot *boot, struct sm_error *err)
{
	const struct {
		uint64_t id, value;
	} registers[] = {
		{ CORE_REGISTER(regs.pc), boot->entry },
		{ CORE_REGISTER(regs.regs[0]), boot->arg },
		{ CORE_REGISTER(regs.pstate), PSTATE_EL1H_MASKED },
	};
	for (size_t i = 0; i < sizeof registers / sizeof *registers; i++) {
		int code = sm_kvm_arm64_set(vcpu->fd, registers[i].id, &registers[i].value);
		if (code < 0)
			return sm_error_sys(err, code, "set a register of vCPU %u", vcpu->index);
	}
	return 0;
}

const enum sm_hv_boot_kind sm_kvm_arch_plain_boot = SM_HV_BOOT_ARM64;

int sm_kvm_arch_vcpu_boot(struct sm_hv_vcpu *vcpu, const struct sm_hv_boot *boot, struct sm_error *err)
{
	vcpu->untouched = false;
	int code = sm_kvm_arm64_finalize(vcpu, err);
	if (code < 0)
		return code;
	switch (boot->kind) {
	case SM_HV_BOOT_WAIT:
		return wait_for_start(vcpu, err);
	case SM_HV_BOOT_ARM64:
		return boot_arm64(vcpu, boot, err);
	default:
		return sm_error_set(err, EINVAL, "an aarch64 vCPU cannot start in boot kind %d", (int)boot->kind);
	}
}

bool sm_kvm_arch_vcpu_halted(struct sm_hv_vcpu *vcpu)
{
	struct kvm_mp_state state;
	return ioctl(vcpu->fd, KVM_GET_MP_STATE, &state) >= 0 && state.mp_state == KVM_MP_STATE_STOPPED;
}

/* A few of them tell, and each is a call. */
uint64_t sm_kvm_arch_vcpu_where(struct sm_hv_vcpu *vcpu)
{
	const uint64_t ids[] = { CORE_REGISTER(regs.pc), CORE_REGISTER(regs.sp), CORE_REGISTER(regs.regs[0]),
		                 CORE_REGISTER(regs.regs[1]) };
	uint64_t where = 0, value;
	for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
		where = where * UINT64_C(0x100000001b3) + (sm_kvm_arm64_get(vcpu->fd, ids[i], &value) < 0 ? 0 : value);
	return where;
}

/* The guest's counter is all the time it knows, and that stands still in a snapshot. */
void sm_kvm_arch_vcpu_resumed(struct sm_hv_vcpu *vcpu)
{
	(void)vcpu;
}
