/* Waiting for a booted guest's agent. */
#ifndef SM_AGENT_READY_H
#define SM_AGENT_READY_H

#include "agent/channel.h"

struct sm_agent_hello {
	unsigned version;
	char kernel[128]; /* the guest's kernel release */
};

/* Wait for the agent's HELLO on a listener for SM_AGENT_READY_PORT (sm_control_listen).  Blocking; both descriptors are
 * borrowed.  -ENOTCONN as soon as end_fd (the machine's end; -1: none) is readable: the guest ended before.  -EPROTO:
 * it speaks another version.  The time in `wait` is given to the connection, then to its hello. */
int sm_agent_ready(int listen_fd, int end_fd, const struct sm_agent_wait *wait, struct sm_agent_hello *ret_hello,
                   struct sm_error *err);

#endif
