/* x86_64: 8250 console, ACPI reset and sleep registers, the keyboard controller's reset line. */
#include "machine/platform.h"

#include "arch/x86_64/platform.h"
#include "base/fd.h"
#include "device/serial8250.h"
#include "machine/machine.h"

#include <errno.h>
#include <stdlib.h>

struct sm_platform {
	struct sm_machine *machine;
	struct sm_ring console;
	struct sm_serial8250 serial;
	int serial_irq_fd;
};

static uint64_t serial_read(void *ctx, uint64_t offset, unsigned size)
{
	struct sm_platform *platform = ctx;
	return sm_serial8250_read(&platform->serial, offset, size);
}

static void serial_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
	struct sm_platform *platform = ctx;
	sm_serial8250_write(&platform->serial, offset, size, value);
}

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

static int add_ports(struct sm_platform *platform, struct sm_error *err)
{
	const struct sm_bus_range ranges[] = {
		{ platform->machine->plan.serial_base, SM_SERIAL8250_PORTS, serial_read, serial_write, platform },
		{ SM_X86_RESET_PORT, 1, read_zero, reset_write, platform },
		{ SM_X86_SLEEP_CONTROL_PORT, 1, read_zero, sleep_write, platform },
		{ SM_X86_SLEEP_STATUS_PORT, 1, read_zero, NULL, platform },
		{ SM_X86_KEYBOARD_PORT, 1, read_zero, keyboard_write, platform },
	};
	for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
		int code = sm_bus_add(&platform->machine->pio, &ranges[i], err);
		if (code < 0)
			return code;
	}
	return 0;
}

int sm_platform_new(struct sm_machine *machine, struct sm_platform **ret_platform, struct sm_error *err)
{
	struct sm_platform *platform = calloc(1, sizeof *platform);
	if (!platform)
		return sm_error_set(err, ENOMEM, "platform: out of memory");
	platform->machine = machine;
	platform->serial_irq_fd = sm_fd_event();
	int code = platform->serial_irq_fd < 0 ? sm_error_sys(err, platform->serial_irq_fd, "create an eventfd") : 0;
	if (code >= 0)
		code = sm_ring_init(&platform->console, 0, err);
	sm_serial8250_init(&platform->serial, &platform->console, platform->serial_irq_fd);
	if (code >= 0)
		code = sm_machine_wire_irq(machine, platform->serial_irq_fd, machine->plan.serial_irq, err);
	if (code >= 0)
		code = add_ports(platform, err);
	if (code < 0) {
		sm_platform_free(platform);
		return code;
	}
	*ret_platform = platform;
	return 0;
}

void sm_platform_free(struct sm_platform *platform)
{
	if (!platform)
		return;
	sm_serial8250_done(&platform->serial);
	sm_ring_done(&platform->console);
	sm_fd_close(&platform->serial_irq_fd);
	free(platform);
}

int sm_platform_save(struct sm_platform *platform, struct sm_buf *out, struct sm_error *err)
{
	(void)err;
	sm_serial8250_save(&platform->serial, out);
	return 0;
}

int sm_platform_load(struct sm_platform *platform, struct sm_reader *in, struct sm_error *err)
{
	int code = sm_serial8250_load(&platform->serial, in, err);
	if (code >= 0)
		sm_serial8250_restored(&platform->serial);
	return code;
}

struct sm_ring *sm_platform_console(struct sm_platform *platform)
{
	return &platform->console;
}
