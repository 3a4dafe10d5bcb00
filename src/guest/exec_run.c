#include "agent/protocol.h"
#include "cgroup.h"
#include "exec.h"
#include "requests.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define TERMINAL_LEFT_MAX (256u << 10) /* most a terminal is read when its process has ended */

/* Whoever belongs to the request: with a cgroup also after setsid of its own. */
static void kill_all(struct sm_exec *exec)
{
	if (exec->pid && !exec->exited)
		kill(-exec->pid, SIGKILL);
	if (exec->cgroup)
		sm_cgroup_kill(exec->cgroup);
}

void sm_exec_signal(struct sm_exec *exec, int number)
{
	if (exec->pid && !exec->exited)
		kill(-exec->pid, number);
}

static void close_all(struct sm_exec *exec)
{
	sm_source_close(&exec->output);
	sm_source_close(&exec->error);
	sm_source_close(&exec->input);
}

static void drop_cgroup(struct sm_exec *exec)
{
	/* What the process left running keeps its cgroup: it is removed when that has ended. */
	if (exec->cgroup && !sm_cgroup_remove(exec->cgroup))
		exec->agent->cgroups_left = true;
	exec->cgroup = 0;
}

/* The connection's end; when the process is still there, that of the process follows, or nobody listens any more. */
void sm_exec_over(struct sm_conn *conn)
{
	struct sm_exec *exec = conn->request;
	exec->conn = NULL;
	if (exec->keep && exec->pid && !exec->exited && conn->stage == SM_CONN_DEAD) {
		sm_source_close(&exec->input);
		sm_source_want(&exec->output, EPOLLIN);
		sm_source_want(&exec->error, EPOLLIN);
		return;
	}
	exec->keep = false;
	sm_timer_stop(&exec->agent->epoll, &exec->timer);
	close_all(exec);
	if (exec->pid && !exec->exited) {
		kill_all(exec);
		return;
	}
	drop_cgroup(exec);
	exec->dead = true;
}

void sm_exec_free(struct sm_exec *exec)
{
	free(exec->stdin_data);
	free(exec);
}

void sm_exec_sweep(struct sm_agent *agent)
{
	for (struct sm_exec **at = &agent->execs; *at;) {
		struct sm_exec *exec = *at;
		if (!exec->dead) {
			at = &exec->next;
			continue;
		}
		*at = exec->next;
		sm_exec_free(exec);
		sm_exec_prepare(agent);
	}
}

void sm_exec_prepare(struct sm_agent *agent)
{
	if (agent->cgroups && !agent->spare && sm_cgroup_prepare(agent->nexecs + 1) == 0)
		agent->spare = ++agent->nexecs;
}

void sm_exec_kill_all(struct sm_agent *agent)
{
	for (struct sm_exec *exec = agent->execs; exec; exec = exec->next)
		kill_all(exec);
}

static void send_exit(struct sm_exec *exec)
{
	uint8_t payload[44];
	bool exited = WIFEXITED(exec->status);
	const struct rusage *usage = &exec->usage;
	uint8_t *at = sm_wire_put_u32(payload, exited ? (uint32_t)WEXITSTATUS(exec->status) : 0);
	at = sm_wire_put_u32(at, exited ? 0 : (uint32_t)WTERMSIG(exec->status));
	at = sm_wire_put_u32(at, exec->timed_out ? SM_AGENT_EXIT_TIMED_OUT : 0);
	at = sm_wire_put_u64(at, (uint64_t)(exec->ended_us - exec->started_us));
	at = sm_wire_put_u64(at, (uint64_t)usage->ru_utime.tv_sec * 1000000 + (uint64_t)usage->ru_utime.tv_usec);
	at = sm_wire_put_u64(at, (uint64_t)usage->ru_stime.tv_sec * 1000000 + (uint64_t)usage->ru_stime.tv_usec);
	at = sm_wire_put_u64(at, (uint64_t)usage->ru_maxrss * 1024);
	sm_conn_send(exec->conn, SM_AGENT_EXIT, payload, (size_t)(at - payload));
	sm_conn_finish(exec->conn);
}

/* One read's worth of output.  True when there may be more at once. */
static bool pump_one(struct sm_exec *exec, struct sm_source *source, unsigned type, size_t *left)
{
	if (source->fd < 0)
		return false;
	size_t max;
	uint8_t *place = sm_conn_room(exec->conn, &max);
	if (!place) {
		sm_source_want(source, 0);
		return false;
	}
	/* Of a process that has ended, what it wrote; not what those that it left behind go on to write. */
	if (exec->exited && *left < max)
		max = *left;
	ssize_t got = max ? read(source->fd, place, max) : 0;
	if (got < 0 && errno == EINTR)
		return true;
	if (got < 0 && errno == EAGAIN && !exec->exited) {
		sm_source_want(source, EPOLLIN);
		return false;
	}
	/* EIO: nobody has the terminal open. */
	if (got <= 0) {
		sm_source_close(source);
		return false;
	}
	if (exec->exited)
		*left -= (size_t)got;
	sm_conn_commit(exec->conn, type, (size_t)got);
	return true;
}

static void pump(struct sm_exec *exec)
{
	/* Standard error before the rest of standard output, lest one starve the other. */
	bool more;
	do {
		more = pump_one(exec, &exec->output, SM_AGENT_STDOUT, &exec->output_left);
		more |= pump_one(exec, &exec->error, SM_AGENT_STDERR, &exec->error_left);
	} while (more && exec->exited);
	if (exec->exited && exec->output.fd < 0 && exec->error.fd < 0)
		send_exit(exec);
}

/* A process that was kept must neither wait for a reader nor die of having none. */
static void drop_output(struct sm_source *source)
{
	uint8_t piece[4096];
	ssize_t got = read(source->fd, piece, sizeof piece);
	if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
		sm_source_close(source);
}

static void output_ready(struct sm_source *source, uint32_t events)
{
	(void)events;
	struct sm_exec *exec = source->owner;
	if (exec->conn)
		pump(exec);
	else
		drop_output(source);
}

void sm_exec_room(struct sm_conn *conn)
{
	struct sm_exec *exec = conn->request;
	if (exec->exited) {
		pump(exec);
		return;
	}
	if (exec->pid) {
		sm_source_want(&exec->output, EPOLLIN);
		sm_source_want(&exec->error, EPOLLIN);
	}
	if (exec->takes_input && !exec->input_closed)
		sm_exec_input_push(exec);
}

static size_t readable(const struct sm_exec *exec, const struct sm_source *source)
{
	int bytes = 0;
	if (source->fd < 0)
		return 0;
	/* A terminal counts only what has passed its line discipline. */
	if (exec->tty)
		return TERMINAL_LEFT_MAX;
	return ioctl(source->fd, FIONREAD, &bytes) < 0 || bytes < 0 ? 0 : (size_t)bytes;
}

static void reaped(struct sm_exec *exec, int status, const struct rusage *usage)
{
	exec->ended_us = sm_epoll_now_us();
	exec->status = status;
	exec->usage = *usage;
	/* With the connection's end the process's, and so everybody's in its cgroup: those of its descendants, too,
	 * who were being forked at the first kill. */
	if (!exec->conn && !exec->keep)
		kill_all(exec);
	exec->exited = true;
	drop_cgroup(exec);
	if (!exec->conn) {
		sm_timer_stop(&exec->agent->epoll, &exec->timer);
		close_all(exec);
		exec->dead = true;
		return;
	}
	sm_timer_stop(&exec->agent->epoll, &exec->timer);
	sm_source_close(&exec->input);
	exec->input_closed = true;
	exec->stdin_len = 0;
	exec->output_left = readable(exec, &exec->output);
	exec->error_left = readable(exec, &exec->error);
	pump(exec);
}

static bool cgroup_in_use(void *arg, unsigned long id)
{
	const struct sm_agent *agent = arg;
	for (const struct sm_exec *exec = agent->execs; exec; exec = exec->next)
		if (exec->cgroup == id)
			return true;
	return agent->spare == id;
}

void sm_exec_reap(struct sm_agent *agent)
{
	for (;;) {
		int status;
		struct rusage usage;
		pid_t pid = wait4(-1, &status, WNOHANG, &usage);
		if (pid < 0 && errno == EINTR)
			continue;
		if (pid <= 0)
			break;
		struct sm_exec *exec = agent->execs;
		while (exec && (exec->pid != pid || exec->exited))
			exec = exec->next;
		if (exec)
			reaped(exec, status, &usage);
	}
	if (agent->cgroups_left)
		sm_cgroup_sweep(cgroup_in_use, agent, &agent->cgroups_left);
}

static void timer_due(struct sm_timer *timer)
{
	struct sm_exec *exec = (struct sm_exec *)((char *)timer - offsetof(struct sm_exec, timer));
	exec->timed_out = true;
	kill_all(exec);
}

static void say_failure(struct sm_conn *conn, const struct sm_spawn *spawn, enum sm_spawn_stage stage, int code)
{
	static const char *const stages[] = {
		[SM_SPAWN_CGROUP] = "cgroup",
		[SM_SPAWN_TERMINAL] = "terminal",
		[SM_SPAWN_LIMITS] = "limits",
		[SM_SPAWN_USER] = "user",
	};
	const char *program = spawn->argv[0], *cause = strerror(-code);
	if (stage == SM_SPAWN_NONE)
		sm_conn_fail(conn, code, "start '%.256s': %s", program, cause);
	else if (stage == SM_SPAWN_PROGRAM)
		sm_conn_fail(conn, code, "run '%.256s': %s", program, cause);
	else if (stage == SM_SPAWN_CWD)
		sm_conn_fail(conn, code, "folder '%.256s': %s", spawn->cwd, cause);
	else
		sm_conn_fail(conn, code, "start '%.256s': set %s: %s", program, stages[stage], cause);
}

void sm_exec_run(struct sm_exec *exec, const struct sm_spawn *spawn, struct sm_exec_fds fds, uint32_t timeout_ms)
{
	struct sm_epoll *epoll = &exec->agent->epoll;
	sm_source_init(&exec->output, epoll, fds.output, output_ready, exec);
	sm_source_init(&exec->error, epoll, fds.error, output_ready, exec);
	sm_source_init(&exec->input, epoll, fds.input, sm_exec_input_ready, exec);
	exec->started_us = sm_epoll_now_us();
	enum sm_spawn_stage stage;
	int code = sm_spawn_start(spawn, &exec->pid, &stage);
	if (code < 0) {
		say_failure(exec->conn, spawn, stage, code);
		return;
	}
	if (timeout_ms) {
		exec->timer = (struct sm_timer){ .at_ms = sm_epoll_now_ms() + timeout_ms, .due = timer_due };
		sm_timer_start(epoll, &exec->timer);
	}
	uint8_t payload[4];
	sm_wire_put_u32(payload, (uint32_t)exec->pid);
	sm_conn_send(exec->conn, SM_AGENT_STARTED, payload, sizeof payload);
	sm_source_want(&exec->output, EPOLLIN);
	sm_source_want(&exec->error, EPOLLIN);
}
