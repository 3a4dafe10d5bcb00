/* A bzImage by its 64-bit entry (Linux, Documentation/arch/x86/boot.rst): it unpacks itself in the guest. */
#include "arch/x86_64/bootparam.h"
#include "arch/x86_64/load.h"
#include "arch/x86_64/platform.h"
#include "base/fd.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/random.h>

#define SECTOR         512
#define HEADER_OFFSET  0x1f1
#define VERSION_MIN    0x020c /* has xloadflags */
#define ENTRY_64       0x200  /* from the start of the protected-mode part */
#define LOADER_UNKNOWN 0xff
#define SEED_BYTES     32

#define PAGE       UINT64_C(4096)
#define ENTRIES    512
#define PRESENT_RW 0x03u
#define LARGE      0x80u
#define MAPPED_GIB 4

static int read_header(const struct sm_x86_load *load, struct sm_x86_setup_header *header, struct sm_error *err)
{
	uint8_t jump;
	memset(header, 0, sizeof *header);
	/* The header ends where the jump at 0x200 leads: the second byte of that instruction says how far. */
	int code =
	    sm_fd_pread_full(load->kernel_fd, &jump, 1, HEADER_OFFSET + offsetof(struct sm_x86_setup_header, jump) + 1);
	size_t len = 0x202u + jump - HEADER_OFFSET;
	if (len > sizeof *header)
		len = sizeof *header;
	if (code == 0)
		code = sm_fd_pread_full(load->kernel_fd, header, len, HEADER_OFFSET);
	return code < 0 ? sm_error_sys(err, code, "kernel: read the bzImage's header") : 0;
}

static int check_header(const struct sm_x86_setup_header *header, struct sm_error *err)
{
	if (header->version < VERSION_MIN)
		return sm_error_set(err, ENOEXEC, "kernel: a bzImage of boot protocol %u.%u, 2.12 or later is needed",
		                    header->version >> 8, header->version & 0xff);
	if (!(header->xloadflags & SM_X86_XLF_KERNEL_64))
		return sm_error_set(err, ENOEXEC, "kernel: a bzImage without a 64-bit entry (a 32-bit kernel?)");
	return 0;
}

int sm_x86_bzimage_load(struct sm_x86_load *load, uint64_t *ret_initrd_max, struct sm_error *err)
{
	struct sm_x86_setup_header header;
	int code = read_header(load, &header, err);
	if (code == 0)
		code = check_header(&header, err);
	if (code < 0)
		return code;

	uint64_t setup = ((header.setup_sects ? header.setup_sects : 4u) + 1u) * (uint64_t)SECTOR;
	if (load->kernel_bytes <= setup + ENTRY_64)
		return sm_error_set(err, ENOEXEC, "kernel: a bzImage cut short: %llu bytes",
		                    (unsigned long long)load->kernel_bytes);
	uint64_t bytes = load->kernel_bytes - setup, room = header.init_size > bytes ? header.init_size : bytes;
	if (header.syssize * UINT64_C(16) > bytes + 15)
		return sm_error_set(err, ENOEXEC, "kernel: a bzImage cut short: %llu bytes of %llu",
		                    (unsigned long long)bytes, (unsigned long long)header.syssize * 16);
	uint64_t start = header.pref_address;
	if (start < SM_X86_HIGH_START || start > UINT32_MAX || !sm_memory_at_read(load->memory, start, room))
		return sm_error_set(err, E2BIG, "kernel: %llu MiB at 0x%llx are not within %llu MiB of RAM",
		                    (unsigned long long)(room / SM_MIB), (unsigned long long)start,
		                    (unsigned long long)load->plan->memory_mib);
	if (strlen(load->plan->cmdline) > header.cmdline_size)
		return sm_error_set(err, E2BIG, "kernel: its command line may have %u bytes, this one has %zu",
		                    header.cmdline_size, strlen(load->plan->cmdline));

	code = sm_fd_pread_full(load->kernel_fd, sm_memory_at_write(load->memory, start, bytes), bytes, setup);
	if (code < 0)
		return sm_error_sys(err, code, "kernel: read");
	load->entry = start + ENTRY_64;
	load->kernel_end = start + room;
	*ret_initrd_max = header.initrd_addr_max;
	return 0;
}

/* Saves the guest its wait for early randomness; the kernel wipes it after use. */
static int write_seed(const struct sm_x86_load *load, struct sm_error *err)
{
	struct {
		uint64_t next;
		uint32_t type, len;
		uint8_t bytes[SEED_BYTES];
	} seed = { .type = SM_X86_SETUP_RNG_SEED, .len = SEED_BYTES };
	_Static_assert(sizeof seed == 16 + SEED_BYTES, "as struct setup_data");
	if (getrandom(seed.bytes, sizeof seed.bytes, 0) != (ssize_t)sizeof seed.bytes)
		return sm_error_sys(err, errno, "kernel: random seed");
	int code = sm_memory_write(load->memory, SM_X86_RNG_SEED_GPA, &seed, sizeof seed);
	explicit_bzero(&seed, sizeof seed);
	return code < 0 ? sm_error_sys(err, code, "kernel: random seed") : 0;
}

/* The first 4 GiB, virtual = physical, by pages of 2 MiB. */
static int write_page_tables(const struct sm_x86_load *load, struct sm_error *err)
{
	_Static_assert(SM_X86_PAGE_TABLE_GPA + (2 + MAPPED_GIB) * PAGE <= SM_X86_CMDLINE_GPA, "room");
	uint64_t *tables = sm_memory_at_write(load->memory, SM_X86_PAGE_TABLE_GPA, (2 + MAPPED_GIB) * PAGE);
	if (!tables)
		return sm_error_set(err, E2BIG, "kernel: no RAM for page tables");
	uint64_t *directory_pointers = tables + ENTRIES, *directories = directory_pointers + ENTRIES;
	tables[0] = (SM_X86_PAGE_TABLE_GPA + PAGE) | PRESENT_RW;
	for (unsigned i = 0; i < MAPPED_GIB; i++)
		directory_pointers[i] = (SM_X86_PAGE_TABLE_GPA + (2 + i) * PAGE) | PRESENT_RW;
	for (uint64_t i = 0; i < MAPPED_GIB * ENTRIES; i++)
		directories[i] = i * (2 * SM_MIB) | LARGE | PRESENT_RW;
	return 0;
}

static int write_zero_page(const struct sm_x86_load *load, struct sm_error *err)
{
	struct sm_x86_boot_params params;
	memset(&params, 0, sizeof params);
	int code = read_header(load, &params.hdr, err);
	if (code < 0)
		return code;
	params.hdr.type_of_loader = LOADER_UNKNOWN;
	params.hdr.cmd_line_ptr = (uint32_t)SM_X86_CMDLINE_GPA;
	params.hdr.ramdisk_image = (uint32_t)load->initrd_gpa;
	params.hdr.ramdisk_size = (uint32_t)load->initrd_bytes;
	params.hdr.setup_data = SM_X86_RNG_SEED_GPA;
	params.acpi_rsdp_addr = load->rsdp_gpa;
	params.e820_entries = (uint8_t)load->nmap;
	for (unsigned i = 0; i < load->nmap; i++)
		params.e820_table[i] =
		    (struct sm_x86_e820_entry){ load->map[i].gpa, load->map[i].bytes, load->map[i].type };
	code = sm_memory_write(load->memory, SM_X86_ZERO_PAGE_GPA, &params, sizeof params);
	return code < 0 ? sm_error_sys(err, code, "kernel: boot parameters") : 0;
}

int sm_x86_bzimage_boot(const struct sm_x86_load *load, struct sm_hv_boot *ret_boot, struct sm_error *err)
{
	static const uint64_t gdt[SM_X86_GDT_ENTRIES] = {
		[SM_X86_BOOT_CS / 8] = SM_X86_GDT_CODE,
		[SM_X86_BOOT_DS / 8] = SM_X86_GDT_DATA,
	};
	int code = sm_memory_write(load->memory, SM_X86_GDT_GPA, gdt, sizeof gdt);
	if (code < 0)
		return sm_error_sys(err, code, "kernel: GDT");
	code = write_page_tables(load, err);
	if (code == 0)
		code = write_seed(load, err);
	if (code == 0)
		code = write_zero_page(load, err);
	if (code < 0)
		return code;
	*ret_boot = (struct sm_hv_boot){
		.kind = SM_HV_BOOT_LONG64,
		.entry = load->entry,
		.arg = SM_X86_ZERO_PAGE_GPA,
		.page_table = SM_X86_PAGE_TABLE_GPA,
	};
	return 0;
}
