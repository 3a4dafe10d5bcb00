/* The fixed devices of a machine: a console everywhere, and what an architecture has besides, one file each. */
#ifndef SM_MACHINE_PLATFORM_H
#define SM_MACHINE_PLATFORM_H

#include "base/codec.h"
#include "base/error.h"
#include "device/ring.h"
#include "device/serial.h"

struct sm_machine;

struct sm_platform {
	struct sm_machine *machine;
	struct sm_ring console;
	struct sm_line serial_line;
	struct sm_serial *serial;
};

/* platform.c: makes the devices, puts them on the machine's buses and connects their interrupts. */
int sm_platform_new(struct sm_machine *machine, struct sm_platform **ret_platform, struct sm_error *err);
void sm_platform_free(struct sm_platform *platform); /* NULL is fine */
int sm_platform_save(struct sm_platform *platform, struct sm_buf *out, struct sm_error *err);
int sm_platform_load(struct sm_platform *platform, struct sm_reader *in, struct sm_error *err);
/* What the guest wrote on its console. */
struct sm_ring *sm_platform_console(struct sm_platform *platform);

/* For the architecture's file: the serial port, as a bus sees it (ctx: the platform). */
uint64_t sm_platform_serial_read(void *ctx, uint64_t offset, unsigned size);
void sm_platform_serial_write(void *ctx, uint64_t offset, unsigned size, uint64_t value);

/* platform_ARCH.c: the serial port over the console's ring and line, and everything's place on the buses. */
int sm_platform_add(struct sm_platform *platform, struct sm_error *err);

#endif
