/* aarch64: a PL011 console.  Reset and power are firmware calls (PSCI), which reach the machine as exits. */
#include "machine/platform.h"

#include "arch/aarch64/platform.h"
#include "device/pl011.h"
#include "machine/machine.h"

int sm_platform_add(struct sm_platform *platform, struct sm_error *err)
{
	int code = sm_pl011_new(&platform->console, &platform->serial_line, &platform->serial, err);
	if (code < 0)
		return code;
	const struct sm_bus_range range = {
		.base = platform->machine->plan.serial_base,
		.length = SM_ARM64_PL011_BYTES,
		.read = sm_platform_serial_read,
		.write = sm_platform_serial_write,
		.ctx = platform,
	};
	return sm_bus_add(&platform->machine->mmio, &range, err);
}
