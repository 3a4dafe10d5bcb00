#include "spawn.h"

#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK_BYTES 16384 /* of the child; execvp keeps a path on it */

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
	environ = (char **)spawn->env; /* whose PATH counts; ours again once the parent goes on */
	execvp(spawn->argv[0], spawn->argv);
	return SM_SPAWN_PROGRAM;
}

struct start {
	const struct sm_spawn *spawn;
	enum sm_spawn_stage stage;
	int code;
};

static int run_child(void *arg)
{
	struct start *start = arg;
	start->stage = become(start->spawn);
	start->code = -errno;
	return 127;
}

int sm_spawn_start(const struct sm_spawn *spawn, pid_t *ret_pid, enum sm_spawn_stage *ret_stage)
{
	/* The child has the agent's memory, and the agent waits: a copy of the page tables, and of each page that
	 * either of them writes then, would be most of what a short process costs a machine that was just restored. Not
	 * vfork: the C library has that as a plain fork on some architectures. */
	_Alignas(16) char stack[STACK_BYTES];
	struct start start = { .spawn = spawn, .stage = SM_SPAWN_NONE };
	char **own = environ;
	pid_t pid = clone(run_child, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &start);
	environ = own;
	*ret_stage = start.stage;
	if (pid < 0)
		return -errno;
	if (start.code < 0) {
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		return start.code;
	}
	*ret_pid = pid;
	return 0;
}
