/* The console, whose serial port and place are the architecture's. */
#include "machine/platform.h"

#include "base/fd.h"
#include "machine/machine.h"

#include <errno.h>
#include <stdlib.h>

uint64_t sm_platform_serial_read(void *ctx, uint64_t offset, unsigned size)
{
	struct sm_platform *platform = ctx;
	return sm_serial_read(platform->serial, offset, size);
}

void sm_platform_serial_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
	struct sm_platform *platform = ctx;
	sm_serial_write(platform->serial, offset, size, value);
}

int sm_platform_new(struct sm_machine *machine, struct sm_platform **ret_platform, struct sm_error *err)
{
	struct sm_platform *platform = calloc(1, sizeof *platform);
	if (!platform)
		return sm_error_set(err, ENOMEM, "platform: out of memory");
	platform->machine = machine;
	platform->serial_line = sm_machine_line(machine, machine->plan.serial_irq);
	int code = sm_ring_init(&platform->console, 0, err);
	if (code >= 0)
		code = sm_platform_add(platform, err);
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
	sm_serial_free(platform->serial);
	sm_ring_done(&platform->console);
	free(platform);
}

int sm_platform_save(struct sm_platform *platform, struct sm_buf *out, struct sm_error *err)
{
	(void)err;
	sm_serial_save(platform->serial, out);
	return 0;
}

int sm_platform_load(struct sm_platform *platform, struct sm_reader *in, struct sm_error *err)
{
	int code = sm_serial_load(platform->serial, in, err);
	if (code >= 0)
		sm_serial_restored(platform->serial);
	return code;
}

struct sm_ring *sm_platform_console(struct sm_platform *platform)
{
	return &platform->console;
}
