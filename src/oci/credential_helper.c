#include "oci/credential_helper.h"

#include "base/fd.h"
#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CANCEL_MS 200 /* how often the flag is looked at */
#define NOT_FOUND "credentials not found in native keychain"

struct helper {
	char program[128];
	pid_t pid;
	int output;
};

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int start(struct helper *helper, const char *server)
{
	int input[2] = { -1, -1 }, output[2] = { -1, -1 };
	int code = pipe2(input, O_CLOEXEC) < 0 || pipe2(output, O_CLOEXEC) < 0 ? -errno : 0;
	for (int i = 0; i < 4 && !code; i++)
		code = sm_process_lift(i < 2 ? &input[i] : &output[i - 2]);
	/* A host name fits into any pipe, so it is written while we hold the other end: no SIGPIPE, no wait. */
	if (!code && strlen(server) >= PIPE_BUF)
		code = -ENAMETOOLONG;
	if (!code && !(code = sm_fd_write_full(input[1], server, strlen(server))))
		code = sm_fd_write_full(input[1], "\n", 1);
	sm_fd_close(&input[1]);
	if (!code)
		code = sm_process_start((const char *[]){ helper->program, "get", NULL },
		                        (int[]){ input[0], output[1], -1 }, true, &helper->pid);
	sm_fd_close(&input[0]);
	sm_fd_close(&output[1]);
	helper->output = sm_fd_take(&output[0]);
	if (code < 0)
		sm_fd_close(&helper->output);
	return code;
}

static int wait_fd(int fd, int64_t deadline, const atomic_bool *cancel)
{
	for (;;) {
		int64_t left = deadline - now_ms();
		if (cancel && atomic_load(cancel))
			return -ECANCELED;
		if (left <= 0)
			return -ETIMEDOUT;
		int code = sm_fd_wait(fd, POLLIN, (int)(left < CANCEL_MS ? left : CANCEL_MS));
		if (code)
			return code < 0 ? code : 0;
	}
}

/* All it says until it closes its output. */
static int read_output(const struct helper *helper, int64_t deadline, const atomic_bool *cancel, struct sm_buf *ret)
{
	for (;;) {
		char data[4096];
		int code = wait_fd(helper->output, deadline, cancel);
		if (code < 0)
			return code;
		ssize_t got = read(helper->output, data, sizeof data);
		if (got == 0)
			return 0;
		if (got < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		if (got > 0 && (code = sm_buf_append(ret, data, (size_t)got)) < 0)
			return code == -E2BIG ? -EFBIG : code;
		explicit_bzero(data, sizeof data);
	}
}

static int wait_end(const struct helper *helper, int64_t deadline, const atomic_bool *cancel)
{
	SM_FD_CLEANUP int fd = (int)syscall(SYS_pidfd_open, helper->pid, 0);
	/* Gone already: the process ignores SIGCHLD, or waits for all children itself. */
	if (fd < 0)
		return errno == ESRCH ? 0 : -errno;
	return wait_fd(fd, deadline, cancel);
}

int sm_oci_credential_helper_get(const char *name, const char *server, int timeout_ms, const atomic_bool *cancel,
                                 struct sm_buf *ret, struct sm_error *err)
{
	struct helper helper = { .output = -1 };
	int64_t deadline = now_ms() + timeout_ms;
	/* A name, not a path: a file of settings does not choose what is run from where. */
	if (!*name ||
	    strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != strlen(name) ||
	    snprintf(helper.program, sizeof helper.program, "docker-credential-%s", name) >= (int)sizeof helper.program)
		return sm_error_set(err, EINVAL, "'%.60s' is no name of a credential helper", name);
	int code = start(&helper, server);
	if (code < 0)
		return sm_error_sys(err, code, "credential helper %s", helper.program);
	int status = 0;
	pid_t ended;
	code = read_output(&helper, deadline, cancel, ret);
	if (!code)
		code = wait_end(&helper, deadline, cancel);
	kill(-helper.pid, SIGKILL); /* its group keeps its number until it is waited for */
	while ((ended = waitpid(helper.pid, &status, 0)) < 0 && errno == EINTR) {
	}
	sm_fd_close(&helper.output);
	if (code == -EFBIG)
		return sm_error_set(err, EFBIG, "credential helper %s: says more than %zu bytes", helper.program,
		                    ret->max);
	if (code < 0)
		return sm_error_sys(err, code, "credential helper %s", helper.program);
	const char *words = sm_buf_str(ret);
	/* How it ended may not be for us to know (ECHILD): then its words decide. */
	if ((status || ended < 0) && words && !strncmp(words, NOT_FOUND, strlen(NOT_FOUND)))
		return 0;
	if (status)
		return sm_error_set(err, ECHILD, "credential helper %s: failed (`echo %s | %s get` shows why)",
		                    helper.program, server, helper.program);
	return words ? 1 : sm_error_sys(err, ENOMEM, "credential helper %s", helper.program);
}
