/* CONNECT: a TCP connection inside the machine, joined to the one from the host. */
#include "agent/protocol.h"
#include "requests.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PIPE_MAX (64u << 10)

/* What has been read from one end and not yet been written to the other. */
struct flow {
	struct sm_source *from, *to;
	bool ended; /* from has sent its last */
	bool shut;  /* and to has been told */
	size_t start, len;
	uint8_t data[PIPE_MAX];
};

struct sm_tcp {
	struct sm_agent *agent;
	struct sm_conn *conn; /* while connecting */
	struct sm_source host, peer;
	struct flow out, in; /* to the peer; to the host */
	bool dead;
	char address[INET6_ADDRSTRLEN];
	unsigned port;
	struct sm_tcp *next;
};

static void tcp_end(struct sm_tcp *tcp)
{
	sm_source_close(&tcp->host);
	sm_source_close(&tcp->peer);
	tcp->dead = true;
}

void sm_tcp_sweep(struct sm_agent *agent)
{
	for (struct sm_tcp **at = &agent->tcps; *at;) {
		struct sm_tcp *tcp = *at;
		if (!tcp->dead) {
			at = &tcp->next;
			continue;
		}
		*at = tcp->next;
		agent->nconns--;
		agent->some_ended = true;
		free(tcp);
	}
}

/* Read if there is room, write what there is.  -errno when an end is broken. */
static int flow_move(struct flow *flow)
{
	if (!flow->ended && flow->len == 0) {
		ssize_t got = recv(flow->from->fd, flow->data, PIPE_MAX, MSG_DONTWAIT);
		if (got < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (got == 0)
			flow->ended = true;
		flow->start = 0;
		flow->len = got > 0 ? (size_t)got : 0;
	}
	while (flow->len) {
		ssize_t sent = send(flow->to->fd, flow->data + flow->start, flow->len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN)
			break;
		if (sent < 0)
			return -errno;
		flow->start += (size_t)sent;
		flow->len -= (size_t)sent;
	}
	if (flow->ended && !flow->len && !flow->shut) {
		shutdown(flow->to->fd, SHUT_WR);
		flow->shut = true;
	}
	return 0;
}

static uint32_t wanted(const struct flow *reading, const struct flow *writing)
{
	return (!reading->ended && !reading->len ? (uint32_t)EPOLLIN : 0) | (writing->len ? (uint32_t)EPOLLOUT : 0);
}

static void stream_ready(struct sm_source *source, uint32_t events)
{
	(void)events;
	struct sm_tcp *tcp = source->owner;
	/* The peer is told by RST (linger 0); to the host a broken stream is one that ends. */
	if (flow_move(&tcp->out) < 0 || flow_move(&tcp->in) < 0) {
		struct linger reset = { .l_onoff = 1 };
		setsockopt(tcp->peer.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
		tcp_end(tcp);
		return;
	}
	if (tcp->out.shut && tcp->in.shut) {
		tcp_end(tcp);
		return;
	}
	sm_source_want(&tcp->host, wanted(&tcp->out, &tcp->in));
	sm_source_want(&tcp->peer, wanted(&tcp->in, &tcp->out));
}

static void fail(struct sm_tcp *tcp, int code)
{
	char address[INET6_ADDRSTRLEN];
	memcpy(address, tcp->address, sizeof address);
	sm_conn_fail(tcp->conn, code, "connect to %s port %u: %s", address, tcp->port, strerror(code));
}

static void peer_connected(struct sm_source *source, uint32_t events)
{
	(void)events;
	struct sm_tcp *tcp = source->owner;
	int code = 0;
	socklen_t len = sizeof code;
	if (getsockopt(source->fd, SOL_SOCKET, SO_ERROR, &code, &len) < 0)
		code = errno;
	if (code) {
		fail(tcp, code);
		return;
	}
	sm_source_init(&tcp->host, &tcp->agent->epoll, sm_conn_detach(tcp->conn), stream_ready, tcp);
	tcp->conn = NULL;
	tcp->peer.ready = stream_ready;
	/* The OK frame travels ahead of the peer's bytes. */
	uint8_t *at = sm_wire_put_u32(tcp->in.data, 0);
	at = sm_wire_put_u16(at, SM_AGENT_OK);
	sm_wire_put_u16(at, 0);
	tcp->in.len = SM_AGENT_HEADER;
	stream_ready(source, 0);
}

static void frame(struct sm_conn *conn, unsigned type, uint8_t *payload, size_t len)
{
	(void)payload;
	(void)len;
	sm_conn_unexpected(conn, type);
}

/* Only while connecting. */
static void over(struct sm_conn *conn)
{
	tcp_end(conn->request);
}

static const struct sm_conn_ops ops = { .frame = frame, .over = over };

static int address_of(const char *text, unsigned port, struct sockaddr_storage *ret, socklen_t *ret_len)
{
	*ret = (struct sockaddr_storage){ 0 };
	if (strlen(text) >= INET6_ADDRSTRLEN)
		return -EINVAL;
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)port);
		*ret_len = sizeof *v4;
		return 0;
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)port);
		*ret_len = sizeof *v6;
		return 0;
	}
	return -EINVAL;
}

void sm_tcp_open(struct sm_conn *conn, struct sm_wire *body)
{
	const char *text = sm_wire_string(body);
	unsigned port = sm_wire_u16(body);
	if (!sm_wire_ended(body) || port == 0) {
		sm_conn_fail(conn, EBADMSG, "malformed CONNECT request");
		return;
	}
	if (!*text)
		text = "127.0.0.1";
	struct sockaddr_storage address;
	socklen_t len;
	if (address_of(text, port, &address, &len) < 0) {
		sm_conn_fail(conn, EINVAL, "connect to '%.64s': not a numeric address", text);
		return;
	}
	struct sm_tcp *tcp = calloc(1, sizeof *tcp);
	if (!tcp) {
		sm_conn_fail(conn, ENOMEM, "connect to %s: %s", text, strerror(ENOMEM));
		return;
	}
	int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int code = fd < 0 ? errno : 0;
	tcp->agent = conn->agent;
	tcp->conn = conn;
	tcp->host.fd = -1;
	tcp->port = port;
	memcpy(tcp->address, text, strlen(text) + 1);
	sm_source_init(&tcp->peer, &conn->agent->epoll, fd, peer_connected, tcp);
	tcp->out.from = tcp->in.to = &tcp->host;
	tcp->out.to = tcp->in.from = &tcp->peer;
	tcp->next = conn->agent->tcps;
	conn->agent->tcps = tcp;
	conn->agent->nconns++;
	conn->request = tcp;
	conn->ops = &ops;
	if (!code && connect(fd, (const struct sockaddr *)&address, len) < 0 && errno != EINPROGRESS)
		code = errno;
	if (!code)
		code = -sm_source_want(&tcp->peer, EPOLLOUT);
	if (code)
		fail(tcp, code);
}
