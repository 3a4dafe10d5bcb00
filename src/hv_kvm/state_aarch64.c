/* A vCPU's state as records: every register that KVM lists, by its number, then pending events and whether it is on. */
#include "hv_kvm/aarch64.h"
#include "hv_kvm/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define REGISTERS_MAX 2048u

#define TIMER_CTL_ISTATUS UINT64_C(4) /* what the timer says just now; not state */

/* ---- registers ------------------------------------------------------------------------------------------------ */

static const char what_registers[] = "registers";
static const uint32_t tag_registers = SM_TAG('R', 'E', 'G', 'S');

/* The VM's clock, which has a record of its own.  (The uapi's names of TIMER_CNT and TIMER_CVAL have each other's
 * encodings; what counts are the names.) */
static bool is_counter(uint64_t id)
{
	return id == KVM_REG_ARM_TIMER_CNT || id == KVM_REG_ARM_PTIMER_CNT;
}

static bool is_timer_control(uint64_t id)
{
	return id == KVM_REG_ARM_TIMER_CTL || id == KVM_REG_ARM_PTIMER_CTL;
}

/* Registers are set in stages: vector lengths before the vCPU is finalized, what the firmware offers before anything
 * that depends on it (api.rst, KVM_ARM_VCPU_FINALIZE; arm/fw-pseudo-registers.rst). */
enum stage {
	STAGE_VECTOR_LENGTHS,
	STAGE_FIRMWARE,
	STAGE_OTHERS,
	STAGES,
};

static enum stage stage_of(uint64_t id)
{
	if (id == KVM_REG_ARM64_SVE_VLS)
		return STAGE_VECTOR_LENGTHS;
	uint64_t group = id & KVM_REG_ARM_COPROC_MASK;
	return group == KVM_REG_ARM_FW || group == KVM_REG_ARM_FW_FEAT_BMAP ? STAGE_FIRMWARE : STAGE_OTHERS;
}

struct register_list {
	uint64_t count;
	uint64_t ids[REGISTERS_MAX];
};

static int put_registers(struct sm_hv_vcpu *vcpu, const struct register_list *list, struct sm_buf *out,
                         struct sm_error *err)
{
	uint32_t count = 0;
	for (uint64_t i = 0; i < list->count; i++)
		count += !is_counter(list->ids[i]);
	size_t record = sm_record_begin(out, tag_registers, SM_KVM_STATE_VERSION);
	sm_put_u32(out, count);
	for (uint64_t i = 0; i < list->count; i++) {
		uint64_t id = list->ids[i], value[SM_KVM_ARM64_REGISTER_MAX / sizeof(uint64_t)] = { 0 };
		size_t bytes = sm_kvm_arm64_register_bytes(id);
		char name[SM_KVM_ARM64_NAME_MAX];
		if (is_counter(id))
			continue;
		int code = bytes <= sizeof value ? sm_kvm_arm64_get(vcpu->fd, id, value) : -E2BIG;
		if (code < 0)
			return sm_error_sys(err, code, "read register %s", sm_kvm_arm64_register_name(id, name));
		if (is_timer_control(id))
			value[0] &= ~TIMER_CTL_ISTATUS;
		sm_put_u64(out, id);
		sm_buf_append(out, value, bytes);
	}
	sm_record_end(out, record);
	return 0;
}

static int save_registers(struct sm_hv_vcpu *vcpu, struct sm_buf *out, struct sm_error *err)
{
	struct register_list *list = malloc(sizeof *list);
	if (!list)
		return sm_error_set(err, ENOMEM, "registers: out of memory");
	list->count = REGISTERS_MAX;
	int code = sm_kvm_arm64_finalize(vcpu, err);
	if (code >= 0 && ioctl(vcpu->fd, KVM_GET_REG_LIST, list) < 0)
		code = sm_error_sys(err, errno, "KVM_GET_REG_LIST");
	if (code >= 0)
		code = put_registers(vcpu, list, out, err);
	free(list);
	return code;
}

static int refuse(uint64_t id, const void *saved, const void *here, bool is_here, struct sm_error *err)
{
	char room[SM_KVM_ARM64_NAME_MAX];
	const char *name = sm_kvm_arm64_register_name(id, room);
	size_t bytes = sm_kvm_arm64_register_bytes(id);
	if (!is_here)
		return sm_error_set(err, ENOTSUP, "registers: this host lacks %s", name);
	if (bytes > sizeof(uint64_t))
		return sm_error_set(err, ENOTSUP, "registers: this host refuses the value of %s", name);
	uint64_t wanted = 0, found = 0;
	memcpy(&wanted, saved, bytes);
	memcpy(&found, here, bytes);
	return sm_error_set(err, ENOTSUP, "registers: this host refuses %s = 0x%llx, it has 0x%llx", name,
	                    (unsigned long long)wanted, (unsigned long long)found);
}

/* What describes the processor can be written on newer kernels alone, and on all before the machine first ran: where
 * it says the same, nothing is lost. */
static int set_register(struct sm_hv_vcpu *vcpu, uint64_t id, const void *value, struct sm_error *err)
{
	if (sm_kvm_arm64_set(vcpu->fd, id, value) == 0)
		return 0;
	uint64_t here[SM_KVM_ARM64_REGISTER_MAX / sizeof(uint64_t)];
	bool is_here = sm_kvm_arm64_get(vcpu->fd, id, here) == 0;
	if (is_here && !memcmp(here, value, sm_kvm_arm64_register_bytes(id)))
		return 0;
	return refuse(id, value, here, is_here, err);
}

struct saved_register {
	uint64_t id;
	const uint8_t *value; /* in the record */
};

static int take_bytes(struct sm_reader *in, size_t bytes, const uint8_t **ret_data)
{
	if (in->failed || bytes > in->len - in->pos)
		return -EBADMSG;
	*ret_data = in->data + in->pos;
	in->pos += bytes;
	return 0;
}

static int find_registers(struct sm_reader *record, uint32_t count, struct saved_register *saved, struct sm_error *err)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t id = saved[i].id = sm_get_u64(record);
		char name[SM_KVM_ARM64_NAME_MAX];
		if (record->failed)
			break;
		if ((id & KVM_REG_ARCH_MASK) != KVM_REG_ARM64 ||
		    sm_kvm_arm64_register_bytes(id) > SM_KVM_ARM64_REGISTER_MAX || is_counter(id))
			return sm_error_set(err, EBADMSG, "registers: %s is none of a vCPU's",
			                    sm_kvm_arm64_register_name(id, name));
		if (take_bytes(record, sm_kvm_arm64_register_bytes(id), &saved[i].value) < 0)
			record->failed = true;
	}
	return sm_record_close(record, what_registers, err);
}

static int set_registers(struct sm_hv_vcpu *vcpu, const struct saved_register *saved, uint32_t count,
                         struct sm_error *err)
{
	for (enum stage stage = STAGE_VECTOR_LENGTHS; stage < STAGES; stage++) {
		int code = stage == STAGE_FIRMWARE ? sm_kvm_arm64_finalize(vcpu, err) : 0;
		for (uint32_t i = 0; i < count && code >= 0; i++)
			if (stage_of(saved[i].id) == stage)
				code = set_register(vcpu, saved[i].id, saved[i].value, err);
		if (code < 0)
			return code;
	}
	return 0;
}

static int load_registers(struct sm_hv_vcpu *vcpu, struct sm_reader *in, struct sm_error *err)
{
	struct sm_reader record;
	int code = sm_record_open(in, tag_registers, SM_KVM_STATE_VERSION, what_registers, &record, err);
	if (code < 0)
		return code;
	uint32_t count = sm_get_u32(&record);
	if (count > REGISTERS_MAX)
		return sm_error_set(err, EBADMSG, "registers: %u, %u is the most", count, REGISTERS_MAX);
	struct saved_register *saved = calloc(count + 1, sizeof *saved);
	if (!saved)
		return sm_error_set(err, ENOMEM, "registers: out of memory");
	code = find_registers(&record, count, saved, err);
	if (code >= 0)
		code = set_registers(vcpu, saved, count, err);
	free(saved);
	return code;
}

/* ---- events and run state ------------------------------------------------------------------------------------- */

static const char what_events[] = "pending events";
static const uint32_t tag_events = SM_TAG('E', 'V', 'N', 'T');
static const char what_mp[] = "run state";
static const uint32_t tag_mp = SM_TAG('M', 'P', 'S', 'T');

static void wire_events(struct sm_wire *wire, struct kvm_vcpu_events *events)
{
	sm_wire_u8(wire, &events->exception.serror_pending);
	sm_wire_u8(wire, &events->exception.serror_has_esr);
	sm_wire_u8(wire, &events->exception.ext_dabt_pending);
	sm_wire_u64(wire, &events->exception.serror_esr);
}

static int save_events(struct sm_hv_vcpu *vcpu, struct sm_buf *out, struct sm_error *err)
{
	struct kvm_vcpu_events events = { 0 };
	if (ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events) < 0)
		return sm_error_sys(err, errno, "read the %s", what_events);
	struct sm_wire wire = { .out = out };
	size_t record = sm_record_begin(out, tag_events, SM_KVM_STATE_VERSION);
	wire_events(&wire, &events);
	sm_record_end(out, record);
	return 0;
}

static int load_events(struct sm_hv_vcpu *vcpu, struct sm_reader *in, struct sm_error *err)
{
	struct sm_reader record;
	int code = sm_record_open(in, tag_events, SM_KVM_STATE_VERSION, what_events, &record, err);
	if (code < 0)
		return code;
	struct kvm_vcpu_events events = { 0 };
	struct sm_wire wire = { .in = &record };
	wire_events(&wire, &events);
	code = sm_record_close(&record, what_events, err);
	if (code >= 0 && ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events) < 0)
		code = sm_error_sys(err, errno, "set the %s", what_events);
	return code;
}

static int save_mp(struct sm_hv_vcpu *vcpu, struct sm_buf *out, struct sm_error *err)
{
	struct kvm_mp_state state;
	if (ioctl(vcpu->fd, KVM_GET_MP_STATE, &state) < 0)
		return sm_error_sys(err, errno, "read the %s", what_mp);
	size_t record = sm_record_begin(out, tag_mp, SM_KVM_STATE_VERSION);
	sm_put_u32(out, state.mp_state);
	sm_record_end(out, record);
	return 0;
}

static int load_mp(struct sm_hv_vcpu *vcpu, struct sm_reader *in, struct sm_error *err)
{
	struct sm_reader record;
	int code = sm_record_open(in, tag_mp, SM_KVM_STATE_VERSION, what_mp, &record, err);
	if (code < 0)
		return code;
	struct kvm_mp_state state = { .mp_state = sm_get_u32(&record) };
	code = sm_record_close(&record, what_mp, err);
	if (code >= 0 && ioctl(vcpu->fd, KVM_SET_MP_STATE, &state) < 0)
		code = sm_error_sys(err, errno, "set the %s", what_mp);
	return code;
}

/* ---- all of it ------------------------------------------------------------------------------------------------ */

/* Registers first: reading them lets KVM take in a start by another vCPU, which resets the rest. */
int sm_kvm_arch_vcpu_save(struct sm_hv_vcpu *vcpu, struct sm_buf *out, struct sm_error *err)
{
	int code = save_registers(vcpu, out, err);
	if (code >= 0)
		code = save_events(vcpu, out, err);
	return code < 0 ? code : save_mp(vcpu, out, err);
}

/* As a reset of the processor does it.  What no register tells is forgotten by that alone: that the timer's interrupt,
 * which KVM ties to the host's own, was being served (a write of its active bit does nothing then, and it would never
 * come again), and instructions that a cache holds of memory which has been put back. */
static int start_anew(struct sm_hv_vcpu *vcpu, struct sm_error *err)
{
	struct kvm_vcpu_init init = vcpu->vm->arch->init;
	if (ioctl(vcpu->fd, KVM_ARM_VCPU_INIT, &init) < 0)
		return sm_error_sys(err, errno, "KVM_ARM_VCPU_INIT of vCPU %u, once more", vcpu->index);
	return 0;
}

int sm_kvm_arch_vcpu_load(struct sm_hv_vcpu *vcpu, struct sm_reader *in, struct sm_error *err)
{
	int code = vcpu->untouched ? 0 : start_anew(vcpu, err);
	vcpu->access.data = NULL;
	vcpu->untouched = false;
	if (code >= 0)
		code = load_registers(vcpu, in, err);
	if (code >= 0)
		code = load_events(vcpu, in, err);
	return code < 0 ? code : load_mp(vcpu, in, err);
}
