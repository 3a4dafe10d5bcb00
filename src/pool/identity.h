/* What must differ between machines of one snapshot: generation ID, wall clock, entropy, the machine's ID. */
#ifndef SM_POOL_IDENTITY_H
#define SM_POOL_IDENTITY_H

#include "agent/identity.h"
#include "base/error.h"
#include "machine/control.h"

#include <stdbool.h>

/* Of what is told a machine, that which is up to its user.  Borrowed. */
struct sm_identity_options {
	bool agent;           /* the guest runs the agent: without, nothing of what follows is possible */
	int timeout_ms;       /* for the guest's answer, hook and all */
	const char *hostname; /* NULL: the snapshot's */
	size_t nsecrets;
	const struct sm_agent_secret *secrets;
	struct sm_agent_hook hook;
};

/* Give a restored, resumed machine a new identity before anyone gets it.  The generation ID makes the kernel reseed its
 * random numbers; the agent (if there is one) adds entropy, sets the clock and does the rest, all in one request, and
 * its answer shows that the guest lives.  After any failure the machine is nobody's: close it.  -ETIMEDOUT after
 * timeout_ms. */
int sm_identity_renew(struct sm_control *control, const struct sm_identity_options *options, struct sm_error *err);
/* Host name and secrets alone, for a machine that has its identity already. */
int sm_identity_add(struct sm_control *control, const struct sm_identity_options *options, struct sm_error *err);

#endif
