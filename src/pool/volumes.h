/* Volumes into a guest that runs: behind its slots, and mounted. */
#ifndef SM_POOL_VOLUMES_H
#define SM_POOL_VOLUMES_H

#include "agent/channel.h"
#include "machine/control.h"
#include "snapshot/volume_file.h"

#define SM_VOLUMES_MAX 64

/* In slot order.  Strings are owned. */
struct sm_volume_wish {
	struct sm_volume_source source;
	char *guest; /* where the guest mounts it, ext4; NULL: nowhere */
};
struct sm_volume_wishes {
	unsigned count;
	struct sm_volume_wish *list;
};

/* A copy of `wish`. */
int sm_volume_wishes_add(struct sm_volume_wishes *wishes, const struct sm_volume_wish *wish, struct sm_error *err);
void sm_volume_wishes_done(struct sm_volume_wishes *wishes);

/* Open all of them, for slots from 0 on; *ret_volumes is the caller's, to be closed by sm_volume_wishes_close. */
int sm_volume_wishes_open(const struct sm_volume_wishes *wishes, struct sm_volume **ret_volumes, struct sm_error *err);
void sm_volume_wishes_close(struct sm_volume *volumes, unsigned count);

/* Have the guest mount what is behind its slots already: a booted machine's. */
int sm_volume_wishes_mount(struct sm_control *control, const struct sm_volume_wishes *wishes,
                           const struct sm_agent_wait *wait, struct sm_error *err);
/* Put each behind a slot that has nothing and, where the guest has the agent, have it mounted.  What was done stays
 * when another fails. */
int sm_volume_wishes_give(struct sm_control *control, const struct sm_volume_wishes *wishes, bool agent,
                          const struct sm_agent_wait *wait, struct sm_error *err);

#endif
