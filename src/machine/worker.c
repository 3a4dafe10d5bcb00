#include "machine/worker.h"

#include "base/fd.h"
#include "machine/machine.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STOP_TIMEOUT_MS 10000

struct sm_worker {
	pid_t pid;
	int sock;
};

/* Before each body, with the message's descriptors.  Native byte order: both ends are this program. */
struct frame {
	uint32_t op;  /* request: enum sm_request_op; reply: the same */
	int32_t code; /* reply: 0 or -errno; the body is the error's message then */
	uint32_t len;
	uint32_t nfds;
};

static int send_message(int sock, const struct frame *frame, const struct sm_message *message)
{
	ssize_t sent = sm_fd_send(sock, frame, sizeof *frame, message->fds, message->nfds);
	if (sent < 0)
		return (int)sent;
	if (sent != sizeof *frame)
		return -EPIPE;
	return sm_fd_write_full(sock, message->body.data, message->body.len);
}

static int receive_message(int sock, struct frame *ret_frame, struct sm_message *message)
{
	ssize_t got = sm_fd_recv(sock, ret_frame, sizeof *ret_frame, message->fds, &message->nfds);
	if (got != sizeof *ret_frame)
		return got < 0 ? (int)got : -EPIPE;
	int code = -EBADMSG;
	if (ret_frame->len <= SM_REQUEST_MAX && ret_frame->nfds == message->nfds) {
		void *body = sm_buf_extend(&message->body, ret_frame->len);
		code = ret_frame->len == 0 ? 0 : body ? sm_fd_read_full(sock, body, ret_frame->len) : -ENOMEM;
	}
	if (code < 0)
		sm_message_close_fds(message);
	return code;
}

/* ---- in the worker ------------------------------------------------------------------------------------------ */

static bool serve_one(int sock, int end_fd, struct sm_machine **machine)
{
	struct sm_message request, reply;
	struct frame frame;
	sm_message_init(&request);
	sm_message_init(&reply);
	bool go_on = receive_message(sock, &frame, &request) == 0;
	if (go_on) {
		struct sm_error err = { 0 };
		frame.code = sm_request_serve(machine, end_fd, frame.op, &request, &reply, &err);
		if (frame.code < 0) {
			sm_message_close_fds(&reply);
			sm_buf_clear(&reply.body);
			sm_buf_append_str(&reply.body, err.message);
		}
		frame.len = (uint32_t)reply.body.len;
		frame.nfds = (uint32_t)reply.nfds;
		go_on = send_message(sock, &frame, &reply) == 0;
	}
	sm_message_close_fds(&request);
	sm_message_close_fds(&reply);
	sm_message_done(&request);
	sm_message_done(&reply);
	return go_on;
}

static void close_all_but(int first, int second)
{
	unsigned low = (unsigned)(first < second ? first : second), high = (unsigned)(first < second ? second : first);
	if (low > 3)
		syscall(SYS_close_range, 3u, low - 1, 0u);
	if (high > low + 1)
		syscall(SYS_close_range, low + 1, high - 1, 0u);
	syscall(SYS_close_range, high + 1, ~0u, 0u);
}

__attribute__((noreturn)) static void worker_main(int sock, int end_fd)
{
	struct sm_machine *machine = NULL;
	sigset_t all;

	prctl(PR_SET_NAME, "supermachine-vm");
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL); /* a terminal's ^C is the parent's to handle: it hangs up */
	close_all_but(sock, end_fd);
	while (serve_one(sock, end_fd, &machine)) {
	}
	sm_machine_free(machine);
	_exit(0); /* the parent's atexit handlers and buffers are not ours */
}

/* ---- in the parent ------------------------------------------------------------------------------------------ */

int sm_worker_start(int end_fd, struct sm_worker **ret_worker, struct sm_error *err)
{
	int pair[2];
	struct sm_worker *worker = calloc(1, sizeof *worker);
	if (!worker)
		return sm_error_set(err, ENOMEM, "worker: out of memory");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		int code = sm_error_sys(err, errno, "worker: socketpair");
		free(worker);
		return code;
	}
	worker->pid = fork();
	if (worker->pid < 0) {
		int code = sm_error_sys(err, errno, "worker: fork");
		close(pair[0]);
		close(pair[1]);
		free(worker);
		return code;
	}
	if (worker->pid == 0)
		worker_main(pair[1], end_fd);
	close(pair[1]);
	worker->sock = pair[0];
	*ret_worker = worker;
	return 0;
}

int sm_worker_call(struct sm_worker *worker, uint32_t op, const struct sm_message *request, struct sm_message *reply,
                   struct sm_error *err)
{
	struct frame frame = {
		.op = op,
		.len = (uint32_t)request->body.len,
		.nfds = (uint32_t)request->nfds,
	};
	int code = send_message(worker->sock, &frame, request);
	if (code >= 0)
		code = receive_message(worker->sock, &frame, reply);
	if (code < 0) {
		/* Half of a message may be left, which the next would take for its own: the worker ends. */
		shutdown(worker->sock, SHUT_RDWR);
		return sm_error_sys(err, code, "the machine's worker process does not answer");
	}
	if (frame.code < 0) {
		const char *text = sm_buf_str(&reply->body);
		return sm_error_set(err, frame.code, "%s", text ? text : "worker failed");
	}
	return 0;
}

void sm_worker_stop(struct sm_worker *worker)
{
	if (!worker)
		return;
	int pidfd = (int)syscall(SYS_pidfd_open, worker->pid, 0);
	sm_fd_close(&worker->sock);
	if (pidfd >= 0 && sm_fd_wait(pidfd, POLLIN, STOP_TIMEOUT_MS) == 0)
		kill(worker->pid, SIGKILL);
	sm_fd_close(&pidfd);
	while (waitpid(worker->pid, NULL, 0) < 0 && errno == EINTR) {
	}
	free(worker);
}

pid_t sm_worker_pid(const struct sm_worker *worker)
{
	return worker->pid;
}
