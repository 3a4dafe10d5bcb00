/* What a PVH kernel is told: hvm_start_info, version 1 (Xen, xen/include/public/arch-x86/hvm/start_info.h). */
#include "arch/x86_64/load.h"
#include "arch/x86_64/platform.h"

#include <stddef.h>

#define START_INFO_MAGIC   0x336ec578u
#define START_INFO_VERSION 1u

struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modules, cmdline, rsdp, memmap;
	uint32_t memmap_entries, reserved;
};

struct module {
	uint64_t gpa, bytes, cmdline, reserved;
};

struct memmap_entry {
	uint64_t gpa, bytes;
	uint32_t type, reserved;
};

/* As it lies in the guest's memory: the parts point at each other. */
struct block {
	struct start_info info;
	struct module initrd;
	struct memmap_entry map[SM_X86_MEMMAP_MAX];
};

int sm_x86_pvh_boot(const struct sm_x86_load *load, struct sm_hv_boot *ret_boot, struct sm_error *err)
{
	_Static_assert(sizeof(struct start_info) == 56 && sizeof(struct module) == 32 &&
	                   sizeof(struct memmap_entry) == 24,
	               "no padding");
	_Static_assert(SM_X86_START_INFO_GPA + sizeof(struct block) <= SM_X86_RNG_SEED_GPA, "room");
	struct block block = {
		.info = {
			.magic = START_INFO_MAGIC,
			.version = START_INFO_VERSION,
			.cmdline = SM_X86_CMDLINE_GPA,
			.rsdp = load->rsdp_gpa,
			.memmap = SM_X86_START_INFO_GPA + offsetof(struct block, map),
			.memmap_entries = load->nmap,
		},
	};
	if (load->initrd_bytes) {
		block.info.nr_modules = 1;
		block.info.modules = SM_X86_START_INFO_GPA + offsetof(struct block, initrd);
		block.initrd.gpa = load->initrd_gpa;
		block.initrd.bytes = load->initrd_bytes;
	}
	for (unsigned i = 0; i < load->nmap; i++)
		block.map[i] = (struct memmap_entry){ load->map[i].gpa, load->map[i].bytes, load->map[i].type, 0 };
	int code = sm_memory_write(load->memory, SM_X86_START_INFO_GPA, &block, sizeof block);
	if (code < 0)
		return sm_error_sys(err, code, "PVH start info");
	*ret_boot = (struct sm_hv_boot){
		.kind = SM_HV_BOOT_PVH,
		.entry = load->entry,
		.arg = SM_X86_START_INFO_GPA,
	};
	return 0;
}
