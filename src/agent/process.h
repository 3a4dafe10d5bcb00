/* A process in the guest, as a state machine over one connection to the agent.
 *
 * Nothing blocks: wait until fd() is ready for events(), then step().  One thread at a time.  Closing it before it has
 * exited kills the process and its descendants. */
#ifndef SM_AGENT_PROCESS_H
#define SM_AGENT_PROCESS_H

#include "agent/protocol.h"
#include "base/buf.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct sm_agent_limit {
	enum sm_agent_limit_kind kind;
	uint64_t soft, hard; /* UINT64_MAX: none */
};

struct sm_agent_exec {
	const char *const *argv; /* NULL-terminated, at least one; looked for in PATH */
	const char *const *env;  /* NULL-terminated NAME=VALUE; NULL: none.  The guest adds PATH, HOME and, with a
	                            terminal, TERM where they are missing */
	const char *cwd;         /* NULL: "/" */
	const char *user;        /* NAME or UID, optionally :GROUP or :GID; NULL: root */
	bool tty;                /* a terminal is standard input, output and error; its output is standard output */
	uint16_t rows, columns;  /* of the terminal */
	bool takes_stdin;        /* else it reads end of file at once */
	bool merge_stderr;
	bool keep;           /* once started it goes on without the connection */
	uint32_t timeout_ms; /* the guest kills it then; 0: never */
	size_t nlimits;      /* at most SM_AGENT_LIMITS_MAX */
	struct sm_agent_limit limits[SM_AGENT_LIMITS_MAX];
};

struct sm_agent_exit {
	int code;   /* exit code, 0 when signalled */
	int signal; /* 0: it exited */
	bool timed_out;
	uint64_t duration_us; /* from fork to exit, in the guest */
	uint64_t user_us, system_us;
	uint64_t max_rss_bytes;
};

/* What one step brought.  Pointers are borrowed until the next step. */
struct sm_agent_step {
	const uint8_t *out, *err;
	size_t out_len, err_len;
	uint32_t pid; /* in the guest; 0: not started yet */
	bool exited;  /* everything that it wrote has been given, in this step or before */
	struct sm_agent_exit exit;
};

struct sm_agent_process;

/* Takes fd, a connection to the agent, closed on failure.  -E2BIG: argv and env are too long. */
int sm_agent_process_new(int fd_taken, const struct sm_agent_exec *exec, struct sm_agent_process **ret,
                         struct sm_error *err);
/* The same for another kind of request whose answer is EXEC's, without a terminal and without input. */
int sm_agent_process_over(int fd_taken, enum sm_agent_kind kind, const struct sm_buf *body,
                          struct sm_agent_process **ret, struct sm_error *err);
/* The body of an EXEC, appended. */
void sm_agent_exec_put(struct sm_buf *body, const struct sm_agent_exec *exec);
void sm_agent_process_free(struct sm_agent_process *process); /* NULL is fine */

int sm_agent_process_fd(const struct sm_agent_process *process); /* borrowed */
/* POLLIN, and POLLOUT while something waits to be sent. */
short sm_agent_process_events(const struct sm_agent_process *process);

/* Send what can be sent, take what is there (about 256 KiB at most).  0, or the end by an error: what the guest refused
 * with (-ENOENT: no such program, ...), -ECONNRESET: the connection ended before the process did, -EBADMSG: the guest
 * broke the protocol.  An error is given again by every later step. */
int sm_agent_process_step(struct sm_agent_process *process, struct sm_agent_step *ret_step, struct sm_error *err);

/* Bytes of standard input taken (fewer than len when the window fills up), -EAGAIN: none now, try again after a step,
 * -EPIPE: it takes no more (closed on either side, ended, or never asked for). */
ssize_t sm_agent_process_write(struct sm_agent_process *process, const void *data, size_t len);
/* 0, -EPIPE when it is closed already or was never asked for. */
int sm_agent_process_close_stdin(struct sm_agent_process *process);
/* To its process group.  0, -ESRCH: it has ended, -EINVAL: not 1 to 64, -EAGAIN: thousands of these wait to be sent. */
int sm_agent_process_signal(struct sm_agent_process *process, int number);
/* 0, -ESRCH, -EAGAIN, -ENOTTY. */
int sm_agent_process_resize(struct sm_agent_process *process, uint16_t rows, uint16_t columns);

#endif
