#include "agent/channel.h"

#include "base/codec.h"
#include "base/fd.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define CANCEL_LOOK_MS 50 /* the flag cannot wake a poll */
#define ERRNO_MAX      4095

struct sm_channel {
	int fd;
	int64_t deadline_ms;
	const atomic_bool *cancel;
	uint8_t payload[SM_AGENT_PAYLOAD_MAX];
};

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t sm_agent_deadline(const struct sm_agent_wait *wait)
{
	return wait->timeout_ms < 0 ? INT64_MAX : now_ms() + wait->timeout_ms;
}

int sm_agent_poll_ms(int64_t deadline_ms, const atomic_bool *cancel, const char *what, int *ret_ms,
                     struct sm_error *err)
{
	if (cancel && atomic_load(cancel))
		return sm_error_set(err, ECANCELED, "%s: cancelled", what);
	int64_t left = deadline_ms == INT64_MAX ? INT_MAX : deadline_ms - now_ms();
	if (left <= 0)
		return sm_error_set(err, ETIMEDOUT, "%s: no answer in time", what);
	if (cancel && left > CANCEL_LOOK_MS)
		left = CANCEL_LOOK_MS;
	*ret_ms = left >= INT_MAX ? -1 : (int)left;
	return 0;
}

int sm_channel_new(int fd_taken, const struct sm_agent_wait *wait, struct sm_channel **ret, struct sm_error *err)
{
	SM_FD_CLEANUP int fd = fd_taken;
	*ret = NULL;
	int code = sm_fd_nonblock(fd);
	if (code < 0)
		return sm_error_sys(err, code, "connection to the guest's agent");
	struct sm_channel *channel = malloc(sizeof *channel);
	if (!channel)
		return sm_error_sys(err, ENOMEM, "connection to the guest's agent");
	channel->fd = sm_fd_take(&fd);
	channel->deadline_ms = sm_agent_deadline(wait);
	channel->cancel = wait->cancel;
	*ret = channel;
	return 0;
}

void sm_channel_free(struct sm_channel *channel)
{
	if (channel)
		sm_fd_close(&channel->fd);
	free(channel);
}

void sm_channel_cleanup(struct sm_channel **channel)
{
	sm_channel_free(*channel);
	*channel = NULL;
}

int sm_channel_take_fd(struct sm_channel *channel)
{
	return sm_fd_take(&channel->fd);
}

/* Until the socket is ready for `events`. */
static int wait_for(const struct sm_channel *channel, short events, struct sm_error *err)
{
	for (;;) {
		int ms = -1;
		int code = sm_agent_poll_ms(channel->deadline_ms, channel->cancel, "the guest's agent", &ms, err);
		if (code < 0)
			return code;
		int ready = sm_fd_wait(channel->fd, events, ms);
		if (ready < 0)
			return sm_error_sys(err, ready, "connection to the guest's agent");
		if (ready > 0)
			return 0;
	}
}

static int send_all(struct sm_channel *channel, const uint8_t *data, size_t len, struct sm_error *err)
{
	while (len) {
		ssize_t sent = send(channel->fd, data, len, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno != EAGAIN)
			return sm_error_sys(err, errno, "send to the guest's agent");
		if (sent < 0) {
			int code = wait_for(channel, POLLOUT, err);
			if (code < 0)
				return code;
			continue;
		}
		data += sent;
		len -= (size_t)sent;
	}
	return 0;
}

static int receive_all(struct sm_channel *channel, uint8_t *data, size_t len, struct sm_error *err)
{
	while (len) {
		ssize_t got = recv(channel->fd, data, len, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got == 0 || (got < 0 && errno == ECONNRESET))
			return sm_error_set(err, ECONNRESET, "the guest's agent closed the connection");
		if (got < 0 && errno != EAGAIN)
			return sm_error_sys(err, errno, "receive from the guest's agent");
		if (got < 0) {
			int code = wait_for(channel, POLLIN, err);
			if (code < 0)
				return code;
			continue;
		}
		data += got;
		len -= (size_t)got;
	}
	return 0;
}

void sm_channel_put_frame(struct sm_buf *buf, enum sm_agent_frame type, const void *payload, size_t len)
{
	sm_put_u32(buf, (uint32_t)len);
	sm_put_u16(buf, (uint16_t)type);
	sm_put_u16(buf, 0);
	sm_buf_append(buf, payload, len);
}

int sm_channel_put_request(struct sm_buf *buf, enum sm_agent_kind kind, const struct sm_buf *body, struct sm_error *err)
{
	if (body->failed == -ENOMEM)
		return sm_error_sys(err, ENOMEM, "request to the guest's agent");
	if (sm_buf_failed(body) || body->len > SM_AGENT_REQUEST_MAX)
		return sm_error_set(err, E2BIG, "request to the guest's agent is larger than %u bytes",
		                    SM_AGENT_REQUEST_MAX);
	size_t frames = body->len / SM_AGENT_PAYLOAD_MAX + 2;
	sm_buf_reserve(buf, buf->len + body->len + frames * SM_AGENT_HEADER + 8);
	sm_put_u32(buf, 8);
	sm_put_u16(buf, SM_AGENT_OPEN);
	sm_put_u16(buf, 0);
	sm_put_u16(buf, sm_agent_kind_version(kind));
	sm_put_u16(buf, (uint16_t)kind);
	sm_put_u32(buf, (uint32_t)body->len);
	for (size_t done = 0; done < body->len;) {
		size_t len = body->len - done < SM_AGENT_PAYLOAD_MAX ? body->len - done : SM_AGENT_PAYLOAD_MAX;
		sm_channel_put_frame(buf, SM_AGENT_BODY, body->data + done, len);
		done += len;
	}
	if (sm_buf_failed(buf))
		return sm_error_sys(err, buf->failed, "request to the guest's agent");
	return 0;
}

int sm_channel_guest_error(const void *payload, size_t len, struct sm_error *err)
{
	struct sm_reader reader;
	sm_reader_init(&reader, payload, len);
	uint32_t code = sm_get_u32(&reader);
	char message[SM_AGENT_MESSAGE_MAX + 1];
	sm_get_str(&reader, message, sizeof message);
	if (reader.failed || !sm_reader_at_end(&reader) || code == 0 || code > ERRNO_MAX)
		return sm_error_set(err, EBADMSG, "the guest's agent sent a malformed ERROR frame");
	/* It may end up on a terminal. */
	for (char *at = message; *at; at++)
		if ((unsigned char)*at < ' ' || *at == 127)
			*at = '?';
	return sm_error_set(err, (int)code, "%s", message);
}

int sm_channel_parse_header(const uint8_t header[SM_AGENT_HEADER], unsigned *ret_type, size_t *ret_len,
                            struct sm_error *err)
{
	struct sm_reader reader;
	sm_reader_init(&reader, header, SM_AGENT_HEADER);
	*ret_len = sm_get_u32(&reader);
	*ret_type = sm_get_u16(&reader);
	if (*ret_len > SM_AGENT_PAYLOAD_MAX || sm_get_u16(&reader))
		return sm_error_set(err, EBADMSG, "the guest's agent sent a malformed frame: type %u, %zu bytes",
		                    *ret_type, *ret_len);
	return 0;
}

int sm_channel_request(struct sm_channel *channel, enum sm_agent_kind kind, const struct sm_buf *body,
                       struct sm_error *err)
{
	SM_BUF_WIPED struct sm_buf frames;
	sm_buf_init(&frames, 2 * SM_AGENT_REQUEST_MAX);
	int code = sm_channel_put_request(&frames, kind, body, err);
	return code < 0 ? code : send_all(channel, frames.data, frames.len, err);
}

int sm_channel_send(struct sm_channel *channel, enum sm_agent_frame type, const void *payload, size_t len,
                    struct sm_error *err)
{
	uint8_t header[SM_AGENT_HEADER] = {
		(uint8_t)len,         (uint8_t)(len >> 8),
		(uint8_t)(len >> 16), 0,
		(uint8_t)type,        (uint8_t)((unsigned)type >> 8),
	};
	int code = send_all(channel, header, sizeof header, err);
	return code < 0 ? code : send_all(channel, payload, len, err);
}

int sm_channel_receive(struct sm_channel *channel, unsigned *ret_type, const void **ret_payload, size_t *ret_len,
                       struct sm_error *err)
{
	uint8_t header[SM_AGENT_HEADER];
	int code = receive_all(channel, header, sizeof header, err);
	if (code == 0)
		code = sm_channel_parse_header(header, ret_type, ret_len, err);
	if (code == 0)
		code = receive_all(channel, channel->payload, *ret_len, err);
	if (code == 0 && *ret_type == SM_AGENT_ERROR)
		code = sm_channel_guest_error(channel->payload, *ret_len, err);
	*ret_payload = channel->payload;
	return code;
}

int sm_channel_expect(struct sm_channel *channel, enum sm_agent_frame type, struct sm_error *err)
{
	unsigned got;
	const void *payload;
	size_t len;
	int code = sm_channel_receive(channel, &got, &payload, &len, err);
	if (code < 0)
		return code;
	if (got != (unsigned)type || len)
		return sm_error_set(err, EBADMSG, "the guest's agent sent a frame of type %u and %zu bytes", got, len);
	return 0;
}
