/* A vCPU's state as records, one for each part, in the order they are loaded: CPUID decides what all else may hold,
 * segments and control registers what the local APIC may, and the APIC what its timer's deadline may. */
#include "hv_kvm/wire.h"
#include "hv_kvm/x86_64.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

/* A part: how it is described, and the calls that move it. */
struct part {
	const char *what;
	uint32_t tag;
	unsigned long get, set;
	void (*wire)(struct sm_wire *wire, void *state);
	/* Whether a vCPU that has never run holds this already. */
	bool (*is_initial)(const struct sm_hv_vcpu *vcpu, const void *state);
};

union state {
	struct kvm_sregs2 sregs;
	struct kvm_xcrs xcrs;
	struct kvm_regs regs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debug;
	struct kvm_mp_state mp;
};

/* ---- the parts' fields ---------------------------------------------------------------------------------------- */

static void wire_segment(struct sm_wire *wire, struct kvm_segment *segment)
{
	sm_wire_u64(wire, &segment->base);
	sm_wire_u32(wire, &segment->limit);
	sm_wire_u16(wire, &segment->selector);
	sm_wire_u8(wire, &segment->type);
	sm_wire_u8(wire, &segment->present);
	sm_wire_u8(wire, &segment->dpl);
	sm_wire_u8(wire, &segment->db);
	sm_wire_u8(wire, &segment->s);
	sm_wire_u8(wire, &segment->l);
	sm_wire_u8(wire, &segment->g);
	sm_wire_u8(wire, &segment->avl);
	sm_wire_u8(wire, &segment->unusable);
}

static void wire_table(struct sm_wire *wire, struct kvm_dtable *table)
{
	sm_wire_u64(wire, &table->base);
	sm_wire_u16(wire, &table->limit);
}

static void wire_sregs(struct sm_wire *wire, void *state)
{
	struct kvm_sregs2 *sregs = state;
	struct kvm_segment *segments[] = { &sregs->cs, &sregs->ds, &sregs->es, &sregs->fs,
		                           &sregs->gs, &sregs->ss, &sregs->tr, &sregs->ldt };
	for (size_t i = 0; i < sizeof segments / sizeof *segments; i++)
		wire_segment(wire, segments[i]);
	wire_table(wire, &sregs->gdt);
	wire_table(wire, &sregs->idt);
	sm_wire_u64(wire, &sregs->cr0);
	sm_wire_u64(wire, &sregs->cr2);
	sm_wire_u64(wire, &sregs->cr3);
	sm_wire_u64(wire, &sregs->cr4);
	sm_wire_u64(wire, &sregs->cr8);
	sm_wire_u64(wire, &sregs->efer);
	sm_wire_u64(wire, &sregs->apic_base);
	sm_wire_u64(wire, &sregs->flags);
	for (int i = 0; i < 4; i++)
		sm_wire_u64(wire, &sregs->pdptrs[i]);
}

static void wire_xcrs(struct sm_wire *wire, void *state)
{
	struct kvm_xcrs *xcrs = state;
	sm_wire_u32(wire, &xcrs->nr_xcrs);
	if (xcrs->nr_xcrs > KVM_MAX_XCRS) {
		if (wire->in)
			wire->in->failed = true;
		return;
	}
	for (uint32_t i = 0; i < xcrs->nr_xcrs; i++) {
		sm_wire_u32(wire, &xcrs->xcrs[i].xcr);
		sm_wire_u64(wire, &xcrs->xcrs[i].value);
	}
}

static bool initial_xcrs(const struct sm_hv_vcpu *vcpu, const void *state)
{
	(void)vcpu;
	const struct kvm_xcrs *xcrs = state;
	return xcrs->nr_xcrs == 1 && xcrs->xcrs[0].xcr == 0 && xcrs->xcrs[0].value == 1;
}

static void wire_regs(struct sm_wire *wire, void *state)
{
	struct kvm_regs *regs = state;
	__u64 *fields[] = { &regs->rax, &regs->rbx, &regs->rcx, &regs->rdx, &regs->rsi, &regs->rdi,
		            &regs->rsp, &regs->rbp, &regs->r8,  &regs->r9,  &regs->r10, &regs->r11,
		            &regs->r12, &regs->r13, &regs->r14, &regs->r15, &regs->rip, &regs->rflags };
	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
		sm_wire_u64(wire, fields[i]);
}

/* The architecture defines the page's layout (Intel SDM, "Local APIC Register Address Map"). */
static void wire_lapic(struct sm_wire *wire, void *state)
{
	struct kvm_lapic_state *lapic = state;
	sm_wire_bytes(wire, lapic->regs, sizeof lapic->regs);
}

static void wire_events(struct sm_wire *wire, void *state)
{
	struct kvm_vcpu_events *events = state;
	sm_wire_u8(wire, &events->exception.injected);
	sm_wire_u8(wire, &events->exception.nr);
	sm_wire_u8(wire, &events->exception.has_error_code);
	sm_wire_u8(wire, &events->exception.pending);
	sm_wire_u32(wire, &events->exception.error_code);
	sm_wire_u8(wire, &events->interrupt.injected);
	sm_wire_u8(wire, &events->interrupt.nr);
	sm_wire_u8(wire, &events->interrupt.soft);
	sm_wire_u8(wire, &events->interrupt.shadow);
	sm_wire_u8(wire, &events->nmi.injected);
	sm_wire_u8(wire, &events->nmi.pending);
	sm_wire_u8(wire, &events->nmi.masked);
	sm_wire_u32(wire, &events->sipi_vector);
	sm_wire_u32(wire, &events->flags);
	sm_wire_u8(wire, &events->smi.smm);
	sm_wire_u8(wire, &events->smi.pending);
	sm_wire_u8(wire, &events->smi.smm_inside_nmi);
	sm_wire_u8(wire, &events->smi.latched_init);
	sm_wire_u8(wire, &events->triple_fault.pending);
	sm_wire_u8(wire, &events->exception_has_payload);
	sm_wire_u64(wire, &events->exception_payload);
}

/* Nothing is pending: all zero, but for what of it is to be believed. */
static bool initial_events(const struct sm_hv_vcpu *vcpu, const void *state)
{
	(void)vcpu;
	static const struct kvm_vcpu_events none;
	struct kvm_vcpu_events events = *(const struct kvm_vcpu_events *)state;
	events.flags = 0;
	return !memcmp(&events, &none, sizeof none);
}

#define DR6_INITIAL UINT64_C(0xffff0ff0)
#define DR7_INITIAL UINT64_C(0x400)

static void wire_debug(struct sm_wire *wire, void *state)
{
	struct kvm_debugregs *debug = state;
	for (int i = 0; i < 4; i++)
		sm_wire_u64(wire, &debug->db[i]);
	sm_wire_u64(wire, &debug->dr6);
	sm_wire_u64(wire, &debug->dr7);
	sm_wire_u64(wire, &debug->flags);
}

static bool initial_debug(const struct sm_hv_vcpu *vcpu, const void *state)
{
	(void)vcpu;
	const struct kvm_debugregs *debug = state;
	return !debug->db[0] && !debug->db[1] && !debug->db[2] && !debug->db[3] && debug->dr6 == DR6_INITIAL &&
	       debug->dr7 == DR7_INITIAL && !debug->flags;
}

static void wire_mp(struct sm_wire *wire, void *state)
{
	struct kvm_mp_state *mp = state;
	sm_wire_u32(wire, &mp->mp_state);
}

static bool initial_mp(const struct sm_hv_vcpu *vcpu, const void *state)
{
	const struct kvm_mp_state *mp = state;
	return mp->mp_state == (vcpu->index ? KVM_MP_STATE_UNINITIALIZED : KVM_MP_STATE_RUNNABLE);
}

static const struct part sregs_part = { "control registers", SM_TAG('S', 'R', 'E', 'G'),
	                                KVM_GET_SREGS2,      KVM_SET_SREGS2,
	                                wire_sregs,          NULL };
static const struct part xcrs_part = {
	"extended control registers", SM_TAG('X', 'C', 'R', 'S'), KVM_GET_XCRS, KVM_SET_XCRS, wire_xcrs, initial_xcrs
};
static const struct part regs_part = { "registers", SM_TAG('R', 'E', 'G', 'S'), KVM_GET_REGS, KVM_SET_REGS, wire_regs,
	                               NULL };
static const struct part lapic_part = { "local APIC",  SM_TAG('L', 'A', 'P', 'C'),
	                                KVM_GET_LAPIC, KVM_SET_LAPIC,
	                                wire_lapic,    NULL };
static const struct part events_part = { "pending events",    SM_TAG('E', 'V', 'N', 'T'),
	                                 KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS,
	                                 wire_events,         initial_events };
static const struct part debug_part = { "debug registers", SM_TAG('D', 'B', 'G', 'R'),
	                                KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS,
	                                wire_debug,        initial_debug };
static const struct part mp_part = { "run state",      SM_TAG('M', 'P', 'S', 'T'),
	                             KVM_GET_MP_STATE, KVM_SET_MP_STATE,
	                             wire_mp,          initial_mp };

static int get_part(struct sm_hv_vcpu *vcpu, const struct part *part, union state *state, struct sm_error *err)
{
	memset(state, 0, sizeof *state);
	if (ioctl(vcpu->fd, part->get, state) < 0)
		return sm_error_sys(err, errno, "read the %s", part->what);
	return 0;
}

static void put_part(const struct part *part, union state *state, struct sm_buf *out)
{
	struct sm_wire wire = { .out = out };
	size_t record = sm_record_begin(out, part->tag, SM_KVM_STATE_VERSION);
	part->wire(&wire, state);
	sm_record_end(out, record);
}

static int save_part(struct sm_hv_vcpu *vcpu, const struct part *part, struct sm_buf *out, struct sm_error *err)
{
	union state state;
	int code = get_part(vcpu, part, &state, err);
	if (code >= 0)
		put_part(part, &state, out);
	return code;
}

static int load_part(struct sm_hv_vcpu *vcpu, const struct part *part, struct sm_reader *in, struct sm_error *err)
{
	struct sm_reader record;
	int code = sm_record_open(in, part->tag, SM_KVM_STATE_VERSION, part->what, &record, err);
	if (code < 0)
		return code;
	union state state;
	memset(&state, 0, sizeof state);
	struct sm_wire wire = { .in = &record };
	part->wire(&wire, &state);
	code = sm_record_close(&record, part->what, err);
	if (code < 0)
		return code;
	if (vcpu->untouched && part->is_initial && part->is_initial(vcpu, &state))
		return 0;
	if (ioctl(vcpu->fd, part->set, &state) < 0)
		return sm_error_sys(err, errno, "set the %s", part->what);
	return 0;
}

/* ---- XSAVE ---------------------------------------------------------------------------------------------------- */

/* The standard format of the architecture (Intel SDM, "XSAVE Area"), offsets by CPUID leaf 0xd. */
static const char what_xsave[] = "XSAVE area";
static const uint32_t tag_xsave = SM_TAG('X', 'S', 'A', 'V');

static int save_xsave(struct sm_hv_vcpu *vcpu, struct sm_buf *out, struct sm_error *err)
{
	size_t bytes = vcpu->vm->arch->xsave_bytes;
	void *area = calloc(1, bytes);
	if (!area)
		return sm_error_set(err, ENOMEM, "XSAVE area: out of memory");
	/* The older call moves 4096 bytes whatever the area's size. */
	unsigned long get = bytes > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE;
	int code = 0;
	if (ioctl(vcpu->fd, get, area) < 0)
		code = sm_error_sys(err, errno, "read the XSAVE area");
	if (code >= 0) {
		size_t record = sm_record_begin(out, tag_xsave, SM_KVM_STATE_VERSION);
		sm_put_bytes(out, area, bytes);
		sm_record_end(out, record);
	}
	free(area);
	return code;
}

static int set_xsave(struct sm_hv_vcpu *vcpu, const void *area, struct sm_error *err)
{
	if (ioctl(vcpu->fd, KVM_SET_XSAVE, area) < 0)
		return sm_error_sys(err, errno, "set the XSAVE area");
	return 0;
}

static int load_xsave(struct sm_hv_vcpu *vcpu, struct sm_reader *in, struct sm_error *err)
{
	struct sm_reader record;
	int code = sm_record_open(in, tag_xsave, SM_KVM_STATE_VERSION, what_xsave, &record, err);
	if (code < 0)
		return code;
	size_t len, bytes = vcpu->vm->arch->xsave_bytes;
	const void *saved = sm_get_bytes(&record, &len);
	code = sm_record_close(&record, what_xsave, err);
	if (code < 0)
		return code;
	if (len > bytes)
		return sm_error_set(err, ENOTSUP, "XSAVE area: %zu bytes saved, this host has %zu", len, bytes);
	if (len == bytes)
		return set_xsave(vcpu, saved, err);
	void *area = calloc(1, bytes);
	if (!area)
		return sm_error_set(err, ENOMEM, "XSAVE area: out of memory");
	if (len)
		memcpy(area, saved, len);
	code = set_xsave(vcpu, area, err);
	free(area);
	return code;
}

/* ---- all of it ------------------------------------------------------------------------------------------------ */

int sm_kvm_arch_vcpu_save(struct sm_hv_vcpu *vcpu, struct sm_buf *out, struct sm_error *err)
{
	/* Asked first: KVM takes in a pending INIT or start-up interrupt then, which changes the rest. */
	union state mp;
	int code = get_part(vcpu, &mp_part, &mp, err);
	if (code < 0)
		return code;

	sm_kvm_x86_cpuid_save(vcpu, out);
	code = sm_kvm_x86_tsc_save(vcpu, out, err);
	if (code >= 0)
		code = save_part(vcpu, &sregs_part, out, err);
	if (code >= 0)
		code = save_part(vcpu, &xcrs_part, out, err);
	if (code >= 0)
		code = save_xsave(vcpu, out, err);
	if (code >= 0)
		code = save_part(vcpu, &regs_part, out, err);
	if (code >= 0)
		code = save_part(vcpu, &lapic_part, out, err);
	if (code >= 0)
		code = sm_kvm_x86_msrs_save(vcpu, out, err);
	if (code >= 0)
		code = save_part(vcpu, &events_part, out, err);
	if (code >= 0)
		code = save_part(vcpu, &debug_part, out, err);
	if (code >= 0)
		put_part(&mp_part, &mp, out);
	return code;
}

int sm_kvm_arch_vcpu_load(struct sm_hv_vcpu *vcpu, struct sm_reader *in, struct sm_error *err)
{
	vcpu->access.data = NULL;
	int code = sm_kvm_x86_cpuid_load(vcpu, in, err);
	if (code >= 0)
		code = sm_kvm_x86_tsc_load(vcpu, in, err);
	if (code >= 0)
		code = load_part(vcpu, &sregs_part, in, err);
	if (code >= 0)
		code = load_part(vcpu, &xcrs_part, in, err);
	if (code >= 0)
		code = load_xsave(vcpu, in, err);
	if (code >= 0)
		code = load_part(vcpu, &regs_part, in, err);
	if (code >= 0)
		code = load_part(vcpu, &lapic_part, in, err);
	if (code >= 0)
		code = sm_kvm_x86_msrs_load(vcpu, in, err);
	if (code >= 0)
		code = load_part(vcpu, &events_part, in, err);
	if (code >= 0)
		code = load_part(vcpu, &debug_part, in, err);
	if (code >= 0)
		code = load_part(vcpu, &mp_part, in, err);
	vcpu->untouched = false;
	return code;
}
