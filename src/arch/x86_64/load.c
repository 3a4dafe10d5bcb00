/* Kernel, initramfs, command line and tables into RAM. */
#include "arch/x86_64/load.h"

#include "arch/arch.h"
#include "arch/x86_64/acpi.h"
#include "arch/x86_64/platform.h"
#include "base/fd.h"

#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define HEAD_BYTES   1024
#define PAGE         UINT64_C(4096)
#define TABLES_MAX   (128u << 10)
#define CMDLINE_ROOM (SM_X86_LOW_END - SM_X86_CMDLINE_GPA)

enum format {
	FORMAT_ELF,
	FORMAT_BZIMAGE,
};

/* Kernels that people give by mistake are named. */
static int sniff(const uint8_t *head, size_t len, enum format *ret_format, struct sm_error *err)
{
	static const struct {
		size_t offset, len;
		const char *magic, *what;
	} others[] = {
		{ 56, 4, "ARM\x64", "an aarch64 Image, and this machine is x86_64" },
		{ 0, 2, "\x1f\x8b", "compressed with gzip: unpack it first" },
		{ 0, 6,
		  "\xfd"
		  "7zXZ",
		  "compressed with xz: unpack it first" },
		{ 0, 4, "\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first" },
	};
	if (len >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0) {
		*ret_format = FORMAT_ELF;
		return 0;
	}
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		if (len >= others[i].offset + others[i].len &&
		    memcmp(head + others[i].offset, others[i].magic, others[i].len) == 0)
			return sm_error_set(err, ENOEXEC, "kernel: %s", others[i].what);
	if (len >= 0x206 && head[0x1fe] == 0x55 && head[0x1ff] == 0xaa && memcmp(head + 0x202, "HdrS", 4) == 0) {
		*ret_format = FORMAT_BZIMAGE;
		return 0;
	}
	return sm_error_set(err, ENOEXEC, "kernel: neither an ELF image with a PVH note nor a bzImage");
}

static int file_size(int fd, const char *what, uint64_t *ret_bytes, struct sm_error *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return sm_error_sys(err, errno, "%s", what);
	if (!S_ISREG(st.st_mode))
		return sm_error_set(err, EINVAL, "%s: not a regular file", what);
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

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

/* As high as it may be, so that it is out of the way of what the kernel unpacks itself into. */
static int load_initrd(struct sm_x86_load *load, int initrd_fd, uint64_t initrd_max, struct sm_error *err)
{
	uint64_t bytes;
	int code = file_size(initrd_fd, "initramfs", &bytes, err);
	if (code < 0 || bytes == 0)
		return code;
	uint64_t top = load->plan->ram[0].gpa + load->plan->ram[0].bytes;
	if (initrd_max < top - 1)
		top = initrd_max + 1;
	if (bytes > top || (top - bytes) / PAGE * PAGE < load->kernel_end)
		return sm_error_set(
		    err, E2BIG,
		    "initramfs: %llu bytes do not fit between the kernel's end at 0x%llx and 0x%llx: give the "
		    "machine more memory_mib",
		    (unsigned long long)bytes, (unsigned long long)load->kernel_end, (unsigned long long)top);
	load->initrd_gpa = (top - bytes) / PAGE * PAGE;
	load->initrd_bytes = bytes;
	void *at = sm_memory_at_write(load->memory, load->initrd_gpa, bytes);
	if (!at)
		return sm_error_set(err, E2BIG, "initramfs: no RAM at 0x%llx", (unsigned long long)load->initrd_gpa);
	code = sm_fd_pread_full(initrd_fd, at, bytes, 0);
	return code < 0 ? sm_error_sys(err, code, "initramfs: read") : 0;
}

int sm_arch_load(const struct sm_plan *plan, struct sm_memory *memory, int kernel_fd, int initrd_fd,
                 struct sm_hv_boot *ret_boot, struct sm_error *err)
{
	if (plan->arch != SM_PLAN_X86_64)
		return sm_error_set(err, ENOEXEC, "the plan is for %s, this build is for x86_64",
		                    sm_plan_arch_name(plan->arch));
	struct sm_x86_load load = { .plan = plan, .memory = memory, .kernel_fd = kernel_fd };
	int code = file_size(kernel_fd, "kernel", &load.kernel_bytes, err);
	if (code < 0)
		return code;

	uint8_t head[HEAD_BYTES];
	size_t len = load.kernel_bytes < sizeof head ? load.kernel_bytes : sizeof head;
	code = sm_fd_pread_full(kernel_fd, head, len, 0);
	if (code < 0)
		return sm_error_sys(err, code, "kernel: read");
	enum format format = FORMAT_ELF;
	code = sniff(head, len, &format, err);
	if (code < 0)
		return code;

	describe_memory(&load);
	code = write_tables(&load, err);
	if (code == 0)
		code = write_cmdline(&load, err);

	uint64_t initrd_max = UINT32_MAX;
	if (code == 0)
		code =
		    format == FORMAT_ELF ? sm_x86_elf_load(&load, err) : sm_x86_bzimage_load(&load, &initrd_max, err);
	if (code == 0 && initrd_fd >= 0)
		code = load_initrd(&load, initrd_fd, initrd_max, err);
	if (code < 0)
		return code;
	return format == FORMAT_ELF ? sm_x86_pvh_boot(&load, ret_boot, err) : sm_x86_bzimage_boot(&load, ret_boot, err);
}
