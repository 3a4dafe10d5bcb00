/* The steps of loading for x86_64, private to this folder. */
#ifndef SM_ARCH_X86_64_LOAD_H
#define SM_ARCH_X86_64_LOAD_H

#include "base/error.h"
#include "hv/hv.h"
#include "memory/memory.h"
#include "plan/plan.h"

#include <stdint.h>

/* Memory types, the same numbers in an e820 map and in hvm_start_info. */
#define SM_X86_MEMMAP_RAM      1u
#define SM_X86_MEMMAP_RESERVED 2u
#define SM_X86_MEMMAP_MAX      5u

struct sm_x86_memmap_entry {
	uint64_t gpa, bytes;
	uint32_t type;
};

struct sm_x86_load {
	const struct sm_plan *plan;
	struct sm_memory *memory;
	int kernel_fd;
	uint64_t kernel_bytes;             /* of the file */
	uint64_t entry;                    /* guest physical */
	uint64_t kernel_end;               /* first byte after all that the kernel needs at the start */
	uint64_t initrd_gpa, initrd_bytes; /* bytes 0: none */
	uint64_t rsdp_gpa;
	unsigned nmap;
	struct sm_x86_memmap_entry map[SM_X86_MEMMAP_MAX];
};

/* elf.c: put the segments in place; sets entry and kernel_end.  -ENOEXEC, -E2BIG. */
int sm_x86_elf_load(struct sm_x86_load *load, struct sm_error *err);

/* pvh.c: the start info for a loaded ELF kernel. */
int sm_x86_pvh_boot(const struct sm_x86_load *load, struct sm_hv_boot *ret_boot, struct sm_error *err);

/* bzimage.c: put the protected-mode part in place (sets entry, kernel_end; *ret_initrd_max: the last address an
 * initramfs may have), then, after the initramfs is placed, write boot_params, GDT and page tables. */
int sm_x86_bzimage_load(struct sm_x86_load *load, uint64_t *ret_initrd_max, struct sm_error *err);
int sm_x86_bzimage_boot(const struct sm_x86_load *load, struct sm_hv_boot *ret_boot, struct sm_error *err);

#endif
