/* Whole files of the guest, through the agent.  Blocking, for any thread that may block. */
#ifndef SM_AGENT_FILES_H
#define SM_AGENT_FILES_H

#include "agent/channel.h"

struct sm_agent_file {
	uint64_t size;
	uint32_t mode, uid, gid; /* mode: permission bits */
};

/* The content of the regular file at `path` (absolute), appended to `out`, whose maximum is the most that is accepted.
 * -EFBIG: larger.  fd: a connection to the agent, taken. */
int sm_agent_read_file(int fd_taken, const char *path, const struct sm_agent_wait *wait, struct sm_buf *out,
                       struct sm_agent_file *ret_file, struct sm_error *err);
/* The file appears whole or not at all, and replaces what has its name (a symbolic link itself, not its target). */
int sm_agent_write_file(int fd_taken, const char *path, uint32_t mode, const void *data, size_t len,
                        const struct sm_agent_wait *wait, struct sm_error *err);

#endif
