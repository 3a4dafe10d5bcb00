/* The x86_64 machine's fixed addresses: what the loader, the tables, the machine's buses and the hypervisor's back end
 * agree on.  Part of the plan's ABI: a snapshot's guest goes on using them. */
#ifndef SM_ARCH_X86_64_PLATFORM_H
#define SM_ARCH_X86_64_PLATFORM_H

#include <stdint.h>

/* Ports.  FADT (ACPI 6.4, 5.2.9): RESET_REG, SLEEP_CONTROL_REG and SLEEP_STATUS_REG, one byte each.  A guest that
 * writes RESET_VALUE to RESET_PORT wants a reset; one that writes SLEEP_S5_VALUE to SLEEP_CONTROL_PORT is off. Anything
 * else written there is ignored, and all three read as zero (WAK_STS clear). */
#define SM_X86_RESET_PORT         0x600u
#define SM_X86_RESET_VALUE        0x01u
#define SM_X86_SLEEP_CONTROL_PORT 0x604u
#define SM_X86_SLEEP_STATUS_PORT  0x605u
#define SM_X86_SLEEP_S5_TYPE      5u
#define SM_X86_SLEEP_S5_VALUE     0x34u /* SLP_TYPx 5 in bits 2 to 4, SLP_EN in bit 5 (ACPI 6.4, 4.8.3.7) */

/* A guest without ACPI tables pulses the reset line of the keyboard controller. */
#define SM_X86_KEYBOARD_PORT        0x64u
#define SM_X86_KEYBOARD_RESET_VALUE 0xfeu

#define SM_X86_SERIAL_PORT 0x3f8u

/* Interrupt controllers, where KVM's in-kernel irqchip has them. */
#define SM_X86_IOAPIC_BASE UINT64_C(0xfec00000)
#define SM_X86_IOAPIC_PINS 24u
#define SM_X86_LAPIC_BASE  UINT64_C(0xfee00000)

/* Low memory, below 640 KiB: written before the first instruction, free for the guest after it has looked. */
#define SM_X86_GDT_GPA        UINT64_C(0x1000) /* for SM_HV_BOOT_LONG64 */
#define SM_X86_START_INFO_GPA UINT64_C(0x2000) /* hvm_start_info, module list, memory map */
#define SM_X86_RNG_SEED_GPA   UINT64_C(0x3000) /* setup_data */
#define SM_X86_ZERO_PAGE_GPA  UINT64_C(0x7000) /* boot_params */
#define SM_X86_PAGE_TABLE_GPA UINT64_C(0x9000) /* PML4, PDPT, 4 page directories */
#define SM_X86_CMDLINE_GPA    UINT64_C(0x20000)
#define SM_X86_LOW_END        UINT64_C(0x9fc00) /* end of conventional memory */
#define SM_X86_HIGH_START     UINT64_C(0x100000)

/* SM_HV_BOOT_LONG64: the GDT at SM_X86_GDT_GPA and the selectors in it (Linux x86 boot protocol, 64-bit: __BOOT_CS 0x10
 * execute/read, __BOOT_DS 0x18 read/write, both 4 GiB flat).  CR3 = page_table: the first 4 GiB, identity-mapped. */
#define SM_X86_GDT_ENTRIES 4u
#define SM_X86_GDT_LIMIT   (SM_X86_GDT_ENTRIES * 8u - 1u)
#define SM_X86_GDT_CODE    UINT64_C(0x00af9b000000ffff)
#define SM_X86_GDT_DATA    UINT64_C(0x00cf93000000ffff)
#define SM_X86_BOOT_CS     0x10u
#define SM_X86_BOOT_DS     0x18u

#endif
