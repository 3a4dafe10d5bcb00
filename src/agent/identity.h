/* What a machine is told after a restore, and the requests that are a word.  All block. */
#ifndef SM_AGENT_IDENTITY_H
#define SM_AGENT_IDENTITY_H

#include "agent/channel.h"
#include "machine/control.h"

struct sm_agent_secret {
	char *path; /* in the guest, absolute */
	uint8_t *value;
	size_t len;
};

/* A command that the guest runs when it is who it is: it must end with code 0. */
struct sm_agent_hook {
	char *name;    /* for messages; NULL: none */
	uint8_t *body; /* of an EXEC: sm_agent_exec_put */
	size_t len;
};

struct sm_agent_identity {
	uint64_t clock_ns;    /* since 1970; 0: leave it */
	const char *hostname; /* NULL: leave it */
	const uint8_t *entropy;
	size_t entropy_len; /* at most SM_AGENT_ENTROPY_MAX */
	const uint8_t *id;  /* SM_AGENT_ID_BYTES; NULL: leave it */
	size_t nsecrets;    /* at most SM_AGENT_SECRETS_MAX */
	const struct sm_agent_secret *secrets;
	struct sm_agent_hook hook;
};

/* fd: a connection to the agent, taken.  All or an error; the time is the hook's, too.  -ECHILD: the hook failed, and
 * the message has the end of what it wrote to standard error. */
int sm_agent_identity_send(int fd_taken, const struct sm_agent_identity *identity, const struct sm_agent_wait *wait,
                           struct sm_error *err);
/* The same to a running machine, with the host's time now and fresh random bytes. */
int sm_agent_identity_renew(struct sm_control *control, const struct sm_agent_identity *identity, int timeout_ms,
                            struct sm_error *err);

/* SM_AGENT_PING: the agent lives.  SM_AGENT_SYNC: what was written is on the disks.  SM_AGENT_SHUTDOWN: it powers off.
 */
int sm_agent_command(int fd_taken, enum sm_agent_kind command, const struct sm_agent_wait *wait, struct sm_error *err);

#endif
