/* Folders into a guest that runs: behind its slots, and where its files are. */
#ifndef SM_POOL_MOUNTS_H
#define SM_POOL_MOUNTS_H

#include "agent/channel.h"
#include "machine/control.h"
#include "snapshot/mounts.h"

/* What is wished for at a restore: where the snapshot has a mount at the same place in the guest, that is bound to the
 * wish's host path; the rest is to be put behind slots that have nothing.  Both are the caller's, on failure too. */
struct sm_mounts_wish {
	struct sm_source_mounts bound, added;
};
int sm_mounts_wish(const struct sm_source_mounts *saved, const struct sm_source_mount *wishes, unsigned count,
                   struct sm_mounts_wish *ret, struct sm_error *err);
int sm_mounts_wish_copy(const struct sm_mounts_wish *from, struct sm_mounts_wish *to, struct sm_error *err);
void sm_mounts_wish_done(struct sm_mounts_wish *wish);

/* Have the guest mount what is behind its slots already: a booted machine's. */
int sm_mounts_tell(struct sm_control *control, const struct sm_source_mounts *mounts, const struct sm_agent_wait *wait,
                   struct sm_error *err);
/* Put each behind a slot that has nothing; where the guest has the agent, have it mount them.  Their tags are those
 * slots', by sm_mounts_for_slot.  What was done stays when another fails. */
int sm_mounts_add(struct sm_control *control, const struct sm_source_mounts *mounts, bool agent,
                  const struct sm_agent_wait *wait, struct sm_error *err);
/* A wish as it goes behind slot `index`. */
struct sm_source_mount sm_mounts_for_slot(const struct sm_source_mount *wish, unsigned index);

#endif
