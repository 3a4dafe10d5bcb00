/* Machines out of a snapshot, each with an identity of its own: one, or many at once. */
#ifndef SM_POOL_RESTORE_H
#define SM_POOL_RESTORE_H

#include "pool/identity.h"
#include "pool/mounts.h"
#include "pool/volumes.h"
#include "snapshot/snapshot.h"

#include <stdatomic.h>

#define SM_RESTORE_MANY_MAX 4096u

struct sm_restore_options {
	enum sm_control_transport transport;
	int hv_fd;                              /* borrowed */
	bool paused;                            /* as it was saved: without a new identity */
	bool watched;                           /* for sm_snapshot_learn */
	const struct sm_mounts_wish *mounts;    /* added ones come before the identity and its hook.  NULL: as saved */
	const struct sm_volume_wishes *volumes; /* likewise, behind slots that have nothing.  NULL: none */
	struct sm_identity_options identity;
};

int sm_restore(struct sm_snapshot *snapshot, const struct sm_restore_options *options, struct sm_control **ret_control,
               struct sm_error *err);
/* `count` of them (1 to SM_RESTORE_MANY_MAX), all or none, by as many threads as there are processors.  -ECANCELED once
 * *cancel is set; another failure is the first one's, and says which machine's. */
int sm_restore_many(struct sm_snapshot *snapshot, const struct sm_restore_options *options, unsigned count,
                    const atomic_bool *cancel, struct sm_control **ret_controls, struct sm_error *err);

#endif
