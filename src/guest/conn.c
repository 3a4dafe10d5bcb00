#include "conn.h"

#include "agent/protocol.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define OUT_MAX     (192u << 10)
#define OUT_RESERVE 4096u /* for small frames, whatever the output */
#define ROOM_MIN    4096u /* less is not worth a frame */

static void socket_ready(struct sm_source *source, uint32_t events);

int sm_conn_new(struct sm_agent *agent, int fd)
{
	struct sm_conn *conn = calloc(1, sizeof *conn);
	if (!conn) {
		close(fd);
		return -ENOMEM;
	}
	conn->agent = agent;
	sm_source_init(&conn->socket, &agent->epoll, fd, socket_ready, conn);
	conn->in = malloc(SM_AGENT_FRAME_MAX);
	conn->out = malloc(OUT_MAX);
	int code = conn->in && conn->out ? sm_source_want(&conn->socket, EPOLLIN) : -ENOMEM;
	conn->next = agent->conns;
	agent->conns = conn;
	agent->nconns++;
	if (code < 0)
		conn->stage = SM_CONN_DEAD;
	return code;
}

/* The host has gone, or is done. */
static void end(struct sm_conn *conn)
{
	const struct sm_conn_ops *ops = conn->ops;
	conn->ops = NULL;
	conn->stage = SM_CONN_DEAD;
	sm_source_close(&conn->socket);
	if (ops)
		ops->over(conn);
}

void sm_conn_sweep(struct sm_agent *agent)
{
	for (struct sm_conn **at = &agent->conns; *at;) {
		struct sm_conn *conn = *at;
		if (conn->stage != SM_CONN_DEAD) {
			at = &conn->next;
			continue;
		}
		*at = conn->next;
		agent->nconns--;
		agent->some_ended = true;
		sm_source_close(&conn->socket);
		free(conn->in);
		free(conn->out);
		free(conn->body);
		free(conn);
	}
}

static void watch(struct sm_conn *conn)
{
	/* A socket that could be watched once can be watched for something else: MOD takes no memory. */
	sm_source_want(&conn->socket, conn->out_len ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void flush(struct sm_conn *conn)
{
	while (conn->out_len && !conn->broken) {
		ssize_t sent =
		    send(conn->socket.fd, conn->out + conn->out_start, conn->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (sent < 0) {
			/* Not ended here, in the middle of somebody's work: the read that follows sees an end of file.
			 */
			conn->broken = true;
			conn->out_len = 0;
			shutdown(conn->socket.fd, SHUT_RDWR);
			break;
		}
		conn->out_start += (size_t)sent;
		conn->out_len -= (size_t)sent;
	}
	if (!conn->out_len) {
		conn->out_start = 0;
		if (conn->stage == SM_CONN_FINISHING && !conn->broken)
			shutdown(conn->socket.fd, SHUT_WR);
	}
	watch(conn);
}

/* Room for a header and `len` bytes at the end of the output, or NULL. */
static uint8_t *out_place(struct sm_conn *conn, size_t len)
{
	if (len > OUT_MAX - conn->out_len)
		return NULL;
	if (len > OUT_MAX - conn->out_len - conn->out_start) {
		memmove(conn->out, conn->out + conn->out_start, conn->out_len);
		conn->out_start = 0;
	}
	return conn->out + conn->out_start + conn->out_len;
}

static void put_header(uint8_t *at, unsigned type, size_t len)
{
	at = sm_wire_put_u32(at, (uint32_t)len);
	at = sm_wire_put_u16(at, (uint16_t)type);
	sm_wire_put_u16(at, 0);
}

void sm_conn_send(struct sm_conn *conn, unsigned type, const void *payload, size_t len)
{
	if (conn->broken || conn->stage == SM_CONN_DEAD)
		return;
	uint8_t *at = out_place(conn, SM_AGENT_HEADER + len);
	if (!at) {
		conn->broken = true;
		conn->out_len = 0;
		shutdown(conn->socket.fd, SHUT_RDWR);
		return;
	}
	put_header(at, type, len);
	if (len)
		memcpy(at + SM_AGENT_HEADER, payload, len);
	conn->out_len += SM_AGENT_HEADER + len;
	flush(conn);
}

uint8_t *sm_conn_room(struct sm_conn *conn, size_t *ret_max)
{
	size_t used = conn->out_len + SM_AGENT_HEADER + OUT_RESERVE;
	if (used > OUT_MAX - ROOM_MIN)
		return NULL;
	size_t room = OUT_MAX - used;
	if (room > SM_AGENT_PAYLOAD_MAX)
		room = SM_AGENT_PAYLOAD_MAX;
	uint8_t *at = out_place(conn, SM_AGENT_HEADER + room);
	*ret_max = room;
	return at + SM_AGENT_HEADER;
}

void sm_conn_commit(struct sm_conn *conn, unsigned type, size_t len)
{
	if (conn->broken)
		return;
	put_header(conn->out + conn->out_start + conn->out_len, type, len);
	conn->out_len += SM_AGENT_HEADER + len;
	flush(conn);
}

void sm_conn_finish(struct sm_conn *conn)
{
	const struct sm_conn_ops *ops = conn->ops;
	conn->ops = NULL;
	conn->stage = SM_CONN_FINISHING;
	if (ops)
		ops->over(conn);
	flush(conn);
}

void sm_conn_fail(struct sm_conn *conn, int code, const char *format, ...)
{
	uint8_t payload[8 + SM_AGENT_MESSAGE_MAX];
	char message[SM_AGENT_MESSAGE_MAX];
	va_list args;
	va_start(args, format);
	int len = vsnprintf(message, sizeof message, format, args);
	va_end(args);
	if (len < 0)
		len = 0;
	if ((size_t)len >= sizeof message)
		len = (int)sizeof message - 1;
	uint8_t *at = sm_wire_put_u32(payload, (uint32_t)(code < 0 ? -code : code));
	at = sm_wire_put_u32(at, (uint32_t)len);
	memcpy(at, message, (size_t)len);
	sm_conn_send(conn, SM_AGENT_ERROR, payload, 8 + (size_t)len);
	sm_conn_finish(conn);
}

void sm_conn_unexpected(struct sm_conn *conn, unsigned type)
{
	sm_conn_fail(conn, EPROTO, "frame of type %u is not expected here", type);
}

int sm_conn_detach(struct sm_conn *conn)
{
	sm_source_want(&conn->socket, 0);
	int fd = conn->socket.fd;
	conn->socket.fd = -1;
	conn->ops = NULL;
	conn->stage = SM_CONN_DEAD;
	return fd;
}

static void dispatch(struct sm_conn *conn)
{
	const struct sm_conn_kind *row = sm_conn_kinds;
	while (row->open && row->kind != conn->kind)
		row++;
	conn->stage = SM_CONN_SERVING;
	struct sm_wire body = { .at = conn->body, .left = conn->body_len };
	row->open(conn, &body);
	free(conn->body);
	conn->body = NULL;
	if (conn->stage == SM_CONN_SERVING && !conn->ops)
		sm_conn_fail(conn, EPROTO, "request of kind %u came to nothing", conn->kind);
}

static void open_frame(struct sm_conn *conn, unsigned type, uint8_t *payload, size_t len)
{
	if (type != SM_AGENT_OPEN) {
		sm_conn_unexpected(conn, type);
		return;
	}
	struct sm_wire wire = { .at = payload, .left = len };
	unsigned version = sm_wire_u16(&wire);
	unsigned kind = sm_wire_u16(&wire);
	uint32_t body = sm_wire_u32(&wire);
	/* The version first: another one may have another OPEN. */
	if (!wire.failed && (version < SM_AGENT_VERSION_MIN || version > SM_AGENT_VERSION)) {
		sm_conn_fail(conn, EPROTO, "protocol version %u, this agent speaks %u to %u", version,
		             SM_AGENT_VERSION_MIN, SM_AGENT_VERSION);
		return;
	}
	if (!sm_wire_ended(&wire)) {
		sm_conn_fail(conn, EBADMSG, "malformed OPEN frame");
		return;
	}
	const struct sm_conn_kind *row = sm_conn_kinds;
	while (row->open && row->kind != kind)
		row++;
	if (!row->open) {
		sm_conn_fail(conn, EOPNOTSUPP, "request of unknown kind %u", kind);
		return;
	}
	if (body > SM_AGENT_REQUEST_MAX) {
		sm_conn_fail(conn, E2BIG, "request of %u bytes, at most %u are allowed", body, SM_AGENT_REQUEST_MAX);
		return;
	}
	conn->kind = kind;
	conn->body_max = body;
	conn->body = malloc(body ? body : 1);
	if (!conn->body) {
		sm_conn_fail(conn, ENOMEM, "request of %u bytes: %s", body, strerror(ENOMEM));
		return;
	}
	conn->stage = SM_CONN_BODY;
	if (!body)
		dispatch(conn);
}

static void body_frame(struct sm_conn *conn, unsigned type, const uint8_t *payload, size_t len)
{
	if (type != SM_AGENT_BODY) {
		sm_conn_unexpected(conn, type);
		return;
	}
	if (len > conn->body_max - conn->body_len) {
		sm_conn_fail(conn, EBADMSG, "request is longer than it said");
		return;
	}
	memcpy(conn->body + conn->body_len, payload, len);
	conn->body_len += len;
	if (conn->body_len == conn->body_max)
		dispatch(conn);
}

static void frame(struct sm_conn *conn, unsigned type, uint8_t *payload, size_t len)
{
	switch (conn->stage) {
	case SM_CONN_OPENING:
		open_frame(conn, type, payload, len);
		break;
	case SM_CONN_BODY:
		body_frame(conn, type, payload, len);
		break;
	case SM_CONN_SERVING:
		conn->ops->frame(conn, type, payload, len);
		break;
	case SM_CONN_FINISHING:
	case SM_CONN_DEAD:
		break;
	}
}

static void parse(struct sm_conn *conn)
{
	size_t start = 0;
	while (conn->stage < SM_CONN_FINISHING && conn->in_len - start >= SM_AGENT_HEADER) {
		struct sm_wire header = { .at = conn->in + start, .left = SM_AGENT_HEADER };
		uint32_t len = sm_wire_u32(&header);
		unsigned type = sm_wire_u16(&header);
		unsigned zero = sm_wire_u16(&header);
		if (len > SM_AGENT_PAYLOAD_MAX || zero) {
			sm_conn_fail(conn, EBADMSG, "malformed frame: type %u, %u bytes", type, len);
			break;
		}
		if (conn->in_len - start - SM_AGENT_HEADER < len)
			break;
		frame(conn, type, conn->in + start + SM_AGENT_HEADER, len);
		start += SM_AGENT_HEADER + len;
	}
	if (conn->stage >= SM_CONN_FINISHING)
		start = conn->in_len;
	conn->in_len -= start;
	memmove(conn->in, conn->in + start, conn->in_len);
}

static void socket_ready(struct sm_source *source, uint32_t events)
{
	struct sm_conn *conn = source->owner;
	if (events & EPOLLOUT) {
		flush(conn);
		size_t room;
		if (conn->ops && conn->ops->room && !conn->broken && sm_conn_room(conn, &room))
			conn->ops->room(conn);
	}
	if (conn->stage == SM_CONN_DEAD || !(events & ~(uint32_t)EPOLLOUT))
		return;
	ssize_t got = recv(source->fd, conn->in + conn->in_len, SM_AGENT_FRAME_MAX - conn->in_len, MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return;
	if (got <= 0) {
		end(conn);
		return;
	}
	conn->in_len += (size_t)got;
	parse(conn);
}
