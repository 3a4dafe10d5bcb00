/* CPUID: what the host supports, what the guest is given, and whether another host can go on with it. */
#include "base/codec.h"
#include "hv_kvm/wire.h"
#include "hv_kvm/x86_64.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/platform/x86.h>
#include <sys/utsname.h>

/* KVM's structure ends in a flexible array. */
struct cpuid_table {
	uint32_t nent;
	uint32_t padding;
	struct kvm_cpuid_entry2 entries[SM_X86_CPUID_MAX];
};

static const char what[] = "CPUID";
static const uint32_t tag = SM_TAG('C', 'P', 'I', 'D');

/* With the VM's lock held. */
static int ask_host(struct sm_hv_vm *vm, struct sm_error *err)
{
	struct sm_kvm_arch_vm *arch = vm->arch;
	if (arch->host)
		return 0;
	struct cpuid_table *table = calloc(1, sizeof *table);
	if (!table)
		return sm_error_set(err, ENOMEM, "CPUID: out of memory");
	table->nent = SM_X86_CPUID_MAX;
	if (ioctl(vm->device_fd, KVM_GET_SUPPORTED_CPUID, table) < 0) {
		int code = sm_error_sys(err, errno, "KVM_GET_SUPPORTED_CPUID");
		free(table);
		return code;
	}
	arch->host = calloc(table->nent + 1u, sizeof *arch->host);
	if (!arch->host) {
		free(table);
		return sm_error_set(err, ENOMEM, "CPUID: out of memory");
	}
	for (uint32_t i = 0; i < table->nent; i++) {
		const struct kvm_cpuid_entry2 *from = &table->entries[i];
		arch->host[i] = (struct sm_x86_cpuid_entry){
			.leaf = from->function,
			.subleaf = from->index,
			.flags = from->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			.eax = from->eax,
			.ebx = from->ebx,
			.ecx = from->ecx,
			.edx = from->edx,
		};
	}
	arch->host_count = table->nent;
	free(table);
	return 0;
}

static int know_host(struct sm_hv_vm *vm, struct sm_error *err)
{
	pthread_mutex_lock(&vm->lock);
	int code = ask_host(vm, err);
	pthread_mutex_unlock(&vm->lock);
	return code;
}

/* Neither on the stack nor larger than it is: what a thread has once touched stays with it, for as long as it sleeps.
 */
static int set(struct sm_hv_vcpu *vcpu, const struct sm_x86_cpuid_entry *entries, size_t count, struct sm_error *err)
{
	struct cpuid_table *table = calloc(1, offsetof(struct cpuid_table, entries[count]));
	struct sm_x86_cpuid_entry *copy = calloc(count + 1, sizeof *copy);
	if (!table || !copy) {
		free(table);
		free(copy);
		return sm_error_set(err, ENOMEM, "CPUID: out of memory");
	}
	table->nent = (uint32_t)count;
	for (size_t i = 0; i < count; i++) {
		copy[i] = entries[i];
		table->entries[i] = (struct kvm_cpuid_entry2){
			.function = entries[i].leaf,
			.index = entries[i].subleaf,
			.flags = entries[i].flags,
			.eax = entries[i].eax,
			.ebx = entries[i].ebx,
			.ecx = entries[i].ecx,
			.edx = entries[i].edx,
		};
	}
	int code = ioctl(vcpu->fd, KVM_SET_CPUID2, table) < 0 ? sm_error_sys(err, errno, "KVM_SET_CPUID2") : 0;
	free(table);
	if (code < 0) {
		free(copy);
		return code;
	}
	free(vcpu->arch->cpuid);
	vcpu->arch->cpuid = copy;
	vcpu->arch->cpuid_count = count;
	return 0;
}

int sm_kvm_x86_cpuid_boot(struct sm_hv_vcpu *vcpu, struct sm_error *err)
{
	struct sm_hv_vm *vm = vcpu->vm;
	int code = know_host(vm, err);
	if (code < 0)
		return code;
	struct sm_x86_cpuid_entry entries[SM_X86_CPUID_MAX];
	size_t count;
	code = sm_x86_cpuid_shape(vm->arch->host, vm->arch->host_count, true, vm->vcpus, vcpu->index, vm->cpu_disable,
	                          entries, SM_X86_CPUID_MAX, &count, err);
	return code < 0 ? code : set(vcpu, entries, count, err);
}

/* ---- save and load -------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t hash, const void *data, size_t len)
{
	for (const uint8_t *byte = data; len--; byte++)
		hash = (hash ^ *byte) * UINT64_C(0x100000001b3); /* FNV-1a */
	return hash;
}

/* Equal where the same kernel runs on the same processor model: there KVM supports the same, and need not be asked.
 * Asking takes one CPUID instruction a leaf, microseconds each where the host is itself a guest; the leaves here are
 * those that the C library asked for when the process began. */
static uint64_t host_fingerprint(void)
{
	struct utsname name;
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	if (uname(&name) == 0) {
		hash = mix(hash, name.release, strlen(name.release));
		hash = mix(hash, name.version, strlen(name.version));
	}
	struct cpuid_feature leaf1 = *__x86_get_cpuid_feature_leaf(CPUID_INDEX_1);
	const struct cpuid_feature *leaf7 = __x86_get_cpuid_feature_leaf(CPUID_INDEX_7);
	leaf1.cpuid_array[1] &= 0xffff; /* the rest tells the processor that the process began on */
	hash = mix(hash, leaf1.cpuid_array, sizeof leaf1.cpuid_array);
	return mix(hash, leaf7->cpuid_array, sizeof leaf7->cpuid_array);
}

static void wire_entry(struct sm_wire *wire, struct sm_x86_cpuid_entry *entry)
{
	sm_wire_u32(wire, &entry->leaf);
	sm_wire_u32(wire, &entry->subleaf);
	sm_wire_u32(wire, &entry->flags);
	sm_wire_u32(wire, &entry->eax);
	sm_wire_u32(wire, &entry->ebx);
	sm_wire_u32(wire, &entry->ecx);
	sm_wire_u32(wire, &entry->edx);
}

void sm_kvm_x86_cpuid_save(struct sm_hv_vcpu *vcpu, struct sm_buf *out)
{
	struct sm_wire wire = { .out = out };
	size_t record = sm_record_begin(out, tag, SM_KVM_STATE_VERSION);
	sm_put_u64(out, host_fingerprint());
	sm_put_u32(out, (uint32_t)vcpu->arch->cpuid_count);
	for (size_t i = 0; i < vcpu->arch->cpuid_count; i++)
		wire_entry(&wire, &vcpu->arch->cpuid[i]);
	sm_record_end(out, record);
}

static int check_covered(struct sm_hv_vm *vm, const struct sm_x86_cpuid_entry *entries, size_t count,
                         struct sm_error *err)
{
	int code = know_host(vm, err);
	if (code < 0)
		return code;
	return sm_x86_cpuid_covered(entries, count, vm->arch->host, vm->arch->host_count, true, err);
}

/* The entries of an open record that says how many there are. */
static int load_entries(struct sm_hv_vcpu *vcpu, struct sm_reader *record, uint64_t fingerprint,
                        struct sm_x86_cpuid_entry *entries, size_t count, struct sm_error *err)
{
	struct sm_wire wire = { .in = record };
	for (size_t i = 0; i < count; i++)
		wire_entry(&wire, &entries[i]);
	int code = sm_record_close(record, what, err);
	if (code < 0)
		return code;

	/* A vCPU that has run takes no other CPUID, and needs none when it goes back to its own snapshot. */
	const struct sm_kvm_arch_vcpu *arch = vcpu->arch;
	if (arch->cpuid && arch->cpuid_count == count && !memcmp(arch->cpuid, entries, count * sizeof *entries))
		return 0;
	/* Every vCPU but the first was checked with it. */
	if (vcpu->index == 0 && fingerprint != host_fingerprint()) {
		code = check_covered(vcpu->vm, entries, count, err);
		if (code < 0)
			return code;
	}
	return set(vcpu, entries, count, err);
}

int sm_kvm_x86_cpuid_load(struct sm_hv_vcpu *vcpu, struct sm_reader *in, struct sm_error *err)
{
	struct sm_reader record;
	int code = sm_record_open(in, tag, SM_KVM_STATE_VERSION, what, &record, err);
	if (code < 0)
		return code;
	uint64_t fingerprint = sm_get_u64(&record);
	uint32_t count = sm_get_u32(&record);
	if (count > SM_X86_CPUID_MAX)
		return sm_error_set(err, EBADMSG, "CPUID: %u entries, %u is the most", count, SM_X86_CPUID_MAX);
	struct sm_x86_cpuid_entry *entries = calloc(count + 1u, sizeof *entries);
	if (!entries)
		return sm_error_set(err, ENOMEM, "CPUID: out of memory");
	code = load_entries(vcpu, &record, fingerprint, entries, count, err);
	free(entries);
	return code;
}
