/* A TCP connection inside the guest, made by the agent. */
#ifndef SM_AGENT_CONNECT_H
#define SM_AGENT_CONNECT_H

#include "agent/channel.h"

/* To `port` at `address` (numeric; NULL: 127.0.0.1) as the guest sees it.  On success *ret_fd is a stream, half-closed
 * on its own in each direction by shutdown(2).  -ECONNREFUSED and the like are the guest's.  Blocking.
 * fd: a connection to the agent, taken. */
int sm_agent_connect(int fd_taken, const char *address, uint16_t port, const struct sm_agent_wait *wait, int *ret_fd,
                     struct sm_error *err);

#endif
