/* The agent: what all its requests share. */
#ifndef SM_GUEST_AGENT_H
#define SM_GUEST_AGENT_H

#include "epoll.h"

#include <stdbool.h>
#include <sys/resource.h>

struct sm_conn;
struct sm_exec;
struct sm_tcp;

struct sm_agent {
	struct sm_epoll epoll;
	struct sm_source listener;
	struct sm_source children; /* signalfd of SIGCHLD */
	struct sm_source greeting; /* the connection that carries HELLO */
	bool machine;              /* init of a machine: may set its clock and power it off */
	bool cgroups;              /* cgroup 2 is at SM_CGROUP_ROOT */
	bool stop;                 /* leave the loop: power off */
	struct rlimit open_files;  /* what a process gets that asks for nothing else */
	bool cgroups_left;         /* a cgroup outlived its request, with processes in it */
	bool some_ended;           /* a connection ended in this round: another may be accepted */
	unsigned nconns;           /* open ones, TCP streams too */
	unsigned long nexecs;      /* ever: the names of cgroups */
	unsigned long spare;       /* the cgroup of the next process, there already; 0: none */
	struct sm_conn *conns;
	struct sm_exec *execs;
	struct sm_tcp *tcps;
};

/* Blocks SIGCHLD, ignores SIGPIPE. 0 or -errno. */
int sm_agent_init(struct sm_agent *agent, bool machine);
/* Listen on vsock port SM_AGENT_PORT, or on a Unix socket at `path`.  0 or -errno. */
int sm_agent_listen_vsock(struct sm_agent *agent);
int sm_agent_listen_unix(struct sm_agent *agent, const char *path);
/* Tell the host that the agent is ready. */
int sm_agent_greet(struct sm_agent *agent);
/* Serve until a SHUTDOWN is through.  0 or -errno. */
int sm_agent_serve(struct sm_agent *agent);

#endif
