/* A request to run a program: its state, shared by exec.c (the request), exec_run.c (the life of the process)
 * and exec_input.c (its standard input). */
#ifndef SM_GUEST_EXEC_H
#define SM_GUEST_EXEC_H

#include "conn.h"
#include "spawn.h"

struct sm_exec {
	struct sm_agent *agent;
	struct sm_conn *conn; /* NULL: over; what is left waits for the process to be reaped */
	pid_t pid;            /* 0: it could not be started */
	bool tty;
	bool exited, timed_out;
	bool keep;            /* it outlives the connection */
	bool dead;            /* to be freed when the round of events is over */
	unsigned long cgroup; /* 0: none */
	int64_t started_us, ended_us;
	int status;
	struct rusage usage;
	struct sm_timer timer;
	struct sm_source output, error; /* pipes, or output alone: a terminal's master */
	size_t output_left, error_left; /* what to read yet, when the process has ended */

	struct sm_source input;
	bool takes_input;
	bool input_ended;  /* no more will come */
	bool input_closed; /* the process takes no more: drop it */
	uint8_t *stdin_data;
	size_t stdin_start, stdin_len;
	uint8_t last_byte;
	uint32_t credit; /* to be given back */
	struct sm_exec *next;
};

/* exec_run.c.  Spawn and watch: takes the descriptors, which are non-blocking; error_fd and input_fd may be -1. */
struct sm_exec_fds {
	int output, error, input;
};
void sm_exec_run(struct sm_exec *exec, const struct sm_spawn *spawn, struct sm_exec_fds fds, uint32_t timeout_ms);
void sm_exec_signal(struct sm_exec *exec, int number);
void sm_exec_room(struct sm_conn *conn);
void sm_exec_over(struct sm_conn *conn);
void sm_exec_free(struct sm_exec *exec);

/* exec_input.c */
void sm_exec_input_frame(struct sm_exec *exec, const uint8_t *data, size_t len);
void sm_exec_input_end(struct sm_exec *exec);
void sm_exec_input_push(struct sm_exec *exec);
void sm_exec_input_ready(struct sm_source *source, uint32_t events);

#endif
