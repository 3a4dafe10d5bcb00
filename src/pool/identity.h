/* What must differ between machines of one snapshot: generation ID, wall clock, entropy. */
#ifndef SM_POOL_IDENTITY_H
#define SM_POOL_IDENTITY_H

#include "base/error.h"
#include "machine/control.h"

#include <stdbool.h>

/* Give a restored, resumed machine a new identity before anyone gets it.  The generation ID makes the kernel reseed its
 * random numbers; the agent (if there is one) sets the clock and adds entropy, and its answer shows that the guest
 * lives.  -ETIMEDOUT after timeout_ms. */
int sm_identity_renew(struct sm_control *control, bool agent, int timeout_ms, struct sm_error *err);

#endif
