#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static void set_signals(void)
{
	signal(SIGPIPE, SIG_DFL); /* the only one the agent changes */
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static int set_user(const struct sm_user *user)
{
	return setgroups(user->ngroups, user->groups) < 0 || setgid(user->gid) < 0 || setuid(user->uid) < 0 ? -1 : 0;
}

static int set_limits(const struct sm_spawn *spawn)
{
	for (size_t i = 0; i < spawn->nlimits; i++)
		if (setrlimit(spawn->limits[i].resource, &spawn->limits[i].value) < 0)
			return -1;
	return 0;
}

/* Returns the stage that failed, with errno. */
static enum sm_spawn_stage become(const struct sm_spawn *spawn)
{
	set_signals();
	umask(022);
	setsid();
	if (spawn->cgroup_fd >= 0 && write(spawn->cgroup_fd, "0", 1) < 0)
		return SM_SPAWN_CGROUP;
	if (spawn->tty && ioctl(spawn->in, TIOCSCTTY, 0) < 0)
		return SM_SPAWN_TERMINAL;
	if (dup2(spawn->in, 0) < 0 || dup2(spawn->out, 1) < 0 || dup2(spawn->err, 2) < 0)
		return SM_SPAWN_TERMINAL;
	if (set_limits(spawn) < 0)
		return SM_SPAWN_LIMITS;
	/* As root: a folder of root's may be where an unprivileged process starts. */
	if (chdir(spawn->cwd) < 0)
		return SM_SPAWN_CWD;
	if (set_user(spawn->user) < 0)
		return SM_SPAWN_USER;
	environ = (char **)spawn->env;
	execvp(spawn->argv[0], spawn->argv);
	return SM_SPAWN_PROGRAM;
}

int sm_spawn_start(const struct sm_spawn *spawn, pid_t *ret_pid, int *ret_status_fd)
{
	int status[2];
	if (pipe2(status, O_CLOEXEC) < 0)
		return -errno;
	pid_t pid = fork();
	if (pid == 0) {
		struct sm_spawn_failure failure = { .stage = become(spawn) };
		failure.code = errno;
		ssize_t written = write(status[1], &failure, sizeof failure);
		_exit(written < 0 ? 126 : 127);
	}
	int code = pid < 0 ? -errno : 0;
	close(status[1]);
	if (code == 0 && fcntl(status[0], F_SETFL, O_NONBLOCK) < 0)
		code = -errno;
	if (code < 0) {
		close(status[0]);
		return code;
	}
	*ret_pid = pid;
	*ret_status_fd = status[0];
	return 0;
}
