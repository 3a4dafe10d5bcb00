/* x86_64: 8250 console, ACPI reset and sleep registers, the keyboard controller's reset line. */
#include "machine/platform.h"

#include "arch/x86_64/platform.h"
#include "device/serial8250.h"
#include "machine/machine.h"

static uint64_t read_zero(void *ctx, uint64_t offset, unsigned size)
{
	(void)ctx, (void)offset, (void)size;
	return 0;
}

static void reset_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
	(void)offset, (void)size;
	struct sm_platform *platform = ctx;
	if ((value & 0xff) == SM_X86_RESET_VALUE)
		sm_machine_end_reset(platform->machine, SM_CONTROL_RESET, "the guest reset itself");
}

static void sleep_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
	(void)offset, (void)size;
	struct sm_platform *platform = ctx;
	if ((value & 0xff) == SM_X86_SLEEP_S5_VALUE)
		sm_machine_end(platform->machine, SM_CONTROL_POWEROFF, "the guest powered off");
}

static void keyboard_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
	(void)offset, (void)size;
	struct sm_platform *platform = ctx;
	if ((value & 0xff) == SM_X86_KEYBOARD_RESET_VALUE)
		sm_machine_end_reset(platform->machine, SM_CONTROL_RESET, "the guest pulsed the keyboard reset line");
}

int sm_platform_add(struct sm_platform *platform, struct sm_error *err)
{
	int code = sm_serial8250_new(&platform->console, &platform->serial_line, &platform->serial, err);
	if (code < 0)
		return code;
	const struct sm_bus_range ranges[] = {
		{ platform->machine->plan.serial_base, SM_SERIAL8250_PORTS, sm_platform_serial_read,
		  sm_platform_serial_write, platform },
		{ SM_X86_RESET_PORT, 1, read_zero, reset_write, platform },
		{ SM_X86_SLEEP_CONTROL_PORT, 1, read_zero, sleep_write, platform },
		{ SM_X86_SLEEP_STATUS_PORT, 1, read_zero, NULL, platform },
		{ SM_X86_KEYBOARD_PORT, 1, read_zero, keyboard_write, platform },
	};
	for (size_t i = 0; i < sizeof ranges / sizeof *ranges && code >= 0; i++)
		code = sm_bus_add(&platform->machine->pio, &ranges[i], err);
	return code;
}
