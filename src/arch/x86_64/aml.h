/* ACPI machine language, as much as a DSDT of fixed devices needs (ACPI 6.4, chapter 20), appended to a buffer.
 *
 * A begin function returns a mark that the matching end function takes; they nest.  The buffer's sticky failure is the
 * only error.  Names are of 1 to 4 characters, padded with '_' here. */
#ifndef SM_ARCH_X86_64_AML_H
#define SM_ARCH_X86_64_AML_H

#include "base/buf.h"

#include <stddef.h>
#include <stdint.h>

size_t sm_aml_scope_begin(struct sm_buf *buf, const char *root_child); /* Scope (\NAME) */
size_t sm_aml_device_begin(struct sm_buf *buf, const char *name);
size_t sm_aml_method_begin(struct sm_buf *buf, const char *name, unsigned arguments); /* serialized */
size_t sm_aml_package_begin(struct sm_buf *buf, unsigned elements);
void sm_aml_end(struct sm_buf *buf, size_t mark);

void sm_aml_name(struct sm_buf *buf, const char *name); /* Name (NAME, ..): its value is what is appended next */
void sm_aml_integer(struct sm_buf *buf, uint64_t value);
void sm_aml_string(struct sm_buf *buf, const char *text);
void sm_aml_eisa_id(struct sm_buf *buf, const char *id); /* "PNP0501" */

/* If (Arg0 == value) { Notify (\SCOPE.DEVICE, code) } */
void sm_aml_notify_if_arg0(struct sm_buf *buf, uint64_t value, const char *scope, const char *device, uint8_t code);

/* A resource template (ACPI 6.4, 6.4). */
size_t sm_aml_resources_begin(struct sm_buf *buf);
void sm_aml_resource_memory32(struct sm_buf *buf, uint32_t base, uint32_t length); /* fixed, read and write */
void sm_aml_resource_ports(struct sm_buf *buf, uint16_t base, uint8_t length);
void sm_aml_resource_interrupt(struct sm_buf *buf, uint32_t gsi); /* consumer, edge, active high, exclusive */
void sm_aml_resources_end(struct sm_buf *buf, size_t mark);

#endif
