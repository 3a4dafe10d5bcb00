/* The aarch64 machine's fixed addresses: what the device tree, the machine's buses and the hypervisor's back end agree
 * on.  Part of the plan's ABI: a snapshot's guest goes on using them. */
#ifndef SM_ARCH_AARCH64_PLATFORM_H
#define SM_ARCH_AARCH64_PLATFORM_H

#include <stdint.h>

/* GICv3 (ARM IHI 0069): the distributor, then one pair of 64 KiB frames (RD_base, SGI_base) a vCPU. */
#define SM_ARM64_GICD_BASE         UINT64_C(0x08000000)
#define SM_ARM64_GICD_BYTES        UINT64_C(0x10000)
#define SM_ARM64_GICR_BASE         UINT64_C(0x080a0000)
#define SM_ARM64_GICR_BYTES_A_VCPU UINT64_C(0x20000)
/* Interrupt IDs, those of a plan: 16 to 31 are each vCPU's own (PPI), 32 and up are shared (SPI). */
#define SM_ARM64_SPI_BASE       32u
#define SM_ARM64_GIC_INTERRUPTS 192u /* a multiple of 32 past the plan's last (160, the generation ID) */

/* Private interrupts of the generic timer, as Arm's Base System Architecture assigns them. */
#define SM_ARM64_PPI_TIMER_SECURE   29u
#define SM_ARM64_PPI_TIMER_PHYSICAL 30u
#define SM_ARM64_PPI_TIMER_VIRTUAL  27u
#define SM_ARM64_PPI_TIMER_HYP      26u

/* PL011 (ARM DDI 0183): one page at the plan's serial_base, and the clock that its divisors count. */
#define SM_ARM64_PL011_BYTES    UINT64_C(0x1000)
#define SM_ARM64_PL011_CLOCK_HZ 24000000u

#endif
