/* The x86_64 machine: what KVM must offer, the in-kernel interrupt controllers. */
#include "hv_kvm/wire.h"
#include "hv_kvm/x86_64.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/platform/x86.h>

/* Three pages and one page below 4 GiB that Intel processors without unrestricted guest mode need; nothing of the plan
 * lies there. */
#define TSS_GPA          UINT64_C(0xfffbd000)
#define IDENTITY_MAP_GPA UINT64_C(0xfffbc000)

#define XSAVE_BYTES 4096u /* without KVM_CAP_XSAVE2 */

const struct sm_kvm_need sm_kvm_arch_needs[] = {
	{ KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP" },
	{ KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR" },
	{ KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID" },
	{ KVM_CAP_SREGS2, "KVM_CAP_SREGS2" },
	{ KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS" },
	{ KVM_CAP_XSAVE, "KVM_CAP_XSAVE" },
	{ KVM_CAP_XCRS, "KVM_CAP_XCRS" },
	{ KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS" },
	{ KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK" },
	{ KVM_CAP_TSC_DEADLINE_TIMER, "KVM_CAP_TSC_DEADLINE_TIMER" },
	{ 0, NULL },
};

/* KVM passes the processor's own width on.  Leaf 0x80000008 exists wherever 64-bit mode does, and the C library has
 * asked for it: the instruction itself is an exit where the host is a guest. */
unsigned sm_kvm_arch_gpa_bits(int device_fd)
{
	(void)device_fd;
	return __x86_get_cpuid_feature_leaf(CPUID_INDEX_80000008)->cpuid_array[0] & 0xff;
}

int sm_kvm_arch_vm_type(int device_fd, const struct sm_plan *plan, unsigned long *ret_type, struct sm_error *err)
{
	(void)device_fd, (void)plan, (void)err;
	*ret_type = 0;
	return 0;
}

int sm_kvm_arch_vm_init(struct sm_hv_vm *vm, struct sm_error *err)
{
	vm->arch = calloc(1, sizeof *vm->arch);
	if (!vm->arch)
		return sm_error_set(err, ENOMEM, "VM: out of memory");
	int bytes = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
	vm->arch->xsave_bytes = bytes > (int)XSAVE_BYTES ? (size_t)bytes : XSAVE_BYTES;

	uint64_t identity_map = IDENTITY_MAP_GPA;
	if (ioctl(vm->fd, KVM_SET_TSS_ADDR, (unsigned long)TSS_GPA) < 0)
		return sm_error_sys(err, errno, "KVM_SET_TSS_ADDR");
	if (ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0)
		return sm_error_sys(err, errno, "KVM_SET_IDENTITY_MAP_ADDR");
	return 0;
}

void sm_kvm_arch_vm_done(struct sm_hv_vm *vm)
{
	if (vm->arch)
		free(vm->arch->host);
	free(vm->arch);
	vm->arch = NULL;
}

/* Everything in the kernel.  No PIT: the guest has the LAPIC's TSC-deadline timer and KVM's clock. */
int sm_kvm_arch_irqchip_new(struct sm_hv_vm *vm, struct sm_error *err)
{
	if (ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0) < 0)
		return sm_error_sys(err, errno, "KVM_CREATE_IRQCHIP");
	return 0;
}

uint32_t sm_kvm_arch_irq_line(unsigned irq)
{
	return irq;
}

/* ---- interrupt controllers ------------------------------------------------------------------------------------ */

static const char what_chips[] = "interrupt controllers";
static const uint32_t tag_chips = SM_TAG('I', 'R', 'Q', 'C');

static void wire_pic(struct sm_wire *wire, struct kvm_pic_state *pic)
{
	sm_wire_u8(wire, &pic->last_irr);
	sm_wire_u8(wire, &pic->irr);
	sm_wire_u8(wire, &pic->imr);
	sm_wire_u8(wire, &pic->isr);
	sm_wire_u8(wire, &pic->priority_add);
	sm_wire_u8(wire, &pic->irq_base);
	sm_wire_u8(wire, &pic->read_reg_select);
	sm_wire_u8(wire, &pic->poll);
	sm_wire_u8(wire, &pic->special_mask);
	sm_wire_u8(wire, &pic->init_state);
	sm_wire_u8(wire, &pic->auto_eoi);
	sm_wire_u8(wire, &pic->rotate_on_auto_eoi);
	sm_wire_u8(wire, &pic->special_fully_nested_mode);
	sm_wire_u8(wire, &pic->init4);
	sm_wire_u8(wire, &pic->elcr);
	sm_wire_u8(wire, &pic->elcr_mask);
}

static void wire_ioapic(struct sm_wire *wire, struct kvm_ioapic_state *ioapic)
{
	sm_wire_u64(wire, &ioapic->base_address);
	sm_wire_u32(wire, &ioapic->ioregsel);
	sm_wire_u32(wire, &ioapic->id);
	sm_wire_u32(wire, &ioapic->irr);
	for (unsigned pin = 0; pin < KVM_IOAPIC_NUM_PINS; pin++)
		sm_wire_u64(wire, &ioapic->redirtbl[pin].bits);
}

static void wire_chip(struct sm_wire *wire, struct kvm_irqchip *chip)
{
	if (chip->chip_id == KVM_IRQCHIP_IOAPIC)
		wire_ioapic(wire, &chip->chip.ioapic);
	else
		wire_pic(wire, &chip->chip.pic);
}

int sm_kvm_arch_vm_save(struct sm_hv_vm *vm, struct sm_buf *out, struct sm_error *err)
{
	struct sm_wire wire = { .out = out };
	size_t record = sm_record_begin(out, tag_chips, SM_KVM_STATE_VERSION);
	for (unsigned i = 0; i < KVM_NR_IRQCHIPS; i++) {
		struct kvm_irqchip chip = { .chip_id = i };
		if (ioctl(vm->fd, KVM_GET_IRQCHIP, &chip) < 0)
			return sm_error_sys(err, errno, "KVM_GET_IRQCHIP %u", i);
		wire_chip(&wire, &chip);
	}
	sm_record_end(out, record);
	return 0;
}

int sm_kvm_arch_vm_load(struct sm_hv_vm *vm, struct sm_reader *in, struct sm_error *err)
{
	struct sm_reader record;
	int code = sm_record_open(in, tag_chips, SM_KVM_STATE_VERSION, what_chips, &record, err);
	if (code < 0)
		return code;
	struct sm_wire wire = { .in = &record };
	struct kvm_irqchip chips[KVM_NR_IRQCHIPS] = { 0 };
	for (unsigned i = 0; i < KVM_NR_IRQCHIPS; i++) {
		chips[i].chip_id = i;
		wire_chip(&wire, &chips[i]);
	}
	code = sm_record_close(&record, what_chips, err);
	/* The second PIC before the first, which would take in what it still asks for. */
	static const unsigned order[KVM_NR_IRQCHIPS] = { KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_PIC_MASTER,
		                                         KVM_IRQCHIP_IOAPIC };
	for (unsigned i = 0; i < KVM_NR_IRQCHIPS && code >= 0; i++)
		if (ioctl(vm->fd, KVM_SET_IRQCHIP, &chips[order[i]]) < 0)
			code = sm_error_sys(err, errno, "KVM_SET_IRQCHIP %u", order[i]);
	return code;
}

/* ---- what a vCPU is doing ------------------------------------------------------------------------------------- */

#define RFLAGS_IF (UINT64_C(1) << 9)

bool sm_kvm_arch_vcpu_halted(struct sm_hv_vcpu *vcpu)
{
	struct kvm_mp_state state;
	struct kvm_regs regs;
	if (ioctl(vcpu->fd, KVM_GET_MP_STATE, &state) < 0)
		return false;
	switch (state.mp_state) {
	case KVM_MP_STATE_UNINITIALIZED:
	case KVM_MP_STATE_INIT_RECEIVED:
		return true;
	case KVM_MP_STATE_HALTED:
		return ioctl(vcpu->fd, KVM_GET_REGS, &regs) >= 0 && !(regs.rflags & RFLAGS_IF);
	default:
		return false;
	}
}

/* FNV-1a, a word at a time. */
uint64_t sm_kvm_arch_vcpu_where(struct sm_hv_vcpu *vcpu)
{
	struct kvm_regs regs;
	uint64_t words[sizeof regs / 8], hash = UINT64_C(0xcbf29ce484222325);
	if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0)
		return 0;
	memcpy(words, &regs, sizeof words);
	for (size_t i = 0; i < sizeof words / 8; i++)
		hash = (hash ^ words[i]) * UINT64_C(0x100000001b3);
	return hash;
}
