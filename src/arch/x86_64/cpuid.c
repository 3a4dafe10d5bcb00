#include "arch/x86_64/cpuid.h"

#include "arch/x86_64/cpu_features.h"

#include <errno.h>
#include <string.h>

#define BIT(n) (UINT32_C(1) << (n))

/* Leaf 1 */
#define ECX1_X2APIC       BIT(21)
#define ECX1_TSC_DEADLINE BIT(24)
#define ECX1_XSAVE        BIT(26)
#define ECX1_OSXSAVE      BIT(27)
#define ECX1_HYPERVISOR   BIT(31)
#define EDX1_HTT          BIT(28)

#define ECX7_OSPKE             BIT(4)
#define ECX80000001_CMP_LEGACY BIT(1)

/* Leaf 0xb: levels of the topology. */
#define LEVEL_THREAD 1u
#define LEVEL_CORE   2u

#define XSAVE_LEGACY_BYTES 576u /* x87, SSE and the header */

struct shape {
	unsigned vcpus, vcpu;
	unsigned core_bits; /* of the APIC ID that tell cores apart */
	bool tsc_deadline;
	bool off[SM_X86_FEATURES_MAX];
	struct sm_x86_cpuid_entry *entries;
	size_t count, max;
};

static uint32_t *register_of(struct sm_x86_cpuid_entry *entry, enum sm_x86_register reg)
{
	switch (reg) {
	case SM_X86_EAX:
		return &entry->eax;
	case SM_X86_EBX:
		return &entry->ebx;
	case SM_X86_ECX:
		return &entry->ecx;
	case SM_X86_EDX:
		break;
	}
	return &entry->edx;
}

static struct sm_x86_cpuid_entry *find(struct sm_x86_cpuid_entry *entries, size_t count, uint32_t leaf,
                                       uint32_t subleaf)
{
	for (size_t i = 0; i < count; i++)
		if (entries[i].leaf == leaf && entries[i].subleaf == subleaf)
			return &entries[i];
	return NULL;
}

static int append(struct shape *shape, const struct sm_x86_cpuid_entry *entry, struct sm_error *err)
{
	if (shape->count == shape->max)
		return sm_error_set(err, ENOSPC, "CPUID: more than %zu entries", shape->max);
	shape->entries[shape->count++] = *entry;
	return 0;
}

/* Leaves of what is hidden, and of the host's own topology. */
static bool is_dropped(uint32_t leaf)
{
	switch (leaf) {
	case 0x0000000a: /* performance monitoring */
	case 0x0000000b: /* topology: written anew */
	case 0x00000012: /* SGX */
	case 0x00000014: /* Intel PT */
	case 0x0000001c: /* last branch records */
	case 0x0000001f: /* topology */
	case 0x8000000a: /* SVM */
	case 0x8000001b: /* instruction-based sampling */
	case 0x8000001f: /* SEV */
	case 0x80000022: /* performance monitoring */
	case 0x80000026: /* topology */
		return true;
	default:
		return false;
	}
}

static void hide_features(const struct shape *shape, struct sm_x86_cpuid_entry *entry)
{
	size_t count;
	const struct sm_x86_feature *features = sm_x86_features(&count);
	for (size_t i = 0; i < count; i++)
		if (shape->off[i] && features[i].leaf == entry->leaf && features[i].subleaf == entry->subleaf)
			*register_of(entry, features[i].reg) &= ~BIT(features[i].bit);
}

static bool is_shown(const struct shape *shape, uint32_t leaf, uint32_t subleaf, enum sm_x86_register reg,
                     uint32_t mask)
{
	size_t count;
	const struct sm_x86_feature *features = sm_x86_features(&count);
	for (size_t i = 0; i < count; i++)
		if (features[i].leaf == leaf && features[i].subleaf == subleaf && features[i].reg == reg &&
		    BIT(features[i].bit) == mask)
			return !shape->off[i];
	return true;
}

static void shape_leaf1(const struct shape *shape, struct sm_x86_cpuid_entry *entry)
{
	/* Initial APIC ID, logical processors of the package; the cache line size stays. */
	entry->ebx = shape->vcpu << 24 | BIT(shape->core_bits) << 16 | (entry->ebx & 0xffff);
	entry->ecx |= ECX1_HYPERVISOR;
	entry->ecx &= ~(ECX1_OSXSAVE | ECX1_TSC_DEADLINE); /* the first is the guest's own doing */
	/* The in-kernel LAPIC has an x2APIC mode whether or not the processor has. */
	if (is_shown(shape, 1, 0, SM_X86_ECX, ECX1_X2APIC))
		entry->ecx |= ECX1_X2APIC;
	if (shape->tsc_deadline && is_shown(shape, 1, 0, SM_X86_ECX, ECX1_TSC_DEADLINE))
		entry->ecx |= ECX1_TSC_DEADLINE;
	entry->edx = (entry->edx & ~EDX1_HTT) | (shape->vcpus > 1 ? EDX1_HTT : 0);
}

/* How many IDs share a cache: the last level is the package's, the others are a core's. */
static uint32_t cache_sharing(const struct shape *shape, uint32_t eax)
{
	uint32_t level = eax >> 5 & 7;
	return level >= 3 ? BIT(shape->core_bits) - 1 : 0;
}

static void shape_entry(const struct shape *shape, struct sm_x86_cpuid_entry *entry)
{
	switch (entry->leaf) {
	case 0:
		if (entry->eax < 0xb)
			entry->eax = 0xb;
		break;
	case 1:
		shape_leaf1(shape, entry);
		break;
	case 4: /* caches, Intel */
		if (entry->eax & 0x1f)
			entry->eax = (entry->eax & 0x3fff) | cache_sharing(shape, entry->eax) << 14 |
			             (BIT(shape->core_bits) - 1) << 26;
		break;
	case 7:
		if (entry->subleaf == 0)
			entry->ecx &= ~ECX7_OSPKE;
		break;
	case 0x80000001:
		entry->ecx = (entry->ecx & ~ECX80000001_CMP_LEGACY) | (shape->vcpus > 1 ? ECX80000001_CMP_LEGACY : 0);
		break;
	case 0x80000008: /* cores, AMD */
		entry->ecx = (entry->ecx & ~0xf0ffu) | shape->core_bits << 12 | (shape->vcpus - 1);
		break;
	case 0x8000001d: /* caches, AMD */
		if (entry->eax & 0x1f)
			entry->eax = (entry->eax & 0x3fff) | cache_sharing(shape, entry->eax) << 14;
		break;
	case 0x8000001e: /* topology, AMD: one thread a core, one node */
		entry->eax = shape->vcpu;
		entry->ebx = shape->vcpu;
		entry->ecx = 0;
		break;
	default:
		break;
	}
}

static int append_topology(struct shape *shape, struct sm_error *err)
{
	const struct sm_x86_cpuid_entry levels[] = {
		{ 0xb, 0, SM_X86_CPUID_SUBLEAF_COUNTS, 0, 1, LEVEL_THREAD << 8 | 0, shape->vcpu },
		{ 0xb, 1, SM_X86_CPUID_SUBLEAF_COUNTS, shape->core_bits, shape->vcpus, LEVEL_CORE << 8 | 1,
		  shape->vcpu },
		{ 0xb, 2, SM_X86_CPUID_SUBLEAF_COUNTS, 0, 0, 2, shape->vcpu },
	};
	int code = 0;
	for (size_t i = 0; i < sizeof levels / sizeof *levels && code == 0; i++)
		code = append(shape, &levels[i], err);
	return code;
}

static bool has(const struct shape *shape, uint32_t leaf, enum sm_x86_register reg, uint32_t mask)
{
	struct sm_x86_cpuid_entry *entry = find(shape->entries, shape->count, leaf, 0);
	return entry && *register_of(entry, reg) & mask;
}

/* Leaf 0xd follows the features: no component whose instructions are hidden, and the sizes of what is left. */
static void shape_xsave(struct shape *shape)
{
	uint32_t components = 0x3; /* x87, SSE */
	if (has(shape, 1, SM_X86_ECX, BIT(28)))
		components |= BIT(2); /* AVX */
	if (has(shape, 7, SM_X86_EBX, BIT(14)))
		components |= BIT(3) | BIT(4); /* MPX */
	if (has(shape, 7, SM_X86_EBX, BIT(16)))
		components |= BIT(5) | BIT(6) | BIT(7); /* AVX-512 */
	if (has(shape, 7, SM_X86_ECX, BIT(3)))
		components |= BIT(9); /* PKRU */
	if (has(shape, 7, SM_X86_EDX, BIT(24)))
		components |= BIT(17) | BIT(18); /* AMX */
	bool xsave = has(shape, 1, SM_X86_ECX, ECX1_XSAVE);

	struct sm_x86_cpuid_entry *first = find(shape->entries, shape->count, 0xd, 0);
	if (first)
		first->eax &= components;
	uint32_t user = first ? first->eax : 0, size = XSAVE_LEGACY_BYTES;
	size_t kept = 0;
	for (size_t i = 0; i < shape->count; i++) {
		const struct sm_x86_cpuid_entry *entry = &shape->entries[i];
		if (entry->leaf == 0xd) {
			/* ECX bit 0: a supervisor component, which is not part of XCR0. */
			bool component = entry->subleaf >= 2, supervisor = entry->ecx & 1;
			bool hidden =
			    component && !supervisor && (entry->subleaf >= 32 || !(user & BIT(entry->subleaf)));
			if (!xsave || hidden)
				continue;
			if (component && !supervisor && entry->ebx + entry->eax > size)
				size = entry->ebx + entry->eax;
		}
		shape->entries[kept++] = *entry;
	}
	shape->count = kept;
	first = find(shape->entries, shape->count, 0xd, 0);
	if (first)
		first->ebx = first->ecx = size;
}

int sm_x86_cpuid_shape(const struct sm_x86_cpuid_entry *host, size_t host_count, bool tsc_deadline, unsigned vcpus,
                       unsigned vcpu, const char *cpu_disable, struct sm_x86_cpuid_entry *ret_entries, size_t max,
                       size_t *ret_count, struct sm_error *err)
{
	struct shape shape = {
		.vcpus = vcpus,
		.vcpu = vcpu,
		.tsc_deadline = tsc_deadline,
		.entries = ret_entries,
		.max = max,
	};
	while (BIT(shape.core_bits) < vcpus)
		shape.core_bits++;
	int code = sm_x86_features_off(cpu_disable, shape.off, err);
	for (size_t i = 0; i < host_count && code == 0; i++) {
		if (is_dropped(host[i].leaf))
			continue;
		struct sm_x86_cpuid_entry entry = host[i];
		hide_features(&shape, &entry);
		shape_entry(&shape, &entry);
		code = append(&shape, &entry, err);
	}
	if (code == 0)
		code = append_topology(&shape, err);
	if (code < 0)
		return code;
	shape_xsave(&shape);
	*ret_count = shape.count;
	return 0;
}
