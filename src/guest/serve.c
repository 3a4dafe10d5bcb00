#include "agent/protocol.h"
#include "kernel.h"
#include "requests.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

#define CONNS_MAX 1024 /* further ones wait in the socket's queue */
#define BACKLOG   128

const struct sm_conn_kind sm_conn_kinds[] = {
	{ SM_AGENT_EXEC, sm_exec_open },
	{ SM_AGENT_CONNECT, sm_tcp_open },
	{ SM_AGENT_READ_FILE, sm_files_open_read },
	{ SM_AGENT_WRITE_FILE, sm_files_open_write },
	{ SM_AGENT_IDENTITY, sm_identity_open },
	{ SM_AGENT_PING, sm_identity_open_ping },
	{ SM_AGENT_SYNC, sm_identity_open_sync },
	{ SM_AGENT_SHUTDOWN, sm_identity_open_shutdown },
	{ SM_AGENT_DROP_CACHES, sm_identity_open_drop_caches },
	{ SM_AGENT_MOUNT, sm_attach_open },
	{ SM_AGENT_INTERPRETER, sm_interpreter_open },
	{ 0, NULL },
};

static void children_ready(struct sm_source *source, uint32_t events)
{
	(void)events;
	struct signalfd_siginfo info;
	while (read(source->fd, &info, sizeof info) > 0)
		;
	sm_exec_reap(source->owner);
}

int sm_agent_init(struct sm_agent *agent, bool machine)
{
	*agent = (struct sm_agent){
		.listener.fd = -1,
		.children.fd = -1,
		.greeting.fd = -1,
		.machine = machine,
	};
	if (getrlimit(RLIMIT_NOFILE, &agent->open_files) < 0)
		return -errno;
	int code = sm_epoll_init(&agent->epoll);
	if (code < 0)
		return code;
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return -errno;
	int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	sm_source_init(&agent->children, &agent->epoll, fd, children_ready, agent);
	return sm_source_want(&agent->children, EPOLLIN);
}

static void listener_ready(struct sm_source *source, uint32_t events)
{
	(void)events;
	struct sm_agent *agent = source->owner;
	struct sm_sockaddr_vm peer = { 0 };
	socklen_t len = sizeof peer;
	int fd = accept4(source->fd, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		/* Out of descriptors: the queue stays, and is looked at again when a connection has ended. */
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
			sm_source_want(source, 0);
		return;
	}
	/* The machine's own processes have no business here. */
	if (peer.family == SM_AF_VSOCK && peer.cid != SM_CID_HOST) {
		close(fd);
		return;
	}
	int code = sm_conn_new(agent, fd);
	if (code < 0)
		fprintf(stderr, "supermachine: connection: %s\n", strerror(-code));
	if (agent->nconns >= CONNS_MAX)
		sm_source_want(source, 0);
}

static int start_listening(struct sm_agent *agent, int fd, const void *address, size_t len)
{
	if (bind(fd, address, (socklen_t)len) < 0 || listen(fd, BACKLOG) < 0) {
		int code = -errno;
		close(fd);
		return code;
	}
	sm_source_init(&agent->listener, &agent->epoll, fd, listener_ready, agent);
	return sm_source_want(&agent->listener, EPOLLIN);
}

int sm_agent_listen_vsock(struct sm_agent *agent)
{
	struct sm_sockaddr_vm address = { .family = SM_AF_VSOCK, .port = SM_AGENT_PORT, .cid = SM_CID_ANY };
	int fd = socket(SM_AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd < 0 ? -errno : start_listening(agent, fd, &address, sizeof address);
}

int sm_agent_listen_unix(struct sm_agent *agent, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof address.sun_path)
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path) + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd < 0 ? -errno : start_listening(agent, fd, &address, sizeof address);
}

static void send_hello(struct sm_source *source)
{
	struct utsname uts;
	uname(&uts);
	size_t len = strlen(uts.release);
	uint8_t hello[SM_AGENT_HEADER + 6 + sizeof uts.release];
	uint8_t *at = sm_wire_put_u32(hello, (uint32_t)(6 + len));
	at = sm_wire_put_u16(at, SM_AGENT_HELLO);
	at = sm_wire_put_u16(at, 0);
	at = sm_wire_put_u16(at, SM_AGENT_VERSION);
	at = sm_wire_put_u32(at, (uint32_t)len);
	memcpy(at, uts.release, len);
	/* A fresh socket takes this little in one piece. */
	if (send(source->fd, hello, SM_AGENT_HEADER + 6 + len, MSG_NOSIGNAL) < 0)
		fprintf(stderr, "supermachine: hello: %s\n", strerror(errno));
}

/* First writable (connected, or refused), then readable: the host closes when it has read the hello. */
static void greeting_ready(struct sm_source *source, uint32_t events)
{
	if (source->wanted == EPOLLOUT) {
		int code = 0;
		socklen_t len = sizeof code;
		getsockopt(source->fd, SOL_SOCKET, SO_ERROR, &code, &len);
		if (!code && !(events & EPOLLERR)) {
			send_hello(source);
			sm_source_want(source, EPOLLIN);
			return;
		}
		fprintf(stderr, "supermachine: hello: %s\n", strerror(code ? code : ECONNRESET));
	} else {
		char byte;
		if (recv(source->fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN)
			return;
	}
	sm_source_close(source);
}

int sm_agent_greet(struct sm_agent *agent)
{
	struct sm_sockaddr_vm address = { .family = SM_AF_VSOCK, .port = SM_AGENT_READY_PORT, .cid = SM_CID_HOST };
	int fd = socket(SM_AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) {
		int code = -errno;
		close(fd);
		return code;
	}
	sm_source_init(&agent->greeting, &agent->epoll, fd, greeting_ready, agent);
	return sm_source_want(&agent->greeting, EPOLLOUT);
}

int sm_agent_serve(struct sm_agent *agent)
{
	while (!agent->stop) {
		int code = sm_epoll_round(&agent->epoll);
		if (code < 0)
			return code;
		sm_conn_sweep(agent);
		sm_exec_sweep(agent);
		sm_tcp_sweep(agent);
		if (agent->some_ended) {
			agent->some_ended = false;
			sm_source_want(&agent->listener, EPOLLIN);
		}
	}
	sm_exec_kill_all(agent);
	return 0;
}
