/* Model-specific registers: one batch each way.  Which exist depends on host and kernel, so KVM is asked; a register
 * that KVM lists but refuses is left out. */
#include "hv_kvm/x86_64.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define MSRS_MAX 1024u

#define MSR_KVM_WALL_CLOCK      0x11u       /* another name of MSR_KVM_WALL_CLOCK_NEW; writing it writes guest memory */
#define MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01u /* bit 0: in use */
#define MSR_KVM_SYSTEM_TIME     0x12u       /* another name of MSR_KVM_SYSTEM_TIME_NEW */
#define MSR_VMX_FIRST           0x480u
#define MSR_VMX_LAST            0x493u
#define MSR_HYPERV_FIRST        0x40000000u
#define MSR_HYPERV_LAST         0x400001ffu

/* KVM does not list these (api.rst, KVM_GET_MSR_INDEX_LIST), a guest can write them all the same. */
static const uint32_t mtrrs[] = {
	0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207, 0x208, 0x209, 0x20a, 0x20b, 0x20c, 0x20d,
	0x20e, 0x20f, 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f, 0x2ff,
};

/* Values that change nothing where the register is refused, besides zero. */
static const struct sm_kvm_msr harmless[] = {
	{ 0xce, 0x80000000 },          /* PLATFORM_INFO: CPUID faulting, which the guest does not see */
	{ 0x1a0, 1 },                  /* MISC_ENABLE: fast strings */
	{ 0x277, 0x0007040600070406 }, /* PAT, as after a reset */
	{ 0x2ff, 0x806 },              /* MTRR_DEF_TYPE: write back, as firmware sets it */
};

struct msr_batch {
	uint32_t nmsrs;
	uint32_t pad;
	struct kvm_msr_entry entries[];
};

static struct msr_batch *batch_new(size_t count, struct sm_error *err)
{
	struct msr_batch *batch = calloc(1, sizeof *batch + count * sizeof batch->entries[0]);
	if (!batch)
		sm_error_set(err, ENOMEM, "MSRs: out of memory");
	return batch;
}

/* KVM takes the head of a batch and says how much of it; the tail follows the refused entry. */
static void drop_head(struct msr_batch *batch, size_t count)
{
	batch->nmsrs -= (uint32_t)count;
	memmove(batch->entries, batch->entries + count, batch->nmsrs * sizeof batch->entries[0]);
}

/* ---- set ------------------------------------------------------------------------------------------------------ */

static bool is_harmless(const struct kvm_msr_entry *entry)
{
	if (entry->data == 0)
		return true;
	for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
		if (harmless[i].index == entry->index && harmless[i].value == entry->data)
			return true;
	return false;
}

static int set_batch(struct sm_hv_vcpu *vcpu, struct msr_batch *batch, struct sm_error *err)
{
	while (batch->nmsrs) {
		int done = ioctl(vcpu->fd, KVM_SET_MSRS, batch);
		if (done < 0)
			return sm_error_sys(err, errno, "KVM_SET_MSRS");
		drop_head(batch, (size_t)done);
		if (!batch->nmsrs)
			return 0;
		if (!is_harmless(&batch->entries[0]))
			return sm_error_set(err, ENOTSUP, "this host refuses MSR 0x%x = 0x%llx",
			                    batch->entries[0].index, (unsigned long long)batch->entries[0].data);
		drop_head(batch, 1);
	}
	return 0;
}

int sm_kvm_x86_msrs_set(struct sm_hv_vcpu *vcpu, const struct sm_kvm_msr *msrs, size_t count, struct sm_error *err)
{
	struct msr_batch *batch = batch_new(count, err);
	if (!batch)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		batch->entries[i] = (struct kvm_msr_entry){ .index = msrs[i].index, .data = msrs[i].value };
	batch->nmsrs = (uint32_t)count;
	int code = set_batch(vcpu, batch, err);
	free(batch);
	return code;
}

int sm_kvm_x86_msr_get(struct sm_hv_vcpu *vcpu, struct sm_kvm_msr *msr, struct sm_error *err)
{
	struct {
		uint32_t nmsrs, pad;
		struct kvm_msr_entry entry;
	} one = { .nmsrs = 1, .entry.index = msr->index };
	int done = ioctl(vcpu->fd, KVM_GET_MSRS, &one);
	if (done != 1)
		return sm_error_sys(err, done < 0 ? errno : ENOTSUP, "read MSR 0x%x", msr->index);
	msr->value = one.entry.data;
	return 0;
}

/* ---- which ---------------------------------------------------------------------------------------------------- */

/* Not for a batch: time (clock_x86_64.c), other names of the same register, and what belongs to features CPUID never
 * shows. */
static bool is_foreign(uint32_t index)
{
	return index == SM_KVM_MSR_TSC || index == SM_KVM_MSR_TSC_DEADLINE || index == MSR_KVM_WALL_CLOCK ||
	       index == MSR_KVM_SYSTEM_TIME || (index >= MSR_VMX_FIRST && index <= MSR_VMX_LAST) ||
	       (index >= MSR_HYPERV_FIRST && index <= MSR_HYPERV_LAST);
}

static void add(struct msr_batch *batch, uint32_t index)
{
	batch->entries[batch->nmsrs++].index = index;
}

static int list(struct sm_hv_vm *vm, struct msr_batch **ret_batch, struct sm_error *err)
{
	struct {
		uint32_t nmsrs;
		uint32_t indices[MSRS_MAX];
	} known = { .nmsrs = MSRS_MAX };
	if (ioctl(vm->device_fd, KVM_GET_MSR_INDEX_LIST, &known) < 0)
		return sm_error_sys(err, errno, "KVM_GET_MSR_INDEX_LIST");
	size_t nmtrrs = sizeof mtrrs / sizeof *mtrrs;
	struct msr_batch *batch = batch_new(known.nmsrs + nmtrrs, err);
	if (!batch)
		return -ENOMEM;
	for (uint32_t i = 0; i < known.nmsrs; i++) {
		if (!is_foreign(known.indices[i]))
			add(batch, known.indices[i]);
	}
	for (size_t i = 0; i < nmtrrs; i++)
		add(batch, mtrrs[i]);
	*ret_batch = batch;
	return 0;
}

/* ---- save and load -------------------------------------------------------------------------------------------- */

static const char what[] = "MSRs";
static const uint32_t tag = SM_TAG('M', 'S', 'R', 'S');

/* Appends what can be read, index and value each, and counts it. */
static int read_batch(struct sm_hv_vcpu *vcpu, struct msr_batch *batch, struct sm_buf *out, uint32_t *ret_count,
                      struct sm_error *err)
{
	*ret_count = 0;
	while (batch->nmsrs) {
		int done = ioctl(vcpu->fd, KVM_GET_MSRS, batch);
		if (done < 0)
			return sm_error_sys(err, errno, "KVM_GET_MSRS");
		for (int i = 0; i < done; i++) {
			sm_put_u32(out, batch->entries[i].index);
			sm_put_u64(out, batch->entries[i].data);
		}
		*ret_count += (uint32_t)done;
		drop_head(batch, (size_t)done);
		if (batch->nmsrs)
			drop_head(batch, 1);
	}
	return 0;
}

int sm_kvm_x86_msrs_save(struct sm_hv_vcpu *vcpu, struct sm_buf *out, struct sm_error *err)
{
	struct msr_batch *batch = NULL;
	int code = list(vcpu->vm, &batch, err);
	if (code < 0)
		return code;
	struct sm_buf values SM_BUF_CLEANUP;
	sm_buf_init(&values, MSRS_MAX * sizeof(struct kvm_msr_entry));
	uint32_t count;
	code = read_batch(vcpu, batch, &values, &count, err);
	free(batch);
	if (code < 0)
		return code;
	if (sm_buf_failed(&values))
		return sm_error_sys(err, values.failed, "MSRs");

	size_t record = sm_record_begin(out, tag, SM_KVM_STATE_VERSION);
	sm_put_u32(out, count);
	sm_buf_append(out, values.data, values.len);
	sm_record_end(out, record);
	return 0;
}

int sm_kvm_x86_msrs_load(struct sm_hv_vcpu *vcpu, struct sm_reader *in, struct sm_error *err)
{
	struct sm_reader record;
	int code = sm_record_open(in, tag, SM_KVM_STATE_VERSION, what, &record, err);
	if (code < 0)
		return code;
	uint32_t count = sm_get_u32(&record);
	if (count > MSRS_MAX)
		return sm_error_set(err, EBADMSG, "MSRs: %u, %u is the most", count, MSRS_MAX);
	struct msr_batch *batch = batch_new(count, err);
	if (!batch)
		return -ENOMEM;
	vcpu->arch->clock_unused = true;
	for (uint32_t i = 0; i < count; i++) {
		struct kvm_msr_entry *entry = &batch->entries[i];
		entry->index = sm_get_u32(&record);
		entry->data = sm_get_u64(&record);
		if (entry->index == MSR_KVM_SYSTEM_TIME_NEW && entry->data & 1)
			vcpu->arch->clock_unused = false;
	}
	batch->nmsrs = count;
	code = sm_record_close(&record, what, err);
	if (code >= 0)
		code = set_batch(vcpu, batch, err);
	free(batch);
	return code;
}
