/* Kernel, initramfs, command line and tables into RAM. */
#include "arch/x86_64/load.h"

#include "arch/load.h"
#include "arch/x86_64/acpi.h"
#include "arch/x86_64/platform.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define PAGE         UINT64_C(4096)
#define TABLES_MAX   (128u << 10)
#define CMDLINE_ROOM (SM_X86_LOW_END - SM_X86_CMDLINE_GPA)

static void describe_memory(struct sm_x86_load *load)
{
	const struct sm_plan *plan = load->plan;
	load->map[load->nmap++] = (struct sm_x86_memmap_entry){ 0, SM_X86_LOW_END, SM_X86_MEMMAP_RAM };
	load->map[load->nmap++] =
	    (struct sm_x86_memmap_entry){ plan->firmware_gpa, plan->firmware_bytes, SM_X86_MEMMAP_RESERVED };
	for (unsigned i = 0; i < plan->nram; i++) {
		uint64_t start = plan->ram[i].gpa, end = start + plan->ram[i].bytes;
		if (start < SM_X86_HIGH_START)
			start = SM_X86_HIGH_START;
		load->map[load->nmap++] = (struct sm_x86_memmap_entry){ start, end - start, SM_X86_MEMMAP_RAM };
	}
}

static int write_tables(struct sm_x86_load *load, struct sm_error *err)
{
	SM_BUF_CLEANUP struct sm_buf tables;
	sm_buf_init(&tables, TABLES_MAX);
	int code = sm_x86_acpi_build(load->plan, &tables, err);
	if (code < 0)
		return code;
	load->rsdp_gpa = load->plan->firmware_gpa;
	code = sm_memory_write(load->memory, load->rsdp_gpa, tables.data, tables.len);
	return code < 0 ? sm_error_sys(err, code, "ACPI tables") : 0;
}

static int write_cmdline(struct sm_x86_load *load, struct sm_error *err)
{
	_Static_assert(SM_PLAN_CMDLINE_MAX <= CMDLINE_ROOM, "the command line ends below conventional memory's end");
	const char *cmdline = load->plan->cmdline;
	int code = sm_memory_write(load->memory, SM_X86_CMDLINE_GPA, cmdline, strlen(cmdline) + 1);
	return code < 0 ? sm_error_sys(err, code, "kernel command line") : 0;
}

static int x86_64_load(const struct sm_plan *plan, struct sm_memory *memory, const struct sm_arch_kernel *kernel,
                       int initrd_fd, struct sm_hv_boot *ret_boot, struct sm_error *err)
{
	bool elf = kernel->format == SM_ARCH_ELF;
	if (!elf && kernel->format != SM_ARCH_BZIMAGE)
		return sm_error_set(err, ENOEXEC, "kernel: neither an ELF image with a PVH note nor a bzImage");
	struct sm_x86_load load = {
		.plan = plan,
		.memory = memory,
		.kernel_fd = kernel->fd,
		.kernel_bytes = kernel->bytes,
	};
	describe_memory(&load);
	int code = write_tables(&load, err);
	if (code == 0)
		code = write_cmdline(&load, err);

	uint64_t initrd_max = UINT32_MAX;
	if (code == 0)
		code = elf ? sm_x86_elf_load(&load, err) : sm_x86_bzimage_load(&load, &initrd_max, err);
	uint64_t top = plan->ram[0].gpa + plan->ram[0].bytes;
	if (initrd_max < top - 1)
		top = initrd_max + 1;
	if (code == 0)
		code = sm_arch_initrd_load(memory, initrd_fd, load.kernel_end, top, PAGE, &load.initrd_gpa,
		                           &load.initrd_bytes, err);
	if (code < 0)
		return code;
	return elf ? sm_x86_pvh_boot(&load, ret_boot, err) : sm_x86_bzimage_boot(&load, ret_boot, err);
}

const struct sm_arch sm_arch_x86_64 = { SM_PLAN_X86_64, x86_64_load };
