#include "arch/x86_64/acpi.h"

#include "arch/x86_64/platform.h"

#include <errno.h>
#include <string.h>

#define TABLE_ALIGN  16
#define RSDP_BYTES   36
#define HEADER_BYTES 36

/* Offsets in the common header (ACPI 6.4, 5.2.6). */
#define HEADER_LENGTH   4
#define HEADER_CHECKSUM 9

/* FADT (5.2.9) */
#define FADT_BYTES         276
#define FADT_REVISION      6
#define FADT_MINOR         3
#define FADT_BOOT_ARCH     109
#define FADT_FLAGS         112
#define FADT_RESET_REG     116
#define FADT_RESET_VALUE   128
#define FADT_MINOR_VERSION 131
#define FADT_X_DSDT        140
#define FADT_SLEEP_CONTROL 244
#define FADT_SLEEP_STATUS  256
#define FADT_HYPERVISOR    268
#define BOOT_ARCH_NO_VGA   (1u << 2)
#define BOOT_ARCH_NO_MSI   (1u << 3) /* there is no PCI that could */
#define BOOT_ARCH_NO_RTC   (1u << 5)
#define FLAG_WBINVD        (1u << 0)
#define FLAG_PWR_BUTTON    (1u << 4) /* set: not a fixed-hardware button */
#define FLAG_SLP_BUTTON    (1u << 5)
#define FLAG_RESET_REG     (1u << 10)
#define FLAG_HW_REDUCED    (1u << 20)
#define SPACE_SYSTEM_IO    1
#define ACCESS_BYTE        1

/* MADT (5.2.12) */
#define MADT_REVISION 5
#define MADT_LAPIC    0
#define MADT_IOAPIC   1
#define LAPIC_ENABLED 1u

static void put(uint8_t *at, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

static void append(struct sm_buf *buf, uint64_t value, unsigned size)
{
	uint8_t bytes[8];
	put(bytes, value, size);
	sm_buf_append(buf, bytes, size);
}

static uint8_t checksum(const uint8_t *data, size_t len)
{
	uint8_t sum = 0;
	for (size_t i = 0; i < len; i++)
		sum = (uint8_t)(sum + data[i]);
	return (uint8_t)-sum;
}

static size_t table_begin(struct sm_buf *buf, const char signature[4], uint8_t revision)
{
	sm_buf_append_zero(buf, (TABLE_ALIGN - buf->len % TABLE_ALIGN) % TABLE_ALIGN);
	size_t table = buf->len;
	sm_buf_append(buf, signature, 4);
	append(buf, 0, 4); /* length */
	append(buf, revision, 1);
	append(buf, 0, 1); /* checksum */
	sm_buf_append(buf, "SUPERM", 6);
	sm_buf_append(buf, "SMACHINE", 8);
	append(buf, 1, 4); /* OEM revision */
	sm_buf_append(buf, "SMVM", 4);
	append(buf, 1, 4); /* creator revision */
	return table;
}

/* Returns where the guest finds the table. */
static uint64_t table_end(struct sm_buf *buf, size_t table, const struct sm_plan *plan)
{
	if (buf->failed)
		return 0;
	uint8_t *at = buf->data + table;
	size_t len = buf->len - table;
	put(at + HEADER_LENGTH, len, 4);
	at[HEADER_CHECKSUM] = checksum(at, len);
	return plan->firmware_gpa + table;
}

static void put_port(uint8_t *at, unsigned port)
{
	at[0] = SPACE_SYSTEM_IO;
	at[1] = 8; /* bits */
	at[2] = 0; /* offset in bits */
	at[3] = ACCESS_BYTE;
	put(at + 4, port, 8);
}

static uint64_t build_fadt(const struct sm_plan *plan, uint64_t dsdt, struct sm_buf *buf)
{
	size_t table = table_begin(buf, "FACP", FADT_REVISION);
	uint8_t *body = sm_buf_extend(buf, FADT_BYTES - HEADER_BYTES);
	if (!body)
		return 0;
	memset(body, 0, FADT_BYTES - HEADER_BYTES);
	uint8_t *at = body - HEADER_BYTES;
	put(at + FADT_BOOT_ARCH, BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_MSI | BOOT_ARCH_NO_RTC, 2);
	put(at + FADT_FLAGS, FLAG_WBINVD | FLAG_PWR_BUTTON | FLAG_SLP_BUTTON | FLAG_RESET_REG | FLAG_HW_REDUCED, 4);
	put_port(at + FADT_RESET_REG, SM_X86_RESET_PORT);
	at[FADT_RESET_VALUE] = SM_X86_RESET_VALUE;
	at[FADT_MINOR_VERSION] = FADT_MINOR;
	put(at + FADT_X_DSDT, dsdt, 8);
	put_port(at + FADT_SLEEP_CONTROL, SM_X86_SLEEP_CONTROL_PORT);
	put_port(at + FADT_SLEEP_STATUS, SM_X86_SLEEP_STATUS_PORT);
	memcpy(at + FADT_HYPERVISOR, "SUPERMAC", 8);
	return table_end(buf, table, plan);
}

static uint64_t build_madt(const struct sm_plan *plan, struct sm_buf *buf)
{
	size_t table = table_begin(buf, "APIC", MADT_REVISION);
	append(buf, SM_X86_LAPIC_BASE, 4);
	append(buf, 0, 4); /* flags: no pair of 8259s */
	for (unsigned i = 0; i < plan->vcpus; i++) {
		append(buf, MADT_LAPIC, 1);
		append(buf, 8, 1);
		append(buf, i, 1); /* processor UID */
		append(buf, i, 1); /* APIC ID, as CPUID has it */
		append(buf, LAPIC_ENABLED, 4);
	}
	append(buf, MADT_IOAPIC, 1);
	append(buf, 12, 1);
	append(buf, 0, 2); /* ID, reserved */
	append(buf, SM_X86_IOAPIC_BASE, 4);
	append(buf, 0, 4); /* its first GSI */
	return table_end(buf, table, plan);
}

static void put_rsdp(uint8_t *at, uint64_t xsdt)
{
	memcpy(at, "RSD PTR ", 8);
	memcpy(at + 9, "SUPERM", 6);
	at[15] = 2; /* revision: with an XSDT */
	put(at + 20, RSDP_BYTES, 4);
	put(at + 24, xsdt, 8);
	at[8] = checksum(at, 20);
	at[32] = checksum(at, RSDP_BYTES);
}

int sm_x86_acpi_build(const struct sm_plan *plan, struct sm_buf *buf, struct sm_error *err)
{
	sm_buf_append_zero(buf, RSDP_BYTES);

	size_t table = table_begin(buf, "DSDT", 2); /* 2: integers of 64 bits */
	sm_x86_dsdt_build(plan, buf);
	uint64_t dsdt = table_end(buf, table, plan);
	uint64_t fadt = build_fadt(plan, dsdt, buf);
	uint64_t madt = build_madt(plan, buf);

	table = table_begin(buf, "XSDT", 1);
	append(buf, fadt, 8);
	append(buf, madt, 8);
	uint64_t xsdt = table_end(buf, table, plan);

	if (sm_buf_failed(buf))
		return sm_error_sys(err, buf->failed, "ACPI tables");
	if (buf->len > plan->vmgenid_gpa - plan->firmware_gpa)
		return sm_error_set(err, E2BIG, "ACPI tables: %zu bytes do not fit into the firmware area", buf->len);
	put_rsdp(buf->data, xsdt);
	return 0;
}
