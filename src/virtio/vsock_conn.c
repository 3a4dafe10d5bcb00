/* One vsock connection: credit, half-closes, and the bytes between guest buffers and our end of its socket pair.
 *
 * Data by the guest goes to the socket at once, and what does not fit waits in `out`; the guest gets credit when the
 * host has taken it.  Data by the host is read into guest buffers, and where there is none, or no credit, the socket is
 * not watched: the sender then blocks. */
#include "virtio/vsock.h"

#include "base/fd.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define PUMP_PACKETS 16u         /* to the guest, before others have their turn */
#define PACKET_BYTES (64u << 10) /* of data in a packet to the guest */
#define CREDIT_BYTES (64u << 10) /* taken by the host before the guest is told unasked */

static void host_ready(void *arg, uint32_t events);

int sm_vsock_conn_new(struct sm_vsock *vsock, uint32_t guest_port, uint32_t host_port, int fd,
                      enum sm_vsock_state state, struct sm_vsock_conn **ret_conn)
{
	struct sm_vsock_conn *conn = calloc(1, sizeof *conn);
	if (!conn)
		return -ENOMEM;
	conn->vsock = vsock;
	conn->guest_port = guest_port;
	conn->host_port = host_port;
	conn->state = state;
	conn->fd = fd;
	sm_buf_init(&conn->out, SM_VSOCK_BUF_ALLOC);
	int code = sm_loop_add(vsock->base.env.loop, fd, 0, host_ready, conn, &conn->source);
	if (code < 0) {
		free(conn);
		return code;
	}
	sm_vsock_mux_add(vsock, conn);
	*ret_conn = conn;
	return 0;
}

void sm_vsock_conn_free(struct sm_vsock_conn *conn)
{
	sm_loop_remove(conn->source);
	sm_fd_close(&conn->fd);
	sm_buf_done(&conn->out);
	free(conn);
}

void sm_vsock_conn_drop(struct sm_vsock_conn *conn)
{
	struct sm_vsock *vsock = conn->vsock;
	if (!conn->detached)
		sm_vsock_mux_forget(conn);
	conn->dead = true;
	if (conn->fd >= 0)
		shutdown(conn->fd, SHUT_RDWR); /* the host sees the end before the loop comes round */
	TAILQ_REMOVE(&vsock->all, conn, all);
	TAILQ_INSERT_TAIL(&vsock->dead, conn, all);
	vsock->nconns--;
}

void sm_vsock_conn_want(struct sm_vsock_conn *conn, enum sm_vsock_op op)
{
	conn->want |= 1u << op;
	if (!conn->in_control) {
		TAILQ_INSERT_TAIL(&conn->vsock->control, conn, control);
		conn->in_control = true;
	}
}

void sm_vsock_conn_await(struct sm_vsock_conn *conn)
{
	if (!conn->in_backlog) {
		TAILQ_INSERT_TAIL(&conn->vsock->backlog, conn, backlog);
		conn->in_backlog = true;
	}
}

/* Into the buffer that was opened. */
static void send_packet(struct sm_vsock_conn *conn, enum sm_vsock_op op, uint32_t flags, uint32_t len)
{
	const struct sm_vsock_packet packet = {
		.src_cid = SM_VSOCK_HOST_CID,
		.dst_cid = conn->vsock->guest_cid,
		.src_port = conn->host_port,
		.dst_port = conn->guest_port,
		.len = len,
		.type = SM_VSOCK_STREAM,
		.op = (uint16_t)op,
		.flags = flags,
		.buf_alloc = SM_VSOCK_BUF_ALLOC,
		.fwd_cnt = conn->fwd_cnt,
	};
	conn->told_fwd = conn->fwd_cnt;
	sm_vsock_rx_send(conn->vsock, &packet);
}

bool sm_vsock_conn_control(struct sm_vsock_conn *conn)
{
	static const enum sm_vsock_op order[] = { SM_VSOCK_RST,           SM_VSOCK_REQUEST,        SM_VSOCK_RESPONSE,
		                                  SM_VSOCK_CREDIT_UPDATE, SM_VSOCK_CREDIT_REQUEST, SM_VSOCK_SHUTDOWN };
	for (unsigned i = 0; i < sizeof order / sizeof *order; i++) {
		enum sm_vsock_op op = order[i];
		if (!(conn->want & 1u << op))
			continue;
		if (!sm_vsock_rx_open(conn->vsock))
			return false;
		send_packet(conn, op, op == SM_VSOCK_SHUTDOWN ? conn->told_shut : 0, 0);
		conn->want &= ~(1u << op);
		if (op == SM_VSOCK_RST) {
			sm_vsock_conn_drop(conn);
			return true;
		}
		if (op == SM_VSOCK_REQUEST)
			conn->state = SM_VSOCK_CONNECTING;
	}
	return true;
}

static void close_host(struct sm_vsock_conn *conn)
{
	sm_loop_remove(conn->source);
	conn->source = NULL;
	sm_fd_close(&conn->fd);
	conn->reading = false;
}

/* End the connection from this side.  It leaves the table when the guest has been told. */
static void reset(struct sm_vsock_conn *conn)
{
	if (conn->fd >= 0)
		shutdown(conn->fd, SHUT_RDWR);
	close_host(conn);
	sm_buf_done(&conn->out);
	conn->want = 0;
	sm_vsock_conn_want(conn, SM_VSOCK_RST);
}

/* The host took `bytes` of the guest's: give credit in large pieces. */
static void taken(struct sm_vsock_conn *conn, size_t bytes)
{
	conn->fwd_cnt += (uint32_t)bytes;
	if (conn->fwd_cnt - conn->told_fwd >= CREDIT_BYTES && !conn->detached)
		sm_vsock_conn_want(conn, SM_VSOCK_CREDIT_UPDATE);
}

/* The host reads no more: what the guest still sends is thrown away. */
static void host_gone(struct sm_vsock_conn *conn)
{
	conn->host_gone = true;
	taken(conn, conn->out.len);
	sm_buf_done(&conn->out);
}

/* Returns the bytes that the host's socket took. */
static size_t write_host(struct sm_vsock_conn *conn, struct iovec *iov, unsigned count)
{
	const struct msghdr msg = { .msg_iov = iov, .msg_iovlen = count };
	ssize_t sent;
	while ((sent = sendmsg(conn->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL)) < 0 && errno == EINTR)
		;
	if (sent >= 0)
		return (size_t)sent;
	if (errno != EAGAIN)
		host_gone(conn);
	return 0;
}

static void drain(struct sm_vsock_conn *conn)
{
	if (!conn->out.len || conn->fd < 0)
		return;
	struct iovec iov = { .iov_base = conn->out.data, .iov_len = conn->out.len };
	size_t sent = write_host(conn, &iov, 1);
	if (conn->host_gone)
		return;
	sm_buf_consume(&conn->out, sent);
	taken(conn, sent);
	if (!conn->out.len)
		sm_buf_done(&conn->out);
}

static void receive(struct sm_vsock_conn *conn, const struct sm_vsock_packet *packet, const struct sm_chain *chain)
{
	if (conn->state != SM_VSOCK_OPEN || (conn->guest_shut & SM_VSOCK_SHUT_SEND) ||
	    packet->len > SM_VSOCK_BUF_ALLOC - conn->out.len) { /* more than it had credit for */
		conn->vsock->base.stats.errors++;
		reset(conn);
		return;
	}
	if (conn->host_gone) {
		taken(conn, packet->len);
		return;
	}
	struct iovec iov[SM_QUEUE_NUM_MAX];
	unsigned count = sm_chain_slice(chain, false, SM_VSOCK_HEADER_BYTES, packet->len, iov);
	size_t sent = conn->out.len || !count ? 0 : write_host(conn, iov, count);
	if (conn->host_gone) {
		taken(conn, packet->len);
		return;
	}
	taken(conn, sent);
	size_t left = packet->len - sent;
	void *room = left ? sm_buf_extend(&conn->out, left) : NULL;
	if (left && (!room || sm_chain_read(chain, SM_VSOCK_HEADER_BYTES + sent, room, left) != left))
		reset(conn);
}

static uint32_t credit(const struct sm_vsock_conn *conn)
{
	uint32_t in_flight = conn->tx_cnt - conn->peer_fwd;
	return in_flight < conn->peer_alloc ? conn->peer_alloc - in_flight : 0;
}

/* The host sends no more. */
static void end_reading(struct sm_vsock_conn *conn, bool error)
{
	conn->host_eof = true;
	conn->reading = false;
	if (error)
		host_gone(conn);
}

void sm_vsock_conn_pump(struct sm_vsock_conn *conn)
{
	for (unsigned i = 0; i < PUMP_PACKETS; i++) {
		if (conn->dead || conn->detached || conn->state != SM_VSOCK_OPEN || conn->fd < 0 || conn->host_eof ||
		    (conn->guest_shut & SM_VSOCK_SHUT_RECEIVE)) {
			conn->reading = false;
			return;
		}
		if (conn->want & 1u << SM_VSOCK_RESPONSE) { /* which goes first */
			conn->reading = false;
			sm_vsock_conn_await(conn);
			return;
		}
		uint64_t len = credit(conn);
		if (len == 0) {
			conn->reading = false;
			if (!conn->starved)
				sm_vsock_conn_want(conn, SM_VSOCK_CREDIT_REQUEST);
			conn->starved = true;
			return;
		}
		const struct sm_chain *chain = sm_vsock_rx_open(conn->vsock);
		if (!chain) {
			conn->reading = false;
			sm_vsock_conn_await(conn);
			return;
		}
		if (len > chain->write_bytes - SM_VSOCK_HEADER_BYTES)
			len = chain->write_bytes - SM_VSOCK_HEADER_BYTES;
		if (len > PACKET_BYTES)
			len = PACKET_BYTES;
		struct iovec iov[SM_QUEUE_NUM_MAX];
		unsigned count = sm_chain_slice(chain, true, SM_VSOCK_HEADER_BYTES, len, iov);
		ssize_t got;
		while ((got = readv(conn->fd, iov, (int)count)) < 0 && errno == EINTR)
			;
		if (got > 0) {
			conn->tx_cnt += (uint32_t)got;
			send_packet(conn, SM_VSOCK_RW, 0, (uint32_t)got);
			continue;
		}
		sm_vsock_rx_undo(conn->vsock);
		if (got < 0 && errno == EAGAIN && !conn->hung_up)
			conn->reading = true;
		else
			end_reading(conn, got < 0);
		return;
	}
	if (!conn->reading)
		sm_vsock_conn_await(conn); /* there may be more, and nobody watches for it */
}

/* The guest has ended the connection.  What it sent before is handed over in any case. */
static void guest_reset(struct sm_vsock_conn *conn)
{
	if (!conn->out.len || conn->fd < 0) {
		sm_vsock_conn_drop(conn);
		return;
	}
	sm_vsock_mux_forget(conn);
	conn->detached = true;
	conn->reading = false;
	shutdown(conn->fd, SHUT_RD);
}

void sm_vsock_conn_packet(struct sm_vsock_conn *conn, const struct sm_vsock_packet *packet,
                          const struct sm_chain *chain)
{
	if (conn->want & 1u << SM_VSOCK_RST) { /* over, but for telling the guest */
		if (packet->op == SM_VSOCK_RST)
			sm_vsock_conn_drop(conn);
		return;
	}
	conn->peer_alloc = packet->buf_alloc;
	conn->peer_fwd = packet->fwd_cnt;
	switch (packet->op) {
	case SM_VSOCK_RESPONSE:
		if (conn->state != SM_VSOCK_CONNECTING) {
			reset(conn);
			break;
		}
		conn->state = SM_VSOCK_OPEN;
		sm_vsock_conn_await(conn);
		break;
	case SM_VSOCK_RST:
		guest_reset(conn);
		break;
	case SM_VSOCK_SHUTDOWN:
		conn->guest_shut |= packet->flags & SM_VSOCK_SHUT_BOTH;
		if ((conn->guest_shut & SM_VSOCK_SHUT_RECEIVE) && conn->fd >= 0)
			shutdown(conn->fd, SHUT_RD); /* the host's writes fail from now on */
		break;
	case SM_VSOCK_RW:
		receive(conn, packet, chain);
		break;
	case SM_VSOCK_CREDIT_UPDATE:
		break;
	case SM_VSOCK_CREDIT_REQUEST:
		sm_vsock_conn_want(conn, SM_VSOCK_CREDIT_UPDATE);
		break;
	default: /* REQUEST, or an operation that does not exist */
		conn->vsock->base.stats.errors++;
		reset(conn);
		break;
	}
	if (conn->dead)
		return;
	if (conn->starved && credit(conn)) {
		conn->starved = false;
		if (!conn->detached)
			sm_vsock_conn_await(conn);
	}
	sm_vsock_conn_settle(conn);
}

static void watch(struct sm_vsock_conn *conn)
{
	uint32_t events = (conn->reading ? EPOLLIN : 0u) | (conn->out.len ? EPOLLOUT : 0u);
	if (conn->source && events != conn->events && sm_loop_modify(conn->source, events) == 0)
		conn->events = events;
}

void sm_vsock_conn_settle(struct sm_vsock_conn *conn)
{
	if (conn->dead || (conn->want & 1u << SM_VSOCK_RST))
		return;
	bool flushed = !conn->out.len;
	if (conn->detached) {
		if (flushed)
			sm_vsock_conn_drop(conn);
		else
			watch(conn);
		return;
	}
	if (flushed && (conn->guest_shut & SM_VSOCK_SHUT_SEND) && !conn->write_shut && conn->fd >= 0) {
		conn->write_shut = true;
		shutdown(conn->fd, SHUT_WR);
	}
	if (conn->guest_shut == SM_VSOCK_SHUT_BOTH && flushed) {
		reset(conn); /* which confirms it, 5.10.6.5 */
		return;
	}
	if (conn->state == SM_VSOCK_OPEN) {
		unsigned shut =
		    (conn->host_eof ? SM_VSOCK_SHUT_SEND : 0) | (conn->host_gone ? SM_VSOCK_SHUT_RECEIVE : 0);
		if (shut & ~conn->told_shut) {
			conn->told_shut |= shut;
			sm_vsock_conn_want(conn, SM_VSOCK_SHUTDOWN);
		}
		if (shut == SM_VSOCK_SHUT_BOTH)
			close_host(conn); /* and the guest's RST ends it */
	}
	watch(conn);
}

/* Hang-up is reported for as long as it is watched.  All that the host sent is there to be read without waiting. */
static void hang_up(struct sm_vsock_conn *conn)
{
	sm_loop_remove(conn->source);
	conn->source = NULL;
	conn->hung_up = true;
	conn->reading = false;
	host_gone(conn);
	int unread = 0;
	if (conn->state == SM_VSOCK_OPEN || (ioctl(conn->fd, FIONREAD, &unread) == 0 && unread > 0))
		return;
	/* The host gave up before there was a connection, and had nothing to say. */
	if (conn->state == SM_VSOCK_NEW)
		sm_vsock_conn_drop(conn);
	else
		reset(conn);
}

static void host_ready(void *arg, uint32_t events)
{
	struct sm_vsock_conn *conn = arg;
	struct sm_vsock *vsock = conn->vsock;
	struct sm_virtio *device = &vsock->base;
	pthread_mutex_lock(&device->lock);
	if (!device->closing && !conn->dead && conn->fd >= 0) {
		if (events & (EPOLLHUP | EPOLLERR))
			hang_up(conn);
		else if (events & EPOLLOUT)
			drain(conn);
		/* Packets without data go first; where they find no buffer, data does not either. */
		if (!conn->dead && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
			sm_vsock_mux_control(vsock);
			sm_vsock_conn_pump(conn);
		}
		sm_vsock_conn_settle(conn);
		if (sm_vsock_mux_service(vsock))
			sm_virtio_wake(device);
	}
	pthread_mutex_unlock(&device->lock);
}
