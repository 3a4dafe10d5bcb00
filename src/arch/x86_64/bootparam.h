/* The zero page (Linux, Documentation/arch/x86/zero-page.rst and boot.rst), as far as it is used here: the kernel's own
 * header has it on x86_64 hosts alone. */
#ifndef SM_ARCH_X86_64_BOOTPARAM_H
#define SM_ARCH_X86_64_BOOTPARAM_H

#include <stddef.h>
#include <stdint.h>

#define SM_X86_XLF_KERNEL_64  0x01u /* xloadflags */
#define SM_X86_SETUP_RNG_SEED 9u    /* setup_data type */

/* At 0x1f1 of the file and of the zero page. */
struct sm_x86_setup_header {
	uint8_t setup_sects;
	uint16_t root_flags;
	uint32_t syssize;
	uint16_t ram_size, vid_mode, root_dev, boot_flag, jump;
	uint32_t header;
	uint16_t version;
	uint32_t realmode_swtch;
	uint16_t start_sys_seg, kernel_version;
	uint8_t type_of_loader, loadflags;
	uint16_t setup_move_size;
	uint32_t code32_start, ramdisk_image, ramdisk_size, bootsect_kludge;
	uint16_t heap_end_ptr;
	uint8_t ext_loader_ver, ext_loader_type;
	uint32_t cmd_line_ptr, initrd_addr_max, kernel_alignment;
	uint8_t relocatable_kernel, min_alignment;
	uint16_t xloadflags;
	uint32_t cmdline_size, hardware_subarch;
	uint64_t hardware_subarch_data;
	uint32_t payload_offset, payload_length;
	uint64_t setup_data, pref_address;
	uint32_t init_size, handover_offset, kernel_info_offset;
} __attribute__((packed));

struct sm_x86_e820_entry {
	uint64_t gpa, bytes;
	uint32_t type;
} __attribute__((packed));

struct sm_x86_boot_params {
	uint8_t pad0[0x070];
	uint64_t acpi_rsdp_addr;
	uint8_t pad1[0x1e8 - 0x078];
	uint8_t e820_entries;
	uint8_t pad2[0x1f1 - 0x1e9];
	struct sm_x86_setup_header hdr;
	uint8_t pad3[0x2d0 - 0x1f1 - sizeof(struct sm_x86_setup_header)];
	struct sm_x86_e820_entry e820_table[128];
	uint8_t pad4[0x1000 - 0x2d0 - 128 * sizeof(struct sm_x86_e820_entry)];
} __attribute__((packed));

_Static_assert(offsetof(struct sm_x86_setup_header, header) == 0x202 - 0x1f1 &&
                   offsetof(struct sm_x86_setup_header, cmd_line_ptr) == 0x228 - 0x1f1 &&
                   offsetof(struct sm_x86_setup_header, setup_data) == 0x250 - 0x1f1 &&
                   sizeof(struct sm_x86_setup_header) == 0x26c - 0x1f1 && sizeof(struct sm_x86_boot_params) == 0x1000,
               "as boot.rst has it");

#endif
