/* The devices as the guest's ACPI interpreter sees them. */
#include "arch/x86_64/acpi.h"
#include "arch/x86_64/aml.h"
#include "arch/x86_64/platform.h"

#include <stdio.h>

#define NOTIFY_GENERATION_CHANGED 0x80

/* Linux finds a virtio-mmio device by this identifier (drivers/virtio/virtio_mmio.c). */
static void virtio_device(const struct sm_plan *plan, unsigned number, struct sm_buf *buf)
{
	const struct sm_plan_slot *slot = &plan->slots[number];
	char name[5];
	snprintf(name, sizeof name, "VR%02X", number & 0xff);
	size_t device = sm_aml_device_begin(buf, name);
	sm_aml_name(buf, "_HID");
	sm_aml_string(buf, "LNRO0005");
	sm_aml_name(buf, "_UID");
	sm_aml_integer(buf, number);
	sm_aml_name(buf, "_CCA"); /* DMA is coherent */
	sm_aml_integer(buf, 1);
	sm_aml_name(buf, "_CRS");
	size_t resources = sm_aml_resources_begin(buf);
	sm_aml_resource_memory32(buf, (uint32_t)slot->base, (uint32_t)plan->mmio_stride);
	sm_aml_resource_interrupt(buf, slot->irq);
	sm_aml_resources_end(buf, resources);
	sm_aml_end(buf, device);
}

static void serial_port(const struct sm_plan *plan, struct sm_buf *buf)
{
	size_t device = sm_aml_device_begin(buf, "COM1");
	sm_aml_name(buf, "_HID");
	sm_aml_eisa_id(buf, "PNP0501");
	sm_aml_name(buf, "_UID");
	sm_aml_integer(buf, 1);
	sm_aml_name(buf, "_CRS");
	size_t resources = sm_aml_resources_begin(buf);
	sm_aml_resource_ports(buf, (uint16_t)plan->serial_base, 8);
	sm_aml_resource_interrupt(buf, plan->serial_irq);
	sm_aml_resources_end(buf, resources);
	sm_aml_end(buf, device);
}

/* The identifier's address (Microsoft, "Virtual Machine Generation ID"), and the event device that says when it changes
 * (ACPI 6.4, 5.6.9: hardware-reduced platforms have no GPEs).  Linux matches the _HID, Windows the _CID. */
static void generation_id(const struct sm_plan *plan, struct sm_buf *buf)
{
	size_t device = sm_aml_device_begin(buf, "VGEN");
	sm_aml_name(buf, "_HID");
	sm_aml_string(buf, "VMGENCTR");
	sm_aml_name(buf, "_CID");
	sm_aml_string(buf, "VM_Gen_Counter");
	sm_aml_name(buf, "_DDN");
	sm_aml_string(buf, "VM_Gen_Counter");
	sm_aml_name(buf, "ADDR");
	size_t address = sm_aml_package_begin(buf, 2);
	sm_aml_integer(buf, (uint32_t)plan->vmgenid_gpa);
	sm_aml_integer(buf, plan->vmgenid_gpa >> 32);
	sm_aml_end(buf, address);
	sm_aml_end(buf, device);

	device = sm_aml_device_begin(buf, "GED");
	sm_aml_name(buf, "_HID");
	sm_aml_string(buf, "ACPI0013");
	sm_aml_name(buf, "_UID");
	sm_aml_integer(buf, 0);
	sm_aml_name(buf, "_CRS");
	size_t resources = sm_aml_resources_begin(buf);
	sm_aml_resource_interrupt(buf, plan->vmgenid_irq);
	sm_aml_resources_end(buf, resources);
	size_t method = sm_aml_method_begin(buf, "_EVT", 1);
	sm_aml_notify_if_arg0(buf, plan->vmgenid_irq, "_SB", "VGEN", NOTIFY_GENERATION_CHANGED);
	sm_aml_end(buf, method);
	sm_aml_end(buf, device);
}

void sm_x86_dsdt_build(const struct sm_plan *plan, struct sm_buf *buf)
{
	/* Only "off" is a sleep state here. */
	sm_aml_name(buf, "_S5");
	size_t state = sm_aml_package_begin(buf, 4);
	sm_aml_integer(buf, SM_X86_SLEEP_S5_TYPE);
	for (int i = 0; i < 3; i++)
		sm_aml_integer(buf, 0);
	sm_aml_end(buf, state);

	size_t scope = sm_aml_scope_begin(buf, "_SB");
	serial_port(plan, buf);
	generation_id(plan, buf);
	for (unsigned i = 0; i < plan->nslots; i++)
		virtio_device(plan, i, buf);
	sm_aml_end(buf, scope);
}
