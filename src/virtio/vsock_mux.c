/* The table of vsock connections and listeners. */
#include "virtio/vsock.h"

#include "base/fd.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define BACKLOG_PUMPS 16u /* connections served together, before others' events are looked at */

void sm_vsock_mux_init(struct sm_vsock *vsock)
{
	TAILQ_INIT(&vsock->all);
	TAILQ_INIT(&vsock->dead);
	TAILQ_INIT(&vsock->control);
	TAILQ_INIT(&vsock->backlog);
	LIST_INIT(&vsock->listeners);
	for (unsigned i = 0; i < SM_VSOCK_BUCKETS; i++)
		LIST_INIT(&vsock->buckets[i]);
}

static unsigned bucket(uint32_t guest_port, uint32_t host_port)
{
	return (guest_port * 31 + host_port) % SM_VSOCK_BUCKETS;
}

static struct sm_vsock_conn *find(struct sm_vsock *vsock, uint32_t guest_port, uint32_t host_port)
{
	struct sm_vsock_conn *conn;
	LIST_FOREACH(conn, &vsock->buckets[bucket(guest_port, host_port)], hash)
	if (conn->guest_port == guest_port && conn->host_port == host_port)
		return conn;
	return NULL;
}

static struct sm_vsock_listener *find_listener(struct sm_vsock *vsock, uint32_t port)
{
	struct sm_vsock_listener *listener;
	LIST_FOREACH(listener, &vsock->listeners, link)
	/* One whose other end is closed only waits for the loop to see it. */
	if (listener->port == port && !(sm_fd_wait(listener->fd, 0, 0) & POLLHUP))
		return listener;
	return NULL;
}

void sm_vsock_mux_add(struct sm_vsock *vsock, struct sm_vsock_conn *conn)
{
	LIST_INSERT_HEAD(&vsock->buckets[bucket(conn->guest_port, conn->host_port)], conn, hash);
	TAILQ_INSERT_TAIL(&vsock->all, conn, all);
	vsock->nconns++;
}

void sm_vsock_mux_forget(struct sm_vsock_conn *conn)
{
	LIST_REMOVE(conn, hash);
	if (conn->in_control)
		TAILQ_REMOVE(&conn->vsock->control, conn, control);
	if (conn->in_backlog)
		TAILQ_REMOVE(&conn->vsock->backlog, conn, backlog);
	conn->in_control = conn->in_backlog = false;
	conn->want = 0;
}

void sm_vsock_mux_reap(struct sm_vsock *vsock)
{
	struct sm_vsock_conn *conn;
	while ((conn = TAILQ_FIRST(&vsock->dead))) {
		TAILQ_REMOVE(&vsock->dead, conn, all);
		sm_vsock_conn_free(conn);
	}
}

/* Room for one more connection.  One that only waits for the guest to confirm its end may go: its late packets are
 * answered by RST like any stranger's. */
static bool make_room(struct sm_vsock *vsock)
{
	if (vsock->nconns < SM_VSOCK_CONNECTIONS_MAX)
		return true;
	struct sm_vsock_conn *conn;
	TAILQ_FOREACH(conn, &vsock->all, all)
	{
		if (conn->fd < 0) {
			sm_vsock_conn_drop(conn);
			return true;
		}
	}
	return false;
}

/* Our end does not block; the other is its user's to set up. */
static int make_pair(int type, int ret_fds[2])
{
	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ret_fds) < 0)
		return -errno;
	int code = sm_fd_nonblock(ret_fds[0]);
	if (code < 0) {
		sm_fd_close(&ret_fds[0]);
		sm_fd_close(&ret_fds[1]);
	}
	return code;
}

/* A connection by the guest.  Returns whether there is one now. */
static bool guest_connects(struct sm_vsock *vsock, const struct sm_vsock_packet *packet)
{
	struct sm_vsock_listener *listener = find_listener(vsock, packet->dst_port);
	if (!listener || !make_room(vsock))
		return false;
	int fds[2];
	if (make_pair(SOCK_STREAM, fds) < 0)
		return false;
	SM_FD_CLEANUP int theirs = fds[1];
	struct sm_vsock_conn *conn;
	if (sm_vsock_conn_new(vsock, packet->src_port, packet->dst_port, fds[0], SM_VSOCK_OPEN, &conn) < 0) {
		sm_fd_close(&fds[0]);
		return false;
	}
	/* -EAGAIN is a full backlog, as in listen(2). */
	if (sm_fd_send(listener->fd, &packet->src_port, sizeof packet->src_port, &theirs, 1) < 0) {
		sm_vsock_conn_drop(conn);
		return false;
	}
	conn->peer_alloc = packet->buf_alloc;
	conn->peer_fwd = packet->fwd_cnt;
	sm_vsock_conn_want(conn, SM_VSOCK_RESPONSE);
	sm_vsock_conn_await(conn);
	return true;
}

static void answer_reset(struct sm_vsock *vsock, const struct sm_vsock_packet *packet)
{
	vsock->resets[vsock->nresets++] = (struct sm_vsock_packet){
		.src_cid = packet->dst_cid,
		.dst_cid = packet->src_cid,
		.src_port = packet->dst_port,
		.dst_port = packet->src_port,
		.type = packet->type,
		.op = SM_VSOCK_RST,
	};
}

void sm_vsock_mux_packet(struct sm_vsock *vsock, const struct sm_vsock_packet *packet, const struct sm_chain *chain)
{
	if (packet->src_cid != vsock->guest_cid) {
		vsock->base.stats.errors++; /* from nobody that could be answered */
		return;
	}
	bool known = packet->dst_cid == SM_VSOCK_HOST_CID && packet->type == SM_VSOCK_STREAM;
	struct sm_vsock_conn *conn = known ? find(vsock, packet->src_port, packet->dst_port) : NULL;
	if (conn && conn->state != SM_VSOCK_NEW)
		sm_vsock_conn_packet(conn, packet, chain);
	else if (packet->op == SM_VSOCK_RST)
		return;
	else if (conn || !known || packet->op != SM_VSOCK_REQUEST || !guest_connects(vsock, packet))
		answer_reset(vsock, packet);
}

bool sm_vsock_mux_control(struct sm_vsock *vsock)
{
	unsigned sent = 0;
	while (sent < vsock->nresets && sm_vsock_rx_open(vsock))
		sm_vsock_rx_send(vsock, &vsock->resets[sent++]);
	for (unsigned i = sent; i < vsock->nresets; i++)
		vsock->resets[i - sent] = vsock->resets[i];
	vsock->nresets -= sent;
	if (vsock->nresets)
		return false;
	struct sm_vsock_conn *conn;
	while ((conn = TAILQ_FIRST(&vsock->control))) {
		if (!sm_vsock_conn_control(conn))
			return false;
		if (conn->dead)
			continue;
		TAILQ_REMOVE(&vsock->control, conn, control);
		conn->in_control = false;
	}
	return true;
}

bool sm_vsock_mux_service(struct sm_vsock *vsock)
{
	bool room = sm_vsock_mux_control(vsock);
	struct sm_vsock_conn *conn;
	for (unsigned i = 0; room && i < BACKLOG_PUMPS && (conn = TAILQ_FIRST(&vsock->backlog)); i++) {
		TAILQ_REMOVE(&vsock->backlog, conn, backlog);
		conn->in_backlog = false;
		sm_vsock_conn_pump(conn);
		sm_vsock_conn_settle(conn);
		room = sm_vsock_mux_control(vsock);
	}
	bool more = false;
	if (room && TAILQ_FIRST(&vsock->backlog) && sm_vsock_rx_open(vsock)) {
		sm_vsock_rx_undo(vsock);
		more = true;
	}
	sm_virtio_flush(&vsock->base, SM_VSOCK_RX);
	sm_vsock_mux_reap(vsock);
	return more;
}

void sm_vsock_mux_reset(struct sm_vsock *vsock)
{
	vsock->nresets = 0;
	for (struct sm_vsock_conn *conn = TAILQ_FIRST(&vsock->all), *next; conn; conn = next) {
		next = TAILQ_NEXT(conn, all);
		/* The driver has not heard of a new one, and may yet: it also resets the device when it starts.  And
		 * what the guest had sent before it let go of a connection is the host's. */
		if (conn->state != SM_VSOCK_NEW && !conn->detached)
			sm_vsock_conn_drop(conn);
	}
}

void sm_vsock_mux_hang_up(struct sm_vsock *vsock)
{
	const struct sm_vsock_packet rst = { .op = SM_VSOCK_RST };
	for (struct sm_vsock_conn *conn = TAILQ_FIRST(&vsock->all), *next; conn; conn = next) {
		next = TAILQ_NEXT(conn, all);
		if (conn->state == SM_VSOCK_NEW)
			sm_vsock_conn_drop(conn);
		else if (!conn->detached)
			sm_vsock_conn_packet(conn, &rst, NULL);
	}
	sm_vsock_mux_reap(vsock);
}

void sm_virtio_vsock_hang_up(struct sm_virtio *device)
{
	if (!sm_vsock_is(device))
		return;
	pthread_mutex_lock(&device->lock);
	((struct sm_vsock *)device)->ended = true;
	sm_virtio_wake(device);
	pthread_mutex_unlock(&device->lock);
}

static void listener_free(struct sm_vsock_listener *listener)
{
	LIST_REMOVE(listener, link);
	listener->vsock->nlisteners--;
	sm_loop_remove(listener->source);
	sm_fd_close(&listener->fd);
	free(listener);
}

void sm_vsock_mux_close(struct sm_vsock *vsock)
{
	struct sm_vsock_conn *conn;
	while ((conn = TAILQ_FIRST(&vsock->all)))
		sm_vsock_conn_drop(conn);
	sm_vsock_mux_reap(vsock);
	while (LIST_FIRST(&vsock->listeners))
		listener_free(LIST_FIRST(&vsock->listeners));
}

/* Only hang-up is watched. */
static void listener_closed(void *arg, uint32_t events)
{
	(void)events;
	struct sm_vsock_listener *listener = arg;
	struct sm_virtio *device = &listener->vsock->base;
	pthread_mutex_lock(&device->lock);
	if (!device->closing)
		listener_free(listener);
	pthread_mutex_unlock(&device->lock);
}

static int listener_new(struct sm_vsock *vsock, uint32_t port, int fd)
{
	struct sm_vsock_listener *listener = calloc(1, sizeof *listener);
	if (!listener)
		return -ENOMEM;
	*listener = (struct sm_vsock_listener){ .vsock = vsock, .port = port, .fd = fd };
	int code = sm_loop_add(vsock->base.env.loop, fd, 0, listener_closed, listener, &listener->source);
	if (code < 0) {
		free(listener);
		return code;
	}
	LIST_INSERT_HEAD(&vsock->listeners, listener, link);
	vsock->nlisteners++;
	return 0;
}

int sm_virtio_vsock_listen(struct sm_virtio *device, uint32_t port, int *ret_fd, struct sm_error *err)
{
	*ret_fd = -1;
	if (!sm_vsock_is(device))
		return sm_error_set(err, ENOTSUP, "listen on vsock port %u: not a vsock device", port);
	struct sm_vsock *vsock = (struct sm_vsock *)device;
	int fds[2];
	int code = make_pair(SOCK_SEQPACKET, fds);
	if (code < 0)
		return sm_error_sys(err, code, "listen on vsock port %u", port);
	SM_FD_CLEANUP int ours = fds[0];
	SM_FD_CLEANUP int theirs = fds[1];
	pthread_mutex_lock(&device->lock);
	if (find_listener(vsock, port))
		code = -EADDRINUSE;
	else if (vsock->nlisteners >= SM_VSOCK_LISTENERS_MAX)
		code = -EMFILE;
	else
		code = listener_new(vsock, port, ours);
	if (code == 0)
		sm_fd_take(&ours);
	pthread_mutex_unlock(&device->lock);
	if (code < 0)
		return sm_error_sys(err, code, "listen on vsock port %u", port);
	*ret_fd = sm_fd_take(&theirs);
	return 0;
}

/* A host port that the guest's port is not connected to.  There are far more ports than connections. */
static uint32_t choose_port(struct sm_vsock *vsock, uint32_t guest_port)
{
	uint32_t port;
	do {
		port = vsock->next_port++;
		if (vsock->next_port == UINT32_MAX) /* VMADDR_PORT_ANY */
			vsock->next_port = 1u << 30;
	} while (find(vsock, guest_port, port) || find_listener(vsock, port));
	return port;
}

int sm_virtio_vsock_connect(struct sm_virtio *device, uint32_t port, int *ret_fd, struct sm_error *err)
{
	*ret_fd = -1;
	if (!sm_vsock_is(device))
		return sm_error_set(err, ENOTSUP, "connect to vsock port %u: not a vsock device", port);
	struct sm_vsock *vsock = (struct sm_vsock *)device;
	int fds[2];
	int code = make_pair(SOCK_STREAM, fds);
	if (code < 0)
		return sm_error_sys(err, code, "connect to vsock port %u", port);
	SM_FD_CLEANUP int ours = fds[0];
	SM_FD_CLEANUP int theirs = fds[1];
	pthread_mutex_lock(&device->lock);
	struct sm_vsock_conn *conn;
	bool room = make_room(vsock);
	if (vsock->ended)
		code = -ESHUTDOWN;
	else if (room)
		code = sm_vsock_conn_new(vsock, port, choose_port(vsock, port), ours, SM_VSOCK_NEW, &conn);
	if (room && code == 0) {
		sm_fd_take(&ours);
		sm_vsock_conn_want(conn, SM_VSOCK_REQUEST);
		sm_virtio_wake(device);
	}
	pthread_mutex_unlock(&device->lock);
	if (!room)
		return sm_error_set(err, EMFILE,
		                    "connect to vsock port %u: %u connections are open, the most there can be", port,
		                    SM_VSOCK_CONNECTIONS_MAX);
	if (code < 0)
		return sm_error_sys(err, code, "connect to vsock port %u", port);
	*ret_fd = sm_fd_take(&theirs);
	return 0;
}
