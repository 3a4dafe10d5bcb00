#include "agent/protocol.h"
#include "exec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define CREDIT_STEP (SM_AGENT_STDIN_WINDOW / 4) /* smaller refills wait for more, or for an empty buffer */
#define EOT_MAX     2

static void give_credit(struct sm_exec *exec)
{
	size_t room;
	if (!exec->credit || (exec->credit < CREDIT_STEP && exec->stdin_len))
		return;
	/* With a full output queue it waits for ops->room: refills come as often as the host likes. */
	if (!sm_conn_room(exec->conn, &room))
		return;
	uint8_t payload[4];
	sm_wire_put_u32(payload, exec->credit);
	exec->credit = 0;
	sm_conn_send(exec->conn, SM_AGENT_CREDIT, payload, sizeof payload);
}

static void close_input(struct sm_exec *exec)
{
	exec->input_closed = true;
	exec->stdin_len = 0;
	sm_source_close(&exec->input);
}

void sm_exec_input_push(struct sm_exec *exec)
{
	while (exec->stdin_len && exec->input.fd >= 0) {
		ssize_t put = write(exec->input.fd, exec->stdin_data + exec->stdin_start, exec->stdin_len);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0 && errno == EAGAIN)
			break;
		if (put < 0) {
			bool told = exec->input_ended;
			close_input(exec);
			if (!told)
				sm_conn_send(exec->conn, SM_AGENT_STDIN_CLOSED, NULL, 0);
			return;
		}
		exec->stdin_start += (size_t)put;
		exec->stdin_len -= (size_t)put;
		exec->credit += (uint32_t)put;
	}
	if (!exec->stdin_len)
		exec->stdin_start = 0;
	sm_source_want(&exec->input, exec->stdin_len ? EPOLLOUT : 0);
	if (!exec->input_ended)
		give_credit(exec);
	else if (!exec->stdin_len && !exec->tty)
		close_input(exec);
}

void sm_exec_input_ready(struct sm_source *source, uint32_t events)
{
	(void)events;
	sm_exec_input_push(source->owner);
}

static void append(struct sm_exec *exec, const uint8_t *data, size_t len)
{
	if (exec->stdin_start + exec->stdin_len + len > SM_AGENT_STDIN_WINDOW + EOT_MAX) {
		memmove(exec->stdin_data, exec->stdin_data + exec->stdin_start, exec->stdin_len);
		exec->stdin_start = 0;
	}
	memcpy(exec->stdin_data + exec->stdin_start + exec->stdin_len, data, len);
	exec->stdin_len += len;
	exec->last_byte = data[len - 1];
}

static bool have_buffer(struct sm_exec *exec)
{
	if (!exec->stdin_data)
		exec->stdin_data = malloc(SM_AGENT_STDIN_WINDOW + EOT_MAX);
	if (!exec->stdin_data)
		sm_conn_fail(exec->conn, ENOMEM, "standard input: %s", strerror(ENOMEM));
	return exec->stdin_data;
}

void sm_exec_input_frame(struct sm_exec *exec, const uint8_t *data, size_t len)
{
	if (!exec->takes_input || exec->input_ended) {
		sm_conn_unexpected(exec->conn, SM_AGENT_STDIN);
		return;
	}
	if (exec->input_closed || !len || !have_buffer(exec))
		return;
	if (len > SM_AGENT_STDIN_WINDOW - exec->stdin_len - exec->credit) {
		sm_conn_fail(exec->conn, ENOBUFS, "more standard input than the window allows");
		return;
	}
	append(exec, data, len);
	sm_exec_input_push(exec);
}

/* A terminal knows no end of file but its control character, and that only at the start of a line: in the middle of
 * one the first of two hands over the line so far. */
static void append_eot(struct sm_exec *exec)
{
	struct termios modes;
	if (tcgetattr(exec->input.fd, &modes) < 0 || !(modes.c_lflag & ICANON) || !have_buffer(exec))
		return;
	bool line_start = !exec->last_byte || exec->last_byte == '\n' || exec->last_byte == '\r';
	append(exec, &modes.c_cc[VEOF], 1);
	if (!line_start)
		append(exec, &modes.c_cc[VEOF], 1);
}

void sm_exec_input_end(struct sm_exec *exec)
{
	if (!exec->takes_input || exec->input_ended) {
		sm_conn_unexpected(exec->conn, SM_AGENT_STDIN_EOF);
		return;
	}
	exec->input_ended = true;
	if (exec->input_closed)
		return;
	if (exec->tty)
		append_eot(exec);
	if (exec->conn)
		sm_exec_input_push(exec);
}
