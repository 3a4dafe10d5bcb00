/* Asking the guest to mount what its machine was given. */
#ifndef SM_AGENT_MOUNT_H
#define SM_AGENT_MOUNT_H

#include "agent/channel.h"
#include "machine/control.h"

struct sm_agent_mount {
	const char *type;   /* of file system: "virtiofs", "ext4" */
	const char *source; /* a tag, or a device's path in the guest */
	const char *target; /* absolute, in the guest; made, with its parents, where it is missing */
	const char *name;   /* the one file, at the file system's root, that is to be at target; NULL: all of it */
	bool readonly;
	const char *options; /* of the file system; NULL: none */
};

/* Blocks until it is mounted, or an error of the guest that names both.  A guest whose agent is from before there were
 * mounts: -EPROTO. */
int sm_agent_mount(struct sm_control *control, const struct sm_agent_mount *mount, const struct sm_agent_wait *wait,
                   struct sm_error *err);

#endif
