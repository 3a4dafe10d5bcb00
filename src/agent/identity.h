/* What a machine is told after a restore, and the requests that are a word.  All block. */
#ifndef SM_AGENT_IDENTITY_H
#define SM_AGENT_IDENTITY_H

#include "agent/channel.h"
#include "machine/control.h"

struct sm_agent_identity {
	uint64_t clock_ns;    /* since 1970; 0: leave it */
	const char *hostname; /* NULL: leave it */
	const uint8_t *entropy;
	size_t entropy_len; /* at most SM_AGENT_ENTROPY_MAX */
};

/* fd: a connection to the agent, taken. */
int sm_agent_identity_send(int fd_taken, const struct sm_agent_identity *identity, const struct sm_agent_wait *wait,
                           struct sm_error *err);
/* The host's time now, and fresh random bytes, to a running machine. */
int sm_agent_identity(struct sm_control *control, int timeout_ms, struct sm_error *err);

/* SM_AGENT_PING: the agent lives.  SM_AGENT_SYNC: what was written is on the disks.  SM_AGENT_SHUTDOWN: it powers off.
 */
int sm_agent_command(int fd_taken, enum sm_agent_kind command, const struct sm_agent_wait *wait, struct sm_error *err);

#endif
