#include "arch/x86_64/cpu_features.h"

#include <errno.h>
#include <string.h>

/* Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E. */
static const struct sm_x86_feature features[] = {
	{ "sse3", 0x1, 0, SM_X86_ECX, 0 },
	{ "pclmulqdq", 0x1, 0, SM_X86_ECX, 1 },
	{ "vmx", 0x1, 0, SM_X86_ECX, 5 },
	{ "smx", 0x1, 0, SM_X86_ECX, 6 },
	{ "ssse3", 0x1, 0, SM_X86_ECX, 9 },
	{ "fma", 0x1, 0, SM_X86_ECX, 12 },
	{ "cx16", 0x1, 0, SM_X86_ECX, 13 },
	{ "pdcm", 0x1, 0, SM_X86_ECX, 15 },
	{ "pcid", 0x1, 0, SM_X86_ECX, 17 },
	{ "sse4_1", 0x1, 0, SM_X86_ECX, 19 },
	{ "sse4_2", 0x1, 0, SM_X86_ECX, 20 },
	{ "x2apic", 0x1, 0, SM_X86_ECX, 21 },
	{ "movbe", 0x1, 0, SM_X86_ECX, 22 },
	{ "popcnt", 0x1, 0, SM_X86_ECX, 23 },
	{ "tsc_deadline_timer", 0x1, 0, SM_X86_ECX, 24 },
	{ "aes", 0x1, 0, SM_X86_ECX, 25 },
	{ "xsave", 0x1, 0, SM_X86_ECX, 26 },
	{ "avx", 0x1, 0, SM_X86_ECX, 28 },
	{ "f16c", 0x1, 0, SM_X86_ECX, 29 },
	{ "rdrand", 0x1, 0, SM_X86_ECX, 30 },
	{ "clflush", 0x1, 0, SM_X86_EDX, 19 },
	{ "fsgsbase", 0x7, 0, SM_X86_EBX, 0 },
	{ "tsc_adjust", 0x7, 0, SM_X86_EBX, 1 },
	{ "sgx", 0x7, 0, SM_X86_EBX, 2 },
	{ "bmi1", 0x7, 0, SM_X86_EBX, 3 },
	{ "hle", 0x7, 0, SM_X86_EBX, 4 },
	{ "avx2", 0x7, 0, SM_X86_EBX, 5 },
	{ "smep", 0x7, 0, SM_X86_EBX, 7 },
	{ "bmi2", 0x7, 0, SM_X86_EBX, 8 },
	{ "erms", 0x7, 0, SM_X86_EBX, 9 },
	{ "invpcid", 0x7, 0, SM_X86_EBX, 10 },
	{ "rtm", 0x7, 0, SM_X86_EBX, 11 },
	{ "mpx", 0x7, 0, SM_X86_EBX, 14 },
	{ "avx512f", 0x7, 0, SM_X86_EBX, 16 },
	{ "avx512dq", 0x7, 0, SM_X86_EBX, 17 },
	{ "rdseed", 0x7, 0, SM_X86_EBX, 18 },
	{ "adx", 0x7, 0, SM_X86_EBX, 19 },
	{ "smap", 0x7, 0, SM_X86_EBX, 20 },
	{ "avx512ifma", 0x7, 0, SM_X86_EBX, 21 },
	{ "clflushopt", 0x7, 0, SM_X86_EBX, 23 },
	{ "clwb", 0x7, 0, SM_X86_EBX, 24 },
	{ "intel_pt", 0x7, 0, SM_X86_EBX, 25 },
	{ "avx512pf", 0x7, 0, SM_X86_EBX, 26 },
	{ "avx512er", 0x7, 0, SM_X86_EBX, 27 },
	{ "avx512cd", 0x7, 0, SM_X86_EBX, 28 },
	{ "sha_ni", 0x7, 0, SM_X86_EBX, 29 },
	{ "avx512bw", 0x7, 0, SM_X86_EBX, 30 },
	{ "avx512vl", 0x7, 0, SM_X86_EBX, 31 },
	{ "avx512vbmi", 0x7, 0, SM_X86_ECX, 1 },
	{ "umip", 0x7, 0, SM_X86_ECX, 2 },
	{ "pku", 0x7, 0, SM_X86_ECX, 3 },
	{ "waitpkg", 0x7, 0, SM_X86_ECX, 5 },
	{ "avx512_vbmi2", 0x7, 0, SM_X86_ECX, 6 },
	{ "shstk", 0x7, 0, SM_X86_ECX, 7 },
	{ "gfni", 0x7, 0, SM_X86_ECX, 8 },
	{ "vaes", 0x7, 0, SM_X86_ECX, 9 },
	{ "vpclmulqdq", 0x7, 0, SM_X86_ECX, 10 },
	{ "avx512_vnni", 0x7, 0, SM_X86_ECX, 11 },
	{ "avx512_bitalg", 0x7, 0, SM_X86_ECX, 12 },
	{ "avx512_vpopcntdq", 0x7, 0, SM_X86_ECX, 14 },
	{ "la57", 0x7, 0, SM_X86_ECX, 16 },
	{ "rdpid", 0x7, 0, SM_X86_ECX, 22 },
	{ "bus_lock_detect", 0x7, 0, SM_X86_ECX, 24 },
	{ "cldemote", 0x7, 0, SM_X86_ECX, 25 },
	{ "movdiri", 0x7, 0, SM_X86_ECX, 27 },
	{ "movdir64b", 0x7, 0, SM_X86_ECX, 28 },
	{ "sgx_lc", 0x7, 0, SM_X86_ECX, 30 },
	{ "pks", 0x7, 0, SM_X86_ECX, 31 },
	{ "avx512_4vnniw", 0x7, 0, SM_X86_EDX, 2 },
	{ "avx512_4fmaps", 0x7, 0, SM_X86_EDX, 3 },
	{ "fsrm", 0x7, 0, SM_X86_EDX, 4 },
	{ "avx512_vp2intersect", 0x7, 0, SM_X86_EDX, 8 },
	{ "md_clear", 0x7, 0, SM_X86_EDX, 10 },
	{ "serialize", 0x7, 0, SM_X86_EDX, 14 },
	{ "tsxldtrk", 0x7, 0, SM_X86_EDX, 16 },
	{ "arch_lbr", 0x7, 0, SM_X86_EDX, 19 },
	{ "ibt", 0x7, 0, SM_X86_EDX, 20 },
	{ "amx_bf16", 0x7, 0, SM_X86_EDX, 22 },
	{ "avx512_fp16", 0x7, 0, SM_X86_EDX, 23 },
	{ "amx_tile", 0x7, 0, SM_X86_EDX, 24 },
	{ "amx_int8", 0x7, 0, SM_X86_EDX, 25 },
	{ "spec_ctrl", 0x7, 0, SM_X86_EDX, 26 },
	{ "intel_stibp", 0x7, 0, SM_X86_EDX, 27 },
	{ "flush_l1d", 0x7, 0, SM_X86_EDX, 28 },
	{ "arch_capabilities", 0x7, 0, SM_X86_EDX, 29 },
	{ "ssbd", 0x7, 0, SM_X86_EDX, 31 },
	{ "avx_vnni", 0x7, 1, SM_X86_EAX, 4 },
	{ "avx512_bf16", 0x7, 1, SM_X86_EAX, 5 },
	{ "fzrm", 0x7, 1, SM_X86_EAX, 10 },
	{ "fsrs", 0x7, 1, SM_X86_EAX, 11 },
	{ "fsrc", 0x7, 1, SM_X86_EAX, 12 },
	{ "amx_fp16", 0x7, 1, SM_X86_EAX, 21 },
	{ "avx_ifma", 0x7, 1, SM_X86_EAX, 23 },
	{ "avx_vnni_int8", 0x7, 1, SM_X86_EDX, 4 },
	{ "avx_ne_convert", 0x7, 1, SM_X86_EDX, 5 },
	{ "amx_complex", 0x7, 1, SM_X86_EDX, 8 },
	{ "prefetchiti", 0x7, 1, SM_X86_EDX, 14 },
	{ "xsaveopt", 0xd, 1, SM_X86_EAX, 0 },
	{ "xsavec", 0xd, 1, SM_X86_EAX, 1 },
	{ "xgetbv1", 0xd, 1, SM_X86_EAX, 2 },
	{ "xsaves", 0xd, 1, SM_X86_EAX, 3 },
	{ "lahf_lm", 0x80000001, 0, SM_X86_ECX, 0 },
	{ "svm", 0x80000001, 0, SM_X86_ECX, 2 },
	{ "abm", 0x80000001, 0, SM_X86_ECX, 5 },
	{ "sse4a", 0x80000001, 0, SM_X86_ECX, 6 },
	{ "misalignsse", 0x80000001, 0, SM_X86_ECX, 7 },
	{ "3dnowprefetch", 0x80000001, 0, SM_X86_ECX, 8 },
	{ "osvw", 0x80000001, 0, SM_X86_ECX, 9 },
	{ "ibs", 0x80000001, 0, SM_X86_ECX, 10 },
	{ "xop", 0x80000001, 0, SM_X86_ECX, 11 },
	{ "fma4", 0x80000001, 0, SM_X86_ECX, 16 },
	{ "tbm", 0x80000001, 0, SM_X86_ECX, 21 },
	{ "topoext", 0x80000001, 0, SM_X86_ECX, 22 },
	{ "perfctr_core", 0x80000001, 0, SM_X86_ECX, 23 },
	{ "perfctr_nb", 0x80000001, 0, SM_X86_ECX, 24 },
	{ "perfctr_llc", 0x80000001, 0, SM_X86_ECX, 28 },
	{ "nx", 0x80000001, 0, SM_X86_EDX, 20 },
	{ "pdpe1gb", 0x80000001, 0, SM_X86_EDX, 26 },
	{ "rdtscp", 0x80000001, 0, SM_X86_EDX, 27 },
	{ "invariant_tsc", 0x80000007, 0, SM_X86_EDX, 8 },
	{ "clzero", 0x80000008, 0, SM_X86_EBX, 0 },
	{ "xsaveerptr", 0x80000008, 0, SM_X86_EBX, 2 },
	{ "wbnoinvd", 0x80000008, 0, SM_X86_EBX, 9 },
	{ "ibpb", 0x80000008, 0, SM_X86_EBX, 12 },
	{ "ibrs", 0x80000008, 0, SM_X86_EBX, 14 },
	{ "stibp", 0x80000008, 0, SM_X86_EBX, 15 },
	{ "amd_ssbd", 0x80000008, 0, SM_X86_EBX, 24 },
	{ "virt_ssbd", 0x80000008, 0, SM_X86_EBX, 25 },
};
_Static_assert(sizeof features / sizeof *features <= SM_X86_FEATURES_MAX, "room");

/* The first goes when the second does.  In an order in which one pass finds all. */
static const struct {
	const char *name, *needs;
} dependencies[] = {
	{ "avx", "xsave" },
	{ "pku", "xsave" },
	{ "mpx", "xsave" },
	{ "amx_tile", "xsave" },
	{ "xsaveopt", "xsave" },
	{ "xsavec", "xsave" },
	{ "xgetbv1", "xsave" },
	{ "xsaves", "xsave" },
	{ "shstk", "xsaves" },
	{ "ibt", "xsaves" },
	{ "avx2", "avx" },
	{ "fma", "avx" },
	{ "f16c", "avx" },
	{ "vaes", "avx" },
	{ "vpclmulqdq", "avx" },
	{ "avx_vnni", "avx" },
	{ "avx_ifma", "avx" },
	{ "avx_vnni_int8", "avx" },
	{ "avx_ne_convert", "avx" },
	{ "xop", "avx" },
	{ "fma4", "avx" },
	{ "avx512f", "avx2" },
	{ "avx512dq", "avx512f" },
	{ "avx512ifma", "avx512f" },
	{ "avx512pf", "avx512f" },
	{ "avx512er", "avx512f" },
	{ "avx512cd", "avx512f" },
	{ "avx512bw", "avx512f" },
	{ "avx512vl", "avx512f" },
	{ "avx512vbmi", "avx512f" },
	{ "avx512_vbmi2", "avx512f" },
	{ "avx512_vnni", "avx512f" },
	{ "avx512_bitalg", "avx512f" },
	{ "avx512_vpopcntdq", "avx512f" },
	{ "avx512_4vnniw", "avx512f" },
	{ "avx512_4fmaps", "avx512f" },
	{ "avx512_vp2intersect", "avx512f" },
	{ "avx512_fp16", "avx512f" },
	{ "avx512_bf16", "avx512f" },
	{ "amx_bf16", "amx_tile" },
	{ "amx_int8", "amx_tile" },
	{ "amx_fp16", "amx_tile" },
	{ "amx_complex", "amx_tile" },
	{ "sgx_lc", "sgx" },
};

/* Not for any guest: see cpuid.h. */
static const char *const hidden[] = {
	"vmx",      "svm", "pdcm", "perfctr_core", "perfctr_nb", "perfctr_llc",
	"arch_lbr", "ibs", "sgx",  "intel_pt",     "smx",        "invariant_tsc",
};

const struct sm_x86_feature *sm_x86_features(size_t *ret_count)
{
	*ret_count = sizeof features / sizeof *features;
	return features;
}

const char *sm_x86_feature_name(uint32_t leaf, uint32_t subleaf, enum sm_x86_register reg, unsigned bit)
{
	for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
		const struct sm_x86_feature *feature = &features[i];
		if (feature->leaf == leaf && feature->subleaf == subleaf && feature->reg == reg && feature->bit == bit)
			return feature->name;
	}
	return NULL;
}

/* Returns whether there is one of exactly this name. */
static bool turn_off(const char *name, size_t len, bool *off)
{
	for (size_t i = 0; i < sizeof features / sizeof *features; i++)
		if (strlen(features[i].name) == len && memcmp(features[i].name, name, len) == 0)
			return off[i] = true;
	return false;
}

/* Groups and other common spellings. */
static size_t alias(const char **name, size_t len)
{
	static const char *const aliases[][2] = {
		{ "avx512", "avx512f" },
		{ "amx", "amx_tile" },
		{ "pni", "sse3" },
		{ "cmpxchg16b", "cx16" },
		{ "tsc_deadline", "tsc_deadline_timer" },
		{ "1gb_pages", "pdpe1gb" },
	};
	for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
		if (strlen(aliases[i][0]) == len && memcmp(aliases[i][0], *name, len) == 0) {
			*name = aliases[i][1];
			return strlen(*name);
		}
	return len;
}

static bool is_off(const char *name, const bool *off)
{
	for (size_t i = 0; i < sizeof features / sizeof *features; i++)
		if (strcmp(features[i].name, name) == 0)
			return off[i];
	return false;
}

int sm_x86_features_off(const char *cpu_disable, bool off[SM_X86_FEATURES_MAX], struct sm_error *err)
{
	memset(off, 0, SM_X86_FEATURES_MAX * sizeof *off);
	for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++)
		turn_off(hidden[i], strlen(hidden[i]), off);
	for (const char *at = cpu_disable ? cpu_disable : ""; *at;) {
		at += strspn(at, ", ");
		size_t len = strcspn(at, ", ");
		if (len == 0)
			break;
		const char *name = at;
		size_t name_len = alias(&name, len);
		if (!turn_off(name, name_len, off))
			return sm_error_set(err, EINVAL, "cpu_disable: '%.*s' is not a CPU feature that can be hidden",
			                    (int)(len < 64 ? len : 64), at);
		at += len;
	}
	for (size_t i = 0; i < sizeof dependencies / sizeof *dependencies; i++)
		if (is_off(dependencies[i].needs, off))
			turn_off(dependencies[i].name, strlen(dependencies[i].name), off);
	return 0;
}

int sm_x86_cpuid_check_names(const char *cpu_disable, struct sm_error *err)
{
	bool off[SM_X86_FEATURES_MAX];
	return sm_x86_features_off(cpu_disable, off, err);
}
