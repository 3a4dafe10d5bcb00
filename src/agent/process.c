#include "agent/process.h"

#include "agent/channel.h"
#include "base/codec.h"
#include "base/fd.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define STEP_MAX    (256u << 10) /* output that ends a step */
#define CONTROL_MAX (64u << 10)  /* waiting frames that are not standard input */
#define EXIT_BYTES  44

struct sm_agent_process {
	int fd;
	bool tty;
	bool stdin_open;
	uint32_t credit; /* bytes of standard input that may be sent */
	struct sm_buf waiting;
	struct sm_buf out, err;
	uint32_t pid;
	bool exited;
	struct sm_agent_exit exit;
	struct sm_error failure; /* code 0: none */
	size_t in_len;
	uint8_t in[SM_AGENT_FRAME_MAX];
};

static void put_strings(struct sm_buf *body, const char *const *strings)
{
	uint32_t count = 0;
	while (strings && strings[count])
		count++;
	sm_put_u32(body, count);
	for (uint32_t i = 0; i < count; i++)
		sm_put_str(body, strings[i]);
}

void sm_agent_exec_put(struct sm_buf *body, const struct sm_agent_exec *exec)
{
	sm_put_u32(body, (exec->tty ? SM_AGENT_EXEC_TTY : 0) | (exec->takes_stdin ? SM_AGENT_EXEC_STDIN : 0) |
	                     (exec->merge_stderr ? SM_AGENT_EXEC_MERGE_STDERR : 0) |
	                     (exec->keep ? SM_AGENT_EXEC_KEEP : 0));
	sm_put_u16(body, exec->rows);
	sm_put_u16(body, exec->columns);
	sm_put_u32(body, exec->timeout_ms);
	sm_put_str(body, exec->cwd ? exec->cwd : "");
	sm_put_str(body, exec->user ? exec->user : "");
	sm_put_u32(body, (uint32_t)exec->nlimits);
	for (size_t i = 0; i < exec->nlimits; i++) {
		sm_put_u32(body, exec->limits[i].kind);
		sm_put_u64(body, exec->limits[i].soft);
		sm_put_u64(body, exec->limits[i].hard);
	}
	put_strings(body, exec->argv);
	put_strings(body, exec->env);
}

int sm_agent_process_new(int fd_taken, const struct sm_agent_exec *exec, struct sm_agent_process **ret,
                         struct sm_error *err)
{
	SM_BUF_CLEANUP struct sm_buf body;
	sm_buf_init(&body, SM_AGENT_REQUEST_MAX);
	sm_agent_exec_put(&body, exec);
	int code = sm_agent_process_over(fd_taken, SM_AGENT_EXEC, &body, ret, err);
	if (code == 0) {
		(*ret)->tty = exec->tty;
		(*ret)->stdin_open = exec->takes_stdin;
	}
	return code;
}

int sm_agent_process_over(int fd_taken, enum sm_agent_kind kind, const struct sm_buf *body,
                          struct sm_agent_process **ret, struct sm_error *err)
{
	*ret = NULL;
	struct sm_agent_process *process = calloc(1, sizeof *process);
	if (!process) {
		sm_fd_close(&fd_taken);
		return sm_error_sys(err, ENOMEM, "process");
	}
	process->fd = fd_taken;
	process->credit = SM_AGENT_STDIN_WINDOW;
	sm_buf_init(&process->waiting, 2 * SM_AGENT_REQUEST_MAX + 2 * SM_AGENT_STDIN_WINDOW + CONTROL_MAX);
	sm_buf_init(&process->out, STEP_MAX + SM_AGENT_FRAME_MAX);
	sm_buf_init(&process->err, STEP_MAX + SM_AGENT_FRAME_MAX);

	int code = sm_channel_put_request(&process->waiting, kind, body, err);
	if (code == 0) {
		code = sm_fd_nonblock(process->fd);
		if (code < 0)
			sm_error_sys(err, code, "process");
	}
	if (code < 0) {
		sm_agent_process_free(process);
		return code;
	}
	*ret = process;
	return 0;
}

void sm_agent_process_free(struct sm_agent_process *process)
{
	if (!process)
		return;
	sm_fd_close(&process->fd);
	sm_buf_wipe(&process->waiting);
	sm_buf_done(&process->out);
	sm_buf_done(&process->err);
	free(process);
}

int sm_agent_process_fd(const struct sm_agent_process *process)
{
	return process->fd;
}

static bool ended(const struct sm_agent_process *process)
{
	return process->exited || process->failure.code;
}

short sm_agent_process_events(const struct sm_agent_process *process)
{
	return (short)(process->waiting.len && !ended(process) ? POLLIN | POLLOUT : POLLIN);
}

static int fail(struct sm_agent_process *process)
{
	process->stdin_open = false;
	/* Whoever polls is to come back for the error. */
	shutdown(process->fd, SHUT_RDWR);
	return -process->failure.code;
}

static void flush(struct sm_agent_process *process)
{
	while (process->waiting.len && !ended(process)) {
		ssize_t sent =
		    send(process->fd, process->waiting.data, process->waiting.len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN)
			break;
		if (sent < 0) {
			/* The reading side knows better why: an ERROR or the EXIT may be on its way. */
			sm_buf_clear(&process->waiting);
			process->stdin_open = false;
			break;
		}
		sm_buf_consume(&process->waiting, (size_t)sent);
	}
}

static int malformed(struct sm_agent_process *process, unsigned type, size_t len)
{
	return sm_error_set(&process->failure, EBADMSG, "the guest's agent sent a wrong frame: type %u, %zu bytes",
	                    type, len);
}

static int take_exit(struct sm_agent_process *process, struct sm_reader *reader)
{
	struct sm_agent_exit *result = &process->exit;
	uint32_t code = sm_get_u32(reader), signal = sm_get_u32(reader), flags = sm_get_u32(reader);
	result->duration_us = sm_get_u64(reader);
	result->user_us = sm_get_u64(reader);
	result->system_us = sm_get_u64(reader);
	result->max_rss_bytes = sm_get_u64(reader);
	if (code > 255 || signal > 127 || (code && signal) || (flags & ~SM_AGENT_EXIT_TIMED_OUT))
		return malformed(process, SM_AGENT_EXIT, EXIT_BYTES);
	result->code = (int)code;
	result->signal = (int)signal;
	result->timed_out = flags & SM_AGENT_EXIT_TIMED_OUT;
	process->exited = true;
	process->stdin_open = false;
	sm_buf_clear(&process->waiting);
	return 0;
}

static int take_frame(struct sm_agent_process *process, unsigned type, const uint8_t *payload, size_t len)
{
	struct sm_reader reader;
	sm_reader_init(&reader, payload, len);
	/* Sizes are exact; nothing but input's bookkeeping comes before STARTED. */
	bool right;
	switch (type) {
	case SM_AGENT_STARTED:
		right = len == 4 && !process->pid;
		break;
	case SM_AGENT_STDOUT:
		right = process->pid;
		break;
	case SM_AGENT_STDERR:
		right = process->pid && !process->tty;
		break;
	case SM_AGENT_CREDIT:
		right = len == 4;
		break;
	case SM_AGENT_STDIN_CLOSED:
		right = len == 0;
		break;
	case SM_AGENT_EXIT:
		right = len == EXIT_BYTES && process->pid;
		break;
	case SM_AGENT_ERROR:
		return sm_channel_guest_error(payload, len, &process->failure);
	default:
		right = false;
	}
	if (!right)
		return malformed(process, type, len);
	switch (type) {
	case SM_AGENT_STARTED:
		process->pid = sm_get_u32(&reader);
		return process->pid ? 0 : malformed(process, type, len);
	case SM_AGENT_STDOUT:
		return sm_buf_append(&process->out, payload, len);
	case SM_AGENT_STDERR:
		return sm_buf_append(&process->err, payload, len);
	case SM_AGENT_CREDIT: {
		uint32_t more = sm_get_u32(&reader);
		if (more > SM_AGENT_STDIN_WINDOW - process->credit)
			return malformed(process, type, len);
		process->credit += more;
		return 0;
	}
	case SM_AGENT_STDIN_CLOSED:
		process->stdin_open = false;
		return 0;
	default:
		return take_exit(process, &reader);
	}
}

static int parse(struct sm_agent_process *process)
{
	size_t start = 0;
	int code = 0;
	while (code == 0 && !process->exited && process->in_len - start >= SM_AGENT_HEADER) {
		unsigned type;
		size_t len;
		code = sm_channel_parse_header(process->in + start, &type, &len, &process->failure);
		if (code < 0 || process->in_len - start - SM_AGENT_HEADER < len)
			break;
		code = take_frame(process, type, process->in + start + SM_AGENT_HEADER, len);
		start += SM_AGENT_HEADER + len;
	}
	process->in_len -= start;
	memmove(process->in, process->in + start, process->in_len);
	if (code < 0 && !process->failure.code)
		sm_error_sys(&process->failure, code, "output of the process");
	return code;
}

/* 1: more may be there; 0: not now; or -errno with process->failure. */
static int receive(struct sm_agent_process *process)
{
	ssize_t got =
	    recv(process->fd, process->in + process->in_len, sizeof process->in - process->in_len, MSG_DONTWAIT);
	if (got < 0 && errno == EINTR)
		return 1;
	if (got < 0 && errno == EAGAIN)
		return 0;
	if (got == 0 || (got < 0 && errno == ECONNRESET))
		return sm_error_set(&process->failure, ECONNRESET, "the guest's agent closed the connection%s",
		                    process->pid ? "" : " before it started the process");
	if (got < 0)
		return sm_error_sys(&process->failure, errno, "receive from the guest's agent");
	process->in_len += (size_t)got;
	int code = parse(process);
	return code < 0 ? code : 1;
}

int sm_agent_process_step(struct sm_agent_process *process, struct sm_agent_step *ret_step, struct sm_error *err)
{
	sm_buf_clear(&process->out);
	sm_buf_clear(&process->err);
	flush(process);
	while (!ended(process) && process->out.len < STEP_MAX && process->err.len < STEP_MAX) {
		int code = receive(process);
		if (code < 0)
			fail(process);
		if (code <= 0)
			break;
	}
	/* What came before an error is given before it. */
	if (process->failure.code && !process->out.len && !process->err.len) {
		if (err)
			*err = process->failure;
		return -process->failure.code;
	}
	*ret_step = (struct sm_agent_step){
		.out = process->out.data,
		.out_len = process->out.len,
		.err = process->err.data,
		.err_len = process->err.len,
		.pid = process->pid,
		.exited = process->exited,
		.exit = process->exit,
	};
	return 0;
}

ssize_t sm_agent_process_write(struct sm_agent_process *process, const void *data, size_t len)
{
	if (!process->stdin_open || ended(process))
		return -EPIPE;
	if (len > process->credit)
		len = process->credit;
	size_t done = 0;
	while (done < len) {
		size_t piece = len - done < SM_AGENT_PAYLOAD_MAX ? len - done : SM_AGENT_PAYLOAD_MAX;
		sm_channel_put_frame(&process->waiting, SM_AGENT_STDIN, (const uint8_t *)data + done, piece);
		done += piece;
	}
	process->credit -= (uint32_t)done;
	flush(process);
	return done ? (ssize_t)done : -EAGAIN;
}

/* The window bounds standard input; this bounds the rest. */
static int put_control(struct sm_agent_process *process, enum sm_agent_frame type, const void *payload, size_t len)
{
	if (ended(process))
		return -ESRCH;
	if (process->waiting.len > process->waiting.max - 2 * SM_AGENT_STDIN_WINDOW)
		return -EAGAIN;
	sm_channel_put_frame(&process->waiting, type, payload, len);
	flush(process);
	return 0;
}

int sm_agent_process_close_stdin(struct sm_agent_process *process)
{
	if (!process->stdin_open)
		return -EPIPE;
	int code = put_control(process, SM_AGENT_STDIN_EOF, NULL, 0);
	if (code == 0)
		process->stdin_open = false;
	return code;
}

int sm_agent_process_signal(struct sm_agent_process *process, int number)
{
	if (number < 1 || number > 64)
		return -EINVAL;
	const uint8_t payload[4] = { (uint8_t)number };
	return put_control(process, SM_AGENT_SIGNAL, payload, sizeof payload);
}

int sm_agent_process_resize(struct sm_agent_process *process, uint16_t rows, uint16_t columns)
{
	if (!process->tty)
		return -ENOTTY;
	const uint8_t payload[4] = { (uint8_t)rows, (uint8_t)(rows >> 8), (uint8_t)columns, (uint8_t)(columns >> 8) };
	return put_control(process, SM_AGENT_RESIZE, payload, sizeof payload);
}
