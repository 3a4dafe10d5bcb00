#include "hv_kvm/probe_guest.h"

#include <cpuid.h>
#include <string.h>

const struct sm_kvm_need sm_kvm_probe_extras[] = {
	{ KVM_CAP_TSC_CONTROL, "KVM_CAP_TSC_CONTROL" },
	{ 0, NULL },
};

static const uint8_t speed_code[] = {
	0xba, 0x10, 0x00, 0x00, 0x00, /*    mov $0x10, %edx */
	0xed,                         /* 1: in %dx, %eax */
	0x89, 0xc1,                   /*    mov %eax, %ecx */
	0x49,                         /* 2: dec %ecx */
	0x75, 0xfd,                   /*    jnz 2b */
	0xef,                         /*    out %eax, %dx */
	0xeb, 0xf7,                   /*    jmp 1b */
};
const struct sm_kvm_probe_guest sm_kvm_probe_speed = {
	.boot = SM_HV_BOOT_PVH,
	.code = speed_code,
	.bytes = sizeof speed_code,
};

/* SYSCALL loads fixed segments, so no descriptor table is needed; I/O privilege 3 lets user mode write too. */
static const uint8_t user_code[] = {
	0xb9, 0x80, 0x00, 0x00, 0xc0,       /*    mov $0xc0000080, %ecx    EFER */
	0x0f, 0x32,                         /*    rdmsr */
	0x83, 0xc8, 0x01,                   /*    or $1, %eax              SCE */
	0x0f, 0x30,                         /*    wrmsr */
	0xb9, 0x81, 0x00, 0x00, 0xc0,       /*    mov $0xc0000081, %ecx    STAR */
	0x31, 0xc0,                         /*    xor %eax, %eax */
	0xba, 0x08, 0x00, 0x13, 0x00,       /*    mov $0x130008, %edx */
	0x0f, 0x30,                         /*    wrmsr */
	0xb9, 0x82, 0x00, 0x00, 0xc0,       /*    mov $0xc0000082, %ecx    LSTAR */
	0xb8, 0x41, 0x00, 0x10, 0x00,       /*    mov $2f, %eax */
	0x31, 0xd2,                         /*    xor %edx, %edx */
	0x0f, 0x30,                         /*    wrmsr */
	0xb9, 0x84, 0x00, 0x00, 0xc0,       /*    mov $0xc0000084, %ecx    FMASK */
	0x31, 0xc0,                         /*    xor %eax, %eax */
	0x0f, 0x30,                         /*    wrmsr */
	0xb9, 0x3f, 0x00, 0x10, 0x00,       /*    mov $1f, %ecx */
	0x41, 0xbb, 0x02, 0x30, 0x00, 0x00, /*    mov $0x3002, %r11d       IOPL 3 */
	0x48, 0x0f, 0x07,                   /*    sysretq */
	0x0f, 0x05,                         /* 1: syscall */
	0x8c, 0xc8,                         /* 2: mov %cs, %eax */
	0x83, 0xe0, 0x03,                   /*    and $3, %eax */
	0xe6, 0x10,                         /*    out %al, $0x10 */
	0xf4,                               /*    hlt */
};

#define PML4_GPA 0x10000u
#define PDPT_GPA 0x11000u
#define PD_GPA   0x12000u

#define PAGE_OPEN  UINT64_C(0x7) /* present, writable, for user mode */
#define PAGE_LARGE UINT64_C(0x80)

/* The first 2 MiB, for both modes. */
static void map_for_user(uint8_t *ram)
{
	uint64_t pml4 = PDPT_GPA | PAGE_OPEN, pdpt = PD_GPA | PAGE_OPEN, pd = PAGE_LARGE | PAGE_OPEN;
	memcpy(ram + PML4_GPA, &pml4, sizeof pml4);
	memcpy(ram + PDPT_GPA, &pdpt, sizeof pdpt);
	memcpy(ram + PD_GPA, &pd, sizeof pd);
}

const struct sm_kvm_probe_guest sm_kvm_probe_user = {
	.boot = SM_HV_BOOT_LONG64,
	.page_table = PML4_GPA,
	.code = user_code,
	.bytes = sizeof user_code,
	.prepare = map_for_user,
};

#define LEAF1_ECX_VMX        (1u << 5)
#define LEAF80000001_ECX_SVM (1u << 2)

const char *sm_kvm_probe_module_advice(void)
{
	unsigned eax, ebx, ecx, edx;
	if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & LEAF1_ECX_VMX))
		return "load the module: modprobe kvm_intel (if it refuses, switch VT-x on in the firmware)";
	if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) && (ecx & LEAF80000001_ECX_SVM))
		return "load the module: modprobe kvm_amd (if it refuses, switch SVM on in the firmware)";
	return "the processor offers neither VT-x nor AMD-V: switch virtualisation on in the firmware or, where this "
	       "machine is itself a guest, nested virtualisation in its host";
}
