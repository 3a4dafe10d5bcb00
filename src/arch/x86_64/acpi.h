/* The ACPI tables of a plan (ACPI 6.4): hardware-reduced, nothing but what the plan says. */
#ifndef SM_ARCH_X86_64_ACPI_H
#define SM_ARCH_X86_64_ACPI_H

#include "base/buf.h"
#include "base/error.h"
#include "plan/plan.h"

/* Append what goes to plan->firmware_gpa: RSDP first, then DSDT, FADT, MADT and XSDT.  buf must be empty.  Pure: the
 * same plan gives the same bytes.  -E2BIG when they do not fit below the generation ID. */
int sm_x86_acpi_build(const struct sm_plan *plan, struct sm_buf *buf, struct sm_error *err);

/* The DSDT's definition block, without its header. */
void sm_x86_dsdt_build(const struct sm_plan *plan, struct sm_buf *buf);

#endif
