#include "hv_kvm/aarch64.h"
#include "hv_kvm/probe_guest.h"

#include <string.h>

const struct sm_kvm_need sm_kvm_probe_extras[] = {
	{ KVM_CAP_ARM_VM_IPA_SIZE, "KVM_CAP_ARM_VM_IPA_SIZE" },
	{ KVM_CAP_ARM_NISV_TO_USER, "KVM_CAP_ARM_NISV_TO_USER" },
	{ KVM_CAP_COUNTER_OFFSET, "KVM_CAP_COUNTER_OFFSET" },
	{ KVM_CAP_ARM_SVE, "KVM_CAP_ARM_SVE" },
	{ KVM_CAP_ARM_PTRAUTH_ADDRESS, "KVM_CAP_ARM_PTRAUTH_ADDRESS" },
	{ 0, NULL },
};

/* It reads and writes outside RAM, where an access exits. */
static const uint32_t speed_code[] = {
	0xd2a1200a, /*    mov x10, #0x9000000 */
	0xb940014b, /* 1: ldr w11, [x10] */
	0x5100056b, /* 2: sub w11, w11, #1 */
	0x35ffffeb, /*    cbnz w11, 2b */
	0xb900014b, /*    str w11, [x10] */
	0x17fffffc, /*    b 1b */
};
const struct sm_kvm_probe_guest sm_kvm_probe_speed = {
	.boot = SM_HV_BOOT_ARM64,
	.code = speed_code,
	.bytes = sizeof speed_code,
};

/* With the MMU off, user mode may reach all memory. */
static const uint32_t user_code[] = {
	0xd2a00200, /*    mov x0, #0x100000          VECTORS_GPA */
	0xf2810000, /*    movk x0, #0x800 */
	0xd518c000, /*    msr vbar_el1, x0 */
	0x100000c0, /*    adr x0, 1f */
	0xd5184020, /*    msr elr_el1, x0 */
	0xd2807800, /*    mov x0, #0x3c0             EL0, all masked */
	0xd5184000, /*    msr spsr_el1, x0 */
	0xd5033fdf, /*    isb */
	0xd69f03e0, /*    eret */
	0xd4000001, /* 1: svc #0 */
};
static const uint32_t handler_code[] = {
	0xd5384240, /*    mrs x0, currentel */
	0xd27e0000, /*    eor x0, x0, #4             EL1 */
	0xd5385201, /*    mrs x1, esr_el1 */
	0xd35afc21, /*    lsr x1, x1, #26 */
	0xd1005421, /*    sub x1, x1, #0x15          a system call */
	0xaa010000, /*    orr x0, x0, x1 */
	0xd2a1200a, /*    mov x10, #0x9000000 */
	0xb9000140, /*    str w0, [x10] */
	0x14000000, /*    b . */
};

#define VECTORS_GPA 0x100800u
#define VECTOR_USER 0x400u /* a synchronous exception from 64-bit user mode */

static void put_handler(uint8_t *ram)
{
	memcpy(ram + VECTORS_GPA + VECTOR_USER, handler_code, sizeof handler_code);
}

const struct sm_kvm_probe_guest sm_kvm_probe_user = {
	.boot = SM_HV_BOOT_ARM64,
	.code = user_code,
	.bytes = sizeof user_code,
	.prepare = put_handler,
};

/* KVM is built in, and says nothing to a program of why it is not there. */
const char *sm_kvm_probe_module_advice(void)
{
	return "KVM needs a kernel that was started in EL2 (`dmesg | grep kvm` says what it found): switch "
	       "virtualisation on "
	       "in the firmware or, where this machine is itself a guest, nested virtualisation in its host";
}
