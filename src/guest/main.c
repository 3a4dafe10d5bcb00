/* The guest's only program of ours: as process 1 it is init, and then the agent; with --serve it is the agent alone,
 * an ordinary process that serves the same protocol on a Unix socket. */
#include "agent.h"
#include "cgroup.h"
#include "identity.h"
#include "init.h"
#include "requests.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#define OPEN_FILES_SOFT 1024
#define OPEN_FILES_MAX  1048576

static void open_console(void)
{
	int fd = open("/dev/console", O_RDWR | O_NOCTTY);
	if (fd < 0)
		return;
	for (int i = 0; i < 3; i++)
		if (fd != i)
			dup2(fd, i);
	if (fd > 2)
		close(fd);
}

static void power_off(void)
{
	kill(-1, SIGKILL);
	sync();
	reboot(RB_POWER_OFF);
	/* Nowhere to go, and nobody left to tell. */
	for (;;)
		pause();
}

/* The agent itself serves many connections; what it starts gets the usual numbers. */
static void raise_open_files(struct rlimit *ret_children)
{
	struct rlimit own = { OPEN_FILES_MAX, OPEN_FILES_MAX };
	if (setrlimit(RLIMIT_NOFILE, &own) == 0)
		*ret_children = (struct rlimit){ OPEN_FILES_SOFT, OPEN_FILES_MAX };
}

static int set_up(const struct sm_options *options, struct sm_failure *failure)
{
	bool image;
	if (sm_devices_load_modules(failure) < 0 || sm_features_check(failure) < 0 ||
	    sm_devices_raise_loopback(failure) < 0 || sm_root_switch(options, &image, failure) < 0 ||
	    sm_mounts_system(failure) < 0)
		return -1;
	if (sethostname(options->hostname, strlen(options->hostname)) < 0)
		return sm_fail_errno(failure, "host name '%s'", options->hostname);
	return 0;
}

static int run_init(struct sm_agent *agent, struct sm_failure *failure)
{
	struct sm_options options;
	if (sm_mounts_early(failure) < 0)
		return -1;
	open_console();
	if (sm_options_read(&options, failure) < 0 || set_up(&options, failure) < 0)
		return -1;
	int code = sm_agent_init(agent, true);
	if (code < 0)
		return sm_fail(failure, "agent: %s", strerror(-code));
	raise_open_files(&agent->open_files);
	agent->cgroups = access(SM_CGROUP_ROOT "/cgroup.procs", F_OK) == 0;
	if (agent->cgroups)
		sm_cgroup_enable();
	sm_exec_prepare(agent);
	sm_identity_prepare();
	code = sm_agent_listen_vsock(agent);
	if (code < 0)
		return sm_fail(failure, "listen on vsock: %s", strerror(-code));
	code = sm_agent_greet(agent);
	if (code < 0) /* nobody may be waiting */
		fprintf(stderr, "supermachine: hello: %s\n", strerror(-code));
	code = sm_agent_serve(agent);
	return code < 0 ? sm_fail(failure, "event loop: %s", strerror(-code)) : 0;
}

static int serve_unix(struct sm_agent *agent, const char *path)
{
	/* Children's input, output and errors may not land on 0 to 2. */
	int fd;
	do
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd < 3);
	close(fd);
	int code = sm_agent_init(agent, false);
	if (code == 0)
		code = sm_agent_listen_unix(agent, path);
	if (code < 0) {
		fprintf(stderr, "supermachine-guest: %s: %s\n", path, strerror(-code));
		return 1;
	}
	code = sm_agent_serve(agent);
	unlink(path);
	if (code < 0)
		fprintf(stderr, "supermachine-guest: %s\n", strerror(-code));
	return code < 0;
}

int main(int argc, char **argv)
{
	struct sm_agent agent;
	if (argc == 3 && !strcmp(argv[1], "--serve"))
		return serve_unix(&agent, argv[2]);
	if (getpid() != 1) {
		fprintf(stderr, "usage: supermachine-guest --serve SOCKET\n");
		return 2;
	}
	struct sm_failure failure = { .code = 0 };
	umask(022);
	if (run_init(&agent, &failure) < 0)
		fprintf(stderr, "supermachine: init: %s: powering off\n", failure.message);
	power_off();
}
