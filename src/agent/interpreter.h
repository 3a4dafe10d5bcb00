/* Having the guest run programs of another architecture. */
#ifndef SM_AGENT_INTERPRETER_H
#define SM_AGENT_INTERPRETER_H

#include "agent/channel.h"
#include "machine/control.h"

struct sm_agent_interpreter {
	const char *name; /* of the kernel's entry, which is replaced; no '/' or ':' */
	const char *path; /* in the guest, absolute */
	const uint8_t *magic, *mask;
	size_t len; /* of both, 1 to 128: how a program that is for it begins */
};

/* Blocks until the guest's kernel has it (Documentation/admin-guide/binfmt-misc.rst). */
int sm_agent_interpreter(struct sm_control *control, const struct sm_agent_interpreter *interpreter,
                         const struct sm_agent_wait *wait, struct sm_error *err);

#endif
