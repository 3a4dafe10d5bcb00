#include "exec.h"

#include "agent/protocol.h"
#include "cgroup.h"
#include "kernel.h"
#include "requests.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PATH_DEFAULT "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define ENV_ADDED    4 /* PATH, HOME, TERM, and what is given beside the request */

/* The body, decoded.  Strings point into it. */
struct request {
	uint32_t flags, timeout_ms;
	struct winsize window;
	const char *cwd, *user;
	uint64_t memory_soft, memory_hard;
	size_t nlimits;
	struct sm_spawn_limit limits[SM_SPAWN_LIMITS_MAX];
	char **argv, **env; /* malloc'd, NULL-terminated */
	size_t nenv;
};

static int resource_of(uint32_t kind)
{
	switch (kind) {
	case SM_AGENT_LIMIT_ADDRESS_SPACE:
		return RLIMIT_AS;
	case SM_AGENT_LIMIT_CORE:
		return RLIMIT_CORE;
	case SM_AGENT_LIMIT_CPU:
		return RLIMIT_CPU;
	case SM_AGENT_LIMIT_DATA:
		return RLIMIT_DATA;
	case SM_AGENT_LIMIT_FILE_SIZE:
		return RLIMIT_FSIZE;
	case SM_AGENT_LIMIT_LOCKED:
		return RLIMIT_MEMLOCK;
	case SM_AGENT_LIMIT_OPEN_FILES:
		return RLIMIT_NOFILE;
	case SM_AGENT_LIMIT_PROCESSES:
		return RLIMIT_NPROC;
	case SM_AGENT_LIMIT_STACK:
		return RLIMIT_STACK;
	default:
		return -1;
	}
}

static void decode_limits(struct request *request, struct sm_wire *body)
{
	uint32_t count = sm_wire_u32(body);
	if (count > SM_AGENT_LIMITS_MAX)
		body->failed = true;
	for (uint32_t i = 0; i < count && !body->failed; i++) {
		uint32_t kind = sm_wire_u32(body);
		uint64_t soft = sm_wire_u64(body), hard = sm_wire_u64(body);
		if (kind == SM_AGENT_LIMIT_MEMORY) {
			request->memory_soft = soft;
			request->memory_hard = hard;
			continue;
		}
		struct sm_spawn_limit *limit = &request->limits[request->nlimits++];
		limit->resource = resource_of(kind);
		limit->value.rlim_cur = soft == UINT64_MAX ? RLIM_INFINITY : (rlim_t)soft;
		limit->value.rlim_max = hard == UINT64_MAX ? RLIM_INFINITY : (rlim_t)hard;
		if (limit->resource < 0)
			body->failed = true;
	}
}

static char **decode_strings(struct sm_wire *body, size_t extra, size_t *ret_count)
{
	uint32_t count = sm_wire_u32(body);
	/* Each takes its length field at least, which bounds what is allocated. */
	if (count > body->left / 4)
		body->failed = true;
	char **strings = body->failed ? NULL : calloc(count + extra + 1, sizeof *strings);
	for (uint32_t i = 0; strings && i < count; i++)
		strings[i] = sm_wire_string(body);
	*ret_count = count;
	return strings;
}

/* 0 or -errno; what it allocated is the caller's to free in either case. */
static int decode(struct request *request, struct sm_wire *body)
{
	size_t nargs;
	request->memory_soft = request->memory_hard = UINT64_MAX;
	request->flags = sm_wire_u32(body);
	request->window.ws_row = sm_wire_u16(body);
	request->window.ws_col = sm_wire_u16(body);
	request->timeout_ms = sm_wire_u32(body);
	request->cwd = sm_wire_string(body);
	request->user = sm_wire_string(body);
	decode_limits(request, body);
	request->argv = decode_strings(body, 0, &nargs);
	request->env = decode_strings(body, ENV_ADDED, &request->nenv);
	if (!sm_wire_ended(body) || (request->flags & ~SM_AGENT_EXEC_FLAGS) || nargs == 0)
		return -EBADMSG;
	if (!request->argv || !request->env)
		return -ENOMEM;
	for (size_t i = 0; i < request->nenv; i++)
		if (!strchr(request->env[i], '='))
			return -EBADMSG;
	return 0;
}

static void env_default(struct request *request, char *value)
{
	size_t name = (size_t)(strchr(value, '=') - value) + 1;
	for (size_t i = 0; i < request->nenv; i++)
		if (!strncmp(request->env[i], value, name))
			return;
	request->env[request->nenv++] = value;
}

/* A pipe whose end `mine` is the agent's, non-blocking; *ret_mine and *ret_theirs are set on success. */
static int open_pipe(int mine, int *ret_mine, int *ret_theirs)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	*ret_mine = ends[mine];
	*ret_theirs = ends[!mine];
	return fcntl(ends[mine], F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int open_terminal(const struct request *request, const struct sm_user *user, struct sm_exec_fds *fds,
                         int *theirs)
{
	fds->output = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fds->output < 0 || grantpt(fds->output) < 0 || unlockpt(fds->output) < 0)
		return -errno;
	theirs[0] = ioctl(fds->output, SM_TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (theirs[0] < 0 || ioctl(theirs[0], TIOCSWINSZ, &request->window) < 0)
		return -errno;
	/* The user opens it by name, as /dev/tty and /dev/stdout. */
	if (fchown(theirs[0], user->uid, (gid_t)-1) < 0)
		return -errno;
	/* Input goes through a descriptor of its own: epoll watches each for one purpose. */
	fds->input = fcntl(fds->output, F_DUPFD_CLOEXEC, 3);
	if (fds->input < 0 || fcntl(fds->output, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	theirs[1] = fcntl(theirs[0], F_DUPFD_CLOEXEC, 3);
	theirs[2] = fcntl(theirs[0], F_DUPFD_CLOEXEC, 3);
	return theirs[1] < 0 || theirs[2] < 0 ? -errno : 0;
}

static int open_pipes(const struct request *request, struct sm_exec_fds *fds, int *theirs)
{
	int code = open_pipe(0, &fds->output, &theirs[1]);
	if (code == 0 && request->flags & SM_AGENT_EXEC_MERGE_STDERR)
		theirs[2] = fcntl(theirs[1], F_DUPFD_CLOEXEC, 3);
	else if (code == 0)
		code = open_pipe(0, &fds->error, &theirs[2]);
	if (code == 0 && request->flags & SM_AGENT_EXEC_STDIN)
		code = open_pipe(1, &fds->input, &theirs[0]);
	else if (code == 0)
		theirs[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (code == 0 && (theirs[0] < 0 || theirs[2] < 0))
		code = -errno;
	return code;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void frame(struct sm_conn *conn, unsigned type, uint8_t *payload, size_t len)
{
	struct sm_exec *exec = conn->request;
	struct sm_wire wire = { .at = payload, .left = len };
	switch (type) {
	case SM_AGENT_STDIN:
		sm_exec_input_frame(exec, payload, len);
		return;
	case SM_AGENT_STDIN_EOF:
		sm_exec_input_end(exec);
		return;
	case SM_AGENT_SIGNAL: {
		uint32_t number = sm_wire_u32(&wire);
		if (!sm_wire_ended(&wire) || number < 1 || number > 64)
			sm_conn_fail(conn, EBADMSG, "malformed SIGNAL frame");
		else
			sm_exec_signal(exec, (int)number);
		return;
	}
	case SM_AGENT_RESIZE: {
		struct winsize window = { .ws_row = sm_wire_u16(&wire) };
		window.ws_col = sm_wire_u16(&wire);
		if (!sm_wire_ended(&wire) || !exec->tty)
			sm_conn_fail(conn, EBADMSG, "malformed RESIZE frame, or no terminal");
		else if (exec->output.fd >= 0)
			ioctl(exec->output.fd, TIOCSWINSZ, &window);
		return;
	}
	default:
		sm_conn_unexpected(conn, type);
	}
}

static const struct sm_conn_ops ops = { .frame = frame, .room = sm_exec_room, .over = sm_exec_over };

/* The default limits come first: the request's own override them. */
static void put_limits(const struct sm_agent *agent, const struct request *request, struct sm_spawn *spawn)
{
	spawn->limits[spawn->nlimits++] = (struct sm_spawn_limit){ RLIMIT_NOFILE, agent->open_files };
	for (size_t i = 0; i < request->nlimits; i++)
		spawn->limits[spawn->nlimits++] = request->limits[i];
}

static int open_cgroup(struct sm_exec *exec, const struct request *request, int *ret_fd)
{
	if (!exec->agent->cgroups)
		return request->memory_hard == UINT64_MAX && request->memory_soft == UINT64_MAX ? 0 : -ENOTSUP;
	unsigned long id = exec->agent->spare ? exec->agent->spare : ++exec->agent->nexecs;
	exec->agent->spare = 0;
	int code = sm_cgroup_new(id, request->memory_soft, request->memory_hard, ret_fd);
	if (code == 0)
		exec->cgroup = id;
	return code;
}

static void start(struct sm_conn *conn, struct request *request)
{
	char message[SM_AGENT_MESSAGE_MAX], home[sizeof "HOME=" + sizeof((struct sm_user *)0)->home];
	char path[] = PATH_DEFAULT, term[] = "TERM=xterm";
	struct sm_user user;
	int code = sm_user_find(request->user, &user, message, sizeof message);
	if (code < 0) {
		sm_conn_fail(conn, code, "%s", message);
		return;
	}
	env_default(request, path);
	snprintf(home, sizeof home, "HOME=%s", user.home);
	env_default(request, home);
	if (request->flags & SM_AGENT_EXEC_TTY)
		env_default(request, term);

	struct sm_exec *exec = calloc(1, sizeof *exec);
	if (!exec) {
		sm_conn_fail(conn, ENOMEM, "start '%.256s': %s", request->argv[0], strerror(ENOMEM));
		return;
	}
	exec->agent = conn->agent;
	exec->conn = conn;
	exec->tty = request->flags & SM_AGENT_EXEC_TTY;
	exec->keep = request->flags & SM_AGENT_EXEC_KEEP;
	exec->takes_input = request->flags & SM_AGENT_EXEC_STDIN;
	exec->output.fd = exec->error.fd = exec->input.fd = -1;
	exec->next = conn->agent->execs;
	conn->agent->execs = exec;
	conn->request = exec;
	conn->ops = &ops;

	struct sm_exec_fds fds = { -1, -1, -1 };
	int theirs[3] = { -1, -1, -1 }, cgroup_fd = -1;
	code = open_cgroup(exec, request, &cgroup_fd);
	if (code == 0)
		code = exec->tty ? open_terminal(request, &user, &fds, theirs) : open_pipes(request, &fds, theirs);
	struct sm_spawn spawn = {
		.argv = request->argv,
		.env = request->env,
		.cwd = *request->cwd ? request->cwd : "/",
		.user = &user,
		.in = theirs[0],
		.out = theirs[1],
		.err = theirs[2],
		.tty = exec->tty,
		.cgroup_fd = cgroup_fd,
	};
	put_limits(conn->agent, request, &spawn);
	if (code == 0) {
		sm_exec_run(exec, &spawn, fds, request->timeout_ms);
	} else {
		close_fd(fds.output);
		close_fd(fds.error);
		close_fd(fds.input);
		sm_conn_fail(conn, code, "start '%.256s': %s", request->argv[0], strerror(-code));
	}
	for (int i = 0; i < 3; i++)
		close_fd(theirs[i]);
	close_fd(cgroup_fd);
}

void sm_exec_open(struct sm_conn *conn, struct sm_wire *body)
{
	sm_exec_open_with(conn, body, NULL);
}

void sm_exec_open_with(struct sm_conn *conn, struct sm_wire *body, char *value)
{
	struct request request = { 0 };
	int code = decode(&request, body);
	if (code == 0 && value)
		env_default(&request, value);
	if (code < 0)
		sm_conn_fail(conn, code, "malformed EXEC request");
	else
		start(conn, &request);
	free(request.argv);
	free(request.env);
}
