/* The fixed devices of an architecture (console, reset, power), one implementation a file. */
#ifndef SM_MACHINE_PLATFORM_H
#define SM_MACHINE_PLATFORM_H

#include "base/codec.h"
#include "base/error.h"
#include "device/ring.h"

struct sm_machine;
struct sm_platform;

/* Makes the devices, puts them on the machine's buses and wires their interrupts. */
int sm_platform_new(struct sm_machine *machine, struct sm_platform **ret_platform, struct sm_error *err);
void sm_platform_free(struct sm_platform *platform); /* NULL is fine */
int sm_platform_save(struct sm_platform *platform, struct sm_buf *out, struct sm_error *err);
int sm_platform_load(struct sm_platform *platform, struct sm_reader *in, struct sm_error *err);
/* What the guest wrote on its console. */
struct sm_ring *sm_platform_console(struct sm_platform *platform);

#endif
