/* The GICv3 in the kernel: made, and moved register by register.  Sources: Linux Documentation/virt/kvm/devices/
 * arm-vgic-v3.rst; ARM IHI 0069 for the registers.  There is no ITS, so no LPI and no table in the guest's RAM. */
#include "arch/aarch64/platform.h"
#include "hv_kvm/aarch64.h"

#include <errno.h>
#include <sys/ioctl.h>

/* ---- device attributes ---------------------------------------------------------------------------------------- */

static int set_attr(const struct sm_hv_vm *vm, uint32_t group, uint64_t attr, const void *value)
{
	struct kvm_device_attr device = { .group = group, .attr = attr, .addr = (uintptr_t)value };
	return ioctl(vm->arch->gic_fd, KVM_SET_DEVICE_ATTR, &device) < 0 ? -errno : 0;
}

static int get_attr(const struct sm_hv_vm *vm, uint32_t group, uint64_t attr, void *value)
{
	struct kvm_device_attr device = { .group = group, .attr = attr, .addr = (uintptr_t)value };
	return ioctl(vm->arch->gic_fd, KVM_GET_DEVICE_ATTR, &device) < 0 ? -errno : 0;
}

static bool has_attr(const struct sm_hv_vm *vm, uint32_t group, uint64_t attr)
{
	struct kvm_device_attr device = { .group = group, .attr = attr };
	return ioctl(vm->arch->gic_fd, KVM_HAS_DEVICE_ATTR, &device) >= 0;
}

/* Aff3 to Aff0, which MPIDR_EL1 has apart, in the upper half. */
static uint64_t affinity(const struct sm_hv_vm *vm, unsigned vcpu)
{
	uint64_t mpidr = vm->arch->mpidr[vcpu];
	return ((mpidr >> 32 & 0xff) << 24 | (mpidr & 0xffffff)) << KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT;
}

/* ---- the parts' registers ------------------------------------------------------------------------------------- */

/* Offsets from the distributor, and from a redistributor, whose second frame has its vCPU's own interrupts. */
#define CTLR       0x0000u
#define IIDR       0x0008u
#define SGI_FRAME  0x10000u
#define IGROUPR    0x0080u
#define ISENABLER  0x0100u
#define ICENABLER  0x0180u
#define ISPENDR    0x0200u
#define ISACTIVER  0x0300u
#define ICACTIVER  0x0380u
#define IPRIORITYR 0x0400u
#define ICFGR      0x0c00u
#define IROUTER    0x6000u

#define PRIVATES 32u
#define SHARED   (SM_ARM64_GIC_INTERRUPTS - PRIVATES)

enum space {
	DISTRIBUTOR,
	REDISTRIBUTOR,
	LINES, /* the level of each input, 32 at a time: the offset is the first one's number */
};

/* 32-bit registers in a row. */
struct run {
	enum space space;
	uint32_t offset, count, step;
	bool set_only; /* ones set, and zeros do nothing: ones at offset + UNDO clear */
};

#define UNDO 0x80u

/* Those that have `bits` for each of the interrupts from `first`. */
#define BANK(base, bits, first, interrupts) (base) + (first) * (bits) / 8, (interrupts) * (bits) / 32, 4

/* In the order in which they are loaded.  The switch for all of them comes first, for KVM hands a pending interrupt to
 * its vCPU only while that is on; what an interrupt is and where it goes before whether it is enabled; its level before
 * what is latched.  ISPENDR here holds the latch, and a write sets all of it. */
static const struct run distributor[] = {
	{ DISTRIBUTOR, IIDR, 1, 4, false }, /* the revision whose rules the others follow */
	{ DISTRIBUTOR, CTLR, 1, 4, false },
	{ DISTRIBUTOR, BANK(IGROUPR, 1, PRIVATES, SHARED), false },
	{ DISTRIBUTOR, BANK(ICFGR, 2, PRIVATES, SHARED), false },
	{ DISTRIBUTOR, BANK(IPRIORITYR, 8, PRIVATES, SHARED), false },
	{ DISTRIBUTOR, IROUTER + 8 * PRIVATES, SHARED, 8, false }, /* the upper halves are Aff3, which is always 0 */
	{ DISTRIBUTOR, BANK(ISENABLER, 1, PRIVATES, SHARED), true },
	{ LINES, PRIVATES, SHARED / 32, 32, false },
	{ DISTRIBUTOR, BANK(ISPENDR, 1, PRIVATES, SHARED), false },
	{ DISTRIBUTOR, BANK(ISACTIVER, 1, PRIVATES, SHARED), true },
};

static const struct run redistributor[] = {
	{ REDISTRIBUTOR, SGI_FRAME + IGROUPR, 1, 4, false },
	{ REDISTRIBUTOR, BANK(SGI_FRAME + IPRIORITYR, 8, 0, PRIVATES), false },
	{ REDISTRIBUTOR, SGI_FRAME + ISENABLER, 1, 4, true },
	{ LINES, 0, 1, 32, false },
	{ REDISTRIBUTOR, SGI_FRAME + ISPENDR, 1, 4, false },
	{ REDISTRIBUTOR, SGI_FRAME + ISACTIVER, 1, 4, true },
};

#define VALUES_MAX 256u

struct block {
	const char *what;
	uint32_t tag;
	const struct run *runs;
	unsigned nruns;
};

static const struct block distributor_block = { "GIC distributor", SM_TAG('G', 'I', 'C', 'D'), distributor,
	                                        sizeof distributor / sizeof *distributor };
static const struct block redistributor_block = { "GIC redistributor", SM_TAG('G', 'I', 'C', 'R'), redistributor,
	                                          sizeof redistributor / sizeof *redistributor };

static uint32_t group_of(enum space space)
{
	switch (space) {
	case DISTRIBUTOR:
		return KVM_DEV_ARM_VGIC_GRP_DIST_REGS;
	case REDISTRIBUTOR:
		return KVM_DEV_ARM_VGIC_GRP_REDIST_REGS;
	default:
		return KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO;
	}
}

static uint64_t attr_of(const struct sm_hv_vm *vm, unsigned vcpu, const struct run *run, uint32_t i)
{
	uint64_t info = VGIC_LEVEL_INFO_LINE_LEVEL << KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT;
	return affinity(vm, vcpu) | (run->space == LINES ? info : 0) | (run->offset + i * run->step);
}

/* ---- making one ----------------------------------------------------------------------------------------------- */

static bool can_create(const struct sm_hv_vm *vm, uint32_t type)
{
	struct kvm_create_device device = { .type = type, .flags = KVM_CREATE_DEVICE_TEST };
	return ioctl(vm->fd, KVM_CREATE_DEVICE, &device) >= 0;
}

int sm_kvm_arm64_gic_new(struct sm_hv_vm *vm, struct sm_error *err)
{
	if (!can_create(vm, KVM_DEV_TYPE_ARM_VGIC_V3))
		return sm_error_set(err, ENOTSUP,
		                    can_create(vm, KVM_DEV_TYPE_ARM_VGIC_V2)
		                        ? "this host's interrupt controller is a GICv2, and guests here need a GICv3"
		                        : "this host's KVM has no GICv3 for guests");
	struct kvm_create_device device = { .type = KVM_DEV_TYPE_ARM_VGIC_V3 };
	if (ioctl(vm->fd, KVM_CREATE_DEVICE, &device) < 0)
		return sm_error_sys(err, errno, "KVM_CREATE_DEVICE of a GICv3");
	vm->arch->gic_fd = (int)device.fd;
	const uint64_t distributor_gpa = SM_ARM64_GICD_BASE, redistributors_gpa = SM_ARM64_GICR_BASE;
	const uint32_t interrupts = SM_ARM64_GIC_INTERRUPTS;
	const struct {
		uint32_t group;
		uint64_t attr;
		const void *value;
	} attrs[] = {
		{ KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, &distributor_gpa },
		{ KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST, &redistributors_gpa },
		{ KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &interrupts },
	};
	for (size_t i = 0; i < sizeof attrs / sizeof *attrs; i++) {
		int code = set_attr(vm, attrs[i].group, attrs[i].attr, attrs[i].value);
		if (code < 0)
			return sm_error_sys(err, code, "GICv3: attribute %llu of group %u",
			                    (unsigned long long)attrs[i].attr, attrs[i].group);
	}
	return 0;
}

/* A machine that could not be saved is refused when it is made, not when its snapshot is wanted. */
static int check_can_move(const struct sm_hv_vm *vm, struct sm_error *err)
{
	const uint64_t icc_ctlr = 0xc664;
	const struct {
		uint32_t group;
		uint64_t attr;
		const char *what;
	} attrs[] = {
		{ KVM_DEV_ARM_VGIC_GRP_DIST_REGS, CTLR, "distributor" },
		{ KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, affinity(vm, 0) | CTLR, "redistributors" },
		{ KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, affinity(vm, 0) | icc_ctlr, "CPU interfaces" },
		{ KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, affinity(vm, 0), "lines" },
	};
	for (size_t i = 0; i < sizeof attrs / sizeof *attrs; i++)
		if (!has_attr(vm, attrs[i].group, attrs[i].attr))
			return sm_error_set(err, ENOTSUP, "this host's KVM can neither save nor restore a GICv3's %s",
			                    attrs[i].what);
	return 0;
}

int sm_kvm_arm64_gic_start(struct sm_hv_vm *vm, struct sm_error *err)
{
	int code = check_can_move(vm, err);
	if (code < 0)
		return code;
	code = set_attr(vm, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL);
	return code < 0 ? sm_error_sys(err, code, "KVM_DEV_ARM_VGIC_CTRL_INIT") : 0;
}

/* ---- distributor and redistributors --------------------------------------------------------------------------- */

static int save_block(const struct sm_hv_vm *vm, const struct block *block, unsigned vcpu, struct sm_buf *out,
                      struct sm_error *err)
{
	size_t record = sm_record_begin(out, block->tag, SM_KVM_STATE_VERSION);
	sm_put_u32(out, vcpu);
	for (const struct run *run = block->runs; run < block->runs + block->nruns; run++)
		for (uint32_t i = 0; i < run->count; i++) {
			uint32_t value;
			int code = get_attr(vm, group_of(run->space), attr_of(vm, vcpu, run, i), &value);
			if (code < 0)
				return sm_error_sys(err, code, "%s %u: read 0x%x", block->what, vcpu,
				                    run->offset + i * run->step);
			sm_put_u32(out, value);
		}
	sm_record_end(out, record);
	return 0;
}

static int set_value(const struct sm_hv_vm *vm, unsigned vcpu, const struct run *run, uint32_t i, uint32_t value)
{
	uint64_t attr = attr_of(vm, vcpu, run, i);
	if (run->set_only) {
		uint32_t undo = ~value;
		int code = set_attr(vm, group_of(run->space), attr + UNDO, &undo);
		if (code < 0)
			return code;
	}
	return set_attr(vm, group_of(run->space), attr, &value);
}

static int set_block(const struct sm_hv_vm *vm, const struct block *block, unsigned vcpu, const uint32_t *value,
                     struct sm_error *err)
{
	for (const struct run *run = block->runs; run < block->runs + block->nruns; run++)
		for (uint32_t i = 0; i < run->count; i++, value++) {
			int code = set_value(vm, vcpu, run, i, *value);
			if (code == -EINVAL)
				return sm_error_set(err, ENOTSUP, "%s %u: this host refuses 0x%x at 0x%x", block->what,
				                    vcpu, *value, run->offset + i * run->step);
			if (code < 0)
				return sm_error_sys(err, code, "%s %u: set 0x%x", block->what, vcpu,
				                    run->offset + i * run->step);
		}
	return 0;
}

static int load_block(const struct sm_hv_vm *vm, const struct block *block, unsigned vcpu, struct sm_reader *in,
                      struct sm_error *err)
{
	struct sm_reader record;
	int code = sm_record_open(in, block->tag, SM_KVM_STATE_VERSION, block->what, &record, err);
	if (code < 0)
		return code;
	uint32_t number = sm_get_u32(&record), values[VALUES_MAX], count = 0;
	for (unsigned i = 0; i < block->nruns; i++)
		for (uint32_t j = 0; j < block->runs[i].count; j++)
			values[count++] = sm_get_u32(&record);
	code = sm_record_close(&record, block->what, err);
	if (code < 0)
		return code;
	if (number != vcpu)
		return sm_error_set(err, EBADMSG, "%s: number %u is out of order", block->what, number);
	return set_block(vm, block, vcpu, values, err);
}

/* ---- CPU interfaces ------------------------------------------------------------------------------------------- */

static const char what_interface[] = "GIC CPU interface";
static const uint32_t tag_interface = SM_TAG('G', 'I', 'C', 'C');

struct interface_register {
	const char *name;
	uint16_t code; /* op0, op1, CRn, CRm, op2 as an instruction has them */
};

#define SYSREG(op0, op1, crn, crm, op2) ((op0) << 14 | (op1) << 11 | (crn) << 7 | (crm) << 3 | (op2))

/* In the order in which they are loaded: ICC_CTLR_EL1 says how many of the last eight there are. */
static const struct interface_register interface_registers[] = {
	{ "ICC_SRE_EL1", SYSREG(3, 0, 12, 12, 5) },     { "ICC_CTLR_EL1", SYSREG(3, 0, 12, 12, 4) },
	{ "ICC_PMR_EL1", SYSREG(3, 0, 4, 6, 0) },       { "ICC_BPR0_EL1", SYSREG(3, 0, 12, 8, 3) },
	{ "ICC_BPR1_EL1", SYSREG(3, 0, 12, 12, 3) },    { "ICC_IGRPEN0_EL1", SYSREG(3, 0, 12, 12, 6) },
	{ "ICC_IGRPEN1_EL1", SYSREG(3, 0, 12, 12, 7) }, { "ICC_AP0R0_EL1", SYSREG(3, 0, 12, 8, 4) },
	{ "ICC_AP1R0_EL1", SYSREG(3, 0, 12, 9, 0) },    { "ICC_AP0R1_EL1", SYSREG(3, 0, 12, 8, 5) },
	{ "ICC_AP1R1_EL1", SYSREG(3, 0, 12, 9, 1) },    { "ICC_AP0R2_EL1", SYSREG(3, 0, 12, 8, 6) },
	{ "ICC_AP1R2_EL1", SYSREG(3, 0, 12, 9, 2) },    { "ICC_AP0R3_EL1", SYSREG(3, 0, 12, 8, 7) },
	{ "ICC_AP1R3_EL1", SYSREG(3, 0, 12, 9, 3) },
};
#define INTERFACE_MAX   (sizeof interface_registers / sizeof *interface_registers)
#define INTERFACE_CTLR  1u
#define INTERFACE_FIXED 7u

/* One pair of active-priority registers for 5 bits of priority, two for 6, four for 7. */
static unsigned interface_count(uint64_t icc_ctlr)
{
	unsigned bits = (unsigned)(icc_ctlr >> 8 & 7) + 1;
	return INTERFACE_FIXED + 2 * (bits >= 7 ? 4 : bits == 6 ? 2 : 1);
}

static int save_interface(const struct sm_hv_vm *vm, unsigned vcpu, struct sm_buf *out, struct sm_error *err)
{
	uint64_t values[INTERFACE_MAX];
	unsigned count = INTERFACE_FIXED;
	for (unsigned i = 0; i < count; i++) {
		const struct interface_register *reg = &interface_registers[i];
		int code = get_attr(vm, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, affinity(vm, vcpu) | reg->code, &values[i]);
		if (code < 0)
			return sm_error_sys(err, code, "%s %u: read %s", what_interface, vcpu, reg->name);
		if (i == INTERFACE_CTLR)
			count = interface_count(values[i]);
	}
	size_t record = sm_record_begin(out, tag_interface, SM_KVM_STATE_VERSION);
	sm_put_u32(out, vcpu);
	for (unsigned i = 0; i < count; i++)
		sm_put_u64(out, values[i]);
	sm_record_end(out, record);
	return 0;
}

static int load_interface(const struct sm_hv_vm *vm, unsigned vcpu, struct sm_reader *in, struct sm_error *err)
{
	struct sm_reader record;
	int code = sm_record_open(in, tag_interface, SM_KVM_STATE_VERSION, what_interface, &record, err);
	if (code < 0)
		return code;
	uint32_t number = sm_get_u32(&record);
	uint64_t values[INTERFACE_MAX];
	unsigned count = INTERFACE_FIXED;
	for (unsigned i = 0; i < count; i++) {
		values[i] = sm_get_u64(&record);
		if (i == INTERFACE_CTLR)
			count = interface_count(values[i]);
	}
	code = sm_record_close(&record, what_interface, err);
	if (code < 0)
		return code;
	if (number != vcpu)
		return sm_error_set(err, EBADMSG, "%s: number %u is out of order", what_interface, number);
	for (unsigned i = 0; i < count; i++) {
		const struct interface_register *reg = &interface_registers[i];
		code = set_attr(vm, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, affinity(vm, vcpu) | reg->code, &values[i]);
		if (code == -EINVAL)
			return sm_error_set(err, ENOTSUP, "%s %u: this host refuses %s = 0x%llx", what_interface, vcpu,
			                    reg->name, (unsigned long long)values[i]);
		if (code < 0)
			return sm_error_sys(err, code, "%s %u: set %s", what_interface, vcpu, reg->name);
	}
	return 0;
}

/* ---- all of it ------------------------------------------------------------------------------------------------ */

int sm_kvm_arch_vm_save(struct sm_hv_vm *vm, struct sm_buf *out, struct sm_error *err)
{
	int code = save_block(vm, &distributor_block, 0, out, err);
	for (unsigned i = 0; i < vm->vcpus && code >= 0; i++) {
		code = save_block(vm, &redistributor_block, i, out, err);
		if (code >= 0)
			code = save_interface(vm, i, out, err);
	}
	return code;
}

int sm_kvm_arch_vm_load(struct sm_hv_vm *vm, struct sm_reader *in, struct sm_error *err)
{
	int code = load_block(vm, &distributor_block, 0, in, err);
	for (unsigned i = 0; i < vm->vcpus && code >= 0; i++) {
		code = load_block(vm, &redistributor_block, i, in, err);
		if (code >= 0)
			code = load_interface(vm, i, in, err);
	}
	return code;
}
