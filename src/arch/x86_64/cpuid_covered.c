/* Whether this host can go on with a guest from another. */
#include "arch/x86_64/cpu_features.h"

#include <errno.h>
#include <string.h>

/* Registers in which a set bit is a promise to the guest, and the bits among them that do not come from the host. */
static const struct {
	uint32_t leaf, subleaf;
	enum sm_x86_register reg;
	uint32_t not_hosts;
} words[] = {
	/* x2APIC, TSC-deadline (asked for apart), OSXSAVE, hypervisor */
	{ 0x1, 0, SM_X86_ECX, 1u << 21 | 1u << 24 | 1u << 27 | 1u << 31 },
	{ 0x1, 0, SM_X86_EDX, 1u << 28 }, /* HTT: the topology's */
	{ 0x6, 0, SM_X86_EAX, 0 },
	{ 0x7, 0, SM_X86_EBX, 0 },
	{ 0x7, 0, SM_X86_ECX, 1u << 4 }, /* OSPKE */
	{ 0x7, 0, SM_X86_EDX, 0 },
	{ 0x7, 1, SM_X86_EAX, 0 },
	{ 0x7, 1, SM_X86_EBX, 0 },
	{ 0x7, 1, SM_X86_ECX, 0 },
	{ 0x7, 1, SM_X86_EDX, 0 },
	{ 0x7, 2, SM_X86_EDX, 0 },
	{ 0xd, 0, SM_X86_EAX, 0 },
	{ 0xd, 0, SM_X86_EDX, 0 },
	{ 0xd, 1, SM_X86_EAX, 0 },
	{ 0xd, 1, SM_X86_ECX, 0 },
	{ 0xd, 1, SM_X86_EDX, 0 },
	{ 0x40000001, 0, SM_X86_EAX, 0 },       /* KVM's own features */
	{ 0x80000001, 0, SM_X86_ECX, 1u << 1 }, /* CMP_LEGACY: the topology's */
	{ 0x80000001, 0, SM_X86_EDX, 0 },
	{ 0x80000007, 0, SM_X86_EBX, 0 },
	{ 0x80000007, 0, SM_X86_EDX, 0 },
	{ 0x80000008, 0, SM_X86_EBX, 0 },
	{ 0x80000021, 0, SM_X86_EAX, 0 },
};

static const char *const register_names[] = { "EAX", "EBX", "ECX", "EDX" };

static const struct sm_x86_cpuid_entry *find(const struct sm_x86_cpuid_entry *entries, size_t count, uint32_t leaf,
                                             uint32_t subleaf)
{
	for (size_t i = 0; i < count; i++)
		if (entries[i].leaf == leaf && entries[i].subleaf == subleaf)
			return &entries[i];
	return NULL;
}

static uint32_t word(const struct sm_x86_cpuid_entry *entries, size_t count, uint32_t leaf, uint32_t subleaf,
                     enum sm_x86_register reg)
{
	const struct sm_x86_cpuid_entry *entry = find(entries, count, leaf, subleaf);
	if (!entry)
		return 0;
	const uint32_t registers[] = { entry->eax, entry->ebx, entry->ecx, entry->edx };
	return registers[reg];
}

static int lacks(uint32_t leaf, uint32_t subleaf, enum sm_x86_register reg, uint32_t missing, struct sm_error *err)
{
	unsigned bit = (unsigned)__builtin_ctz(missing);
	const char *name = sm_x86_feature_name(leaf, subleaf, reg, bit);
	return sm_error_set(err, ENOTSUP,
	                    "this host lacks CPU feature %s (CPUID leaf 0x%x.%u, %s bit %u), which the guest was "
	                    "given",
	                    name ? name : "without a name here", leaf, subleaf, register_names[reg], bit);
}

static int check_vendor(const struct sm_x86_cpuid_entry *saved, size_t saved_count,
                        const struct sm_x86_cpuid_entry *host, size_t host_count, struct sm_error *err)
{
	char names[2][13] = { "", "" };
	const struct sm_x86_cpuid_entry *both[] = { find(saved, saved_count, 0, 0), find(host, host_count, 0, 0) };
	for (int i = 0; i < 2; i++) {
		if (!both[i])
			return sm_error_set(err, ENOTSUP, "CPUID: no leaf 0");
		memcpy(names[i], &both[i]->ebx, 4);
		memcpy(names[i] + 4, &both[i]->edx, 4);
		memcpy(names[i] + 8, &both[i]->ecx, 4);
		/* A snapshot's bytes go into a message. */
		for (int j = 0; j < 12; j++)
			if (names[i][j] < ' ' || names[i][j] > '~')
				names[i][j] = '?';
	}
	if (memcmp(names[0], names[1], 12) != 0)
		return sm_error_set(err, ENOTSUP, "the guest was given a %s processor, this host has %s", names[0],
		                    names[1]);
	return 0;
}

/* The layout of the state that the guest saves by itself, and whose size it took from leaf 0xd. */
static int check_xsave(const struct sm_x86_cpuid_entry *saved, size_t saved_count,
                       const struct sm_x86_cpuid_entry *host, size_t host_count, struct sm_error *err)
{
	uint32_t components = word(saved, saved_count, 0xd, 0, SM_X86_EAX);
	for (uint32_t i = 2; i < 32; i++) {
		if (!(components >> i & 1))
			continue;
		uint32_t size = word(saved, saved_count, 0xd, i, SM_X86_EAX);
		uint32_t offset = word(saved, saved_count, 0xd, i, SM_X86_EBX);
		if (size != word(host, host_count, 0xd, i, SM_X86_EAX) ||
		    offset != word(host, host_count, 0xd, i, SM_X86_EBX))
			return sm_error_set(err, ENOTSUP,
			                    "this host's XSAVE state component %u lies elsewhere (CPUID leaf 0xd.%u)",
			                    i, i);
	}
	return 0;
}

int sm_x86_cpuid_covered(const struct sm_x86_cpuid_entry *saved, size_t saved_count,
                         const struct sm_x86_cpuid_entry *host, size_t host_count, bool tsc_deadline,
                         struct sm_error *err)
{
	int code = check_vendor(saved, saved_count, host, host_count, err);
	if (code < 0)
		return code;
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		uint32_t given = word(saved, saved_count, words[i].leaf, words[i].subleaf, words[i].reg);
		uint32_t have =
		    word(host, host_count, words[i].leaf, words[i].subleaf, words[i].reg) | words[i].not_hosts;
		if (given & ~have)
			return lacks(words[i].leaf, words[i].subleaf, words[i].reg, given & ~have, err);
	}
	const uint32_t deadline = 1u << 24;
	if (word(saved, saved_count, 1, 0, SM_X86_ECX) & deadline && !tsc_deadline)
		return lacks(1, 0, SM_X86_ECX, deadline, err);

	uint32_t given_bits = word(saved, saved_count, 0x80000008, 0, SM_X86_EAX) & 0xff;
	uint32_t have_bits = word(host, host_count, 0x80000008, 0, SM_X86_EAX) & 0xff;
	if (given_bits > have_bits)
		return sm_error_set(err, ENOTSUP, "the guest was given %u physical address bits, this host has %u",
		                    given_bits, have_bits);
	return check_xsave(saved, saved_count, host, host_count, err);
}
