#include "base/process.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

extern char **environ;

/* This thread may block or ignore what the process must hear. */
static int set_attributes(posix_spawnattr_t *attributes, bool own_group)
{
	short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
	sigset_t none, all;
	sigemptyset(&none);
	sigfillset(&all);
	int code = posix_spawnattr_setsigmask(attributes, &none);
	code = code ? code : posix_spawnattr_setsigdefault(attributes, &all);
	code = code ? code : posix_spawnattr_setpgroup(attributes, 0);
	return code ? code : posix_spawnattr_setflags(attributes, own_group ? flags | POSIX_SPAWN_SETPGROUP : flags);
}

static int set_descriptors(posix_spawn_file_actions_t *actions, const int fds[3])
{
	int code = 0;
	for (int i = 0; i < 3 && !code; i++)
		code = fds[i] < 0 ? posix_spawn_file_actions_addopen(actions, i, "/dev/null", O_RDWR, 0)
		                  : posix_spawn_file_actions_adddup2(actions, fds[i], i);
	return code ? code : posix_spawn_file_actions_addclosefrom_np(actions, STDERR_FILENO + 1);
}

static int start_found(const char *const *argv, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *attributes, pid_t *ret_pid)
{
	static const char *const folders[] = { "/usr/sbin", "/sbin" };
	char *const *words = (char *const *)(uintptr_t)argv;
	int code = posix_spawnp(ret_pid, argv[0], actions, attributes, words, environ);
	for (size_t i = 0; i < sizeof folders / sizeof *folders && code == ENOENT; i++) {
		char path[256];
		if (snprintf(path, sizeof path, "%s/%s", folders[i], argv[0]) < (int)sizeof path)
			code = posix_spawn(ret_pid, path, actions, attributes, words, environ);
	}
	return code;
}

int sm_process_start(const char *const *argv, const int fds[3], bool own_group, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	int code = posix_spawn_file_actions_init(&actions);
	if (code)
		return -code;
	if ((code = posix_spawnattr_init(&attributes))) {
		posix_spawn_file_actions_destroy(&actions);
		return -code;
	}
	code = set_descriptors(&actions, fds);
	code = code ? code : set_attributes(&attributes, own_group);
	code = code ? code : start_found(argv, &actions, &attributes, ret_pid);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	return -code;
}

int sm_process_lift(int *fd)
{
	if (*fd > STDERR_FILENO)
		return 0;
	int lifted = fcntl(*fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (lifted < 0)
		return -errno;
	sm_fd_close(fd);
	*fd = lifted;
	return 0;
}
