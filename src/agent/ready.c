#include "agent/ready.h"

#include "base/codec.h"
#include "base/fd.h"

#include <errno.h>
#include <poll.h>

/* Until the listener is readable. */
static int wait_for_connection(int listen_fd, int end_fd, int64_t deadline_ms, const atomic_bool *cancel,
                               struct sm_error *err)
{
	for (;;) {
		int ms = -1;
		int code = sm_agent_poll_ms(deadline_ms, cancel, "hello of the guest's agent", &ms, err);
		if (code < 0)
			return code;
		/* poll ignores a negative descriptor. */
		struct pollfd fds[] = { { .fd = listen_fd, .events = POLLIN }, { .fd = end_fd, .events = POLLIN } };
		if (poll(fds, 2, ms) < 0 && errno != EINTR)
			return sm_error_sys(err, errno, "wait for the guest's agent");
		if (fds[0].revents)
			return 0;
		if (fds[1].revents)
			return sm_error_set(err, ENOTCONN, "the guest ended before its agent was ready");
	}
}

static int read_hello(struct sm_channel *channel, struct sm_agent_hello *ret_hello, struct sm_error *err)
{
	unsigned type;
	const void *payload;
	size_t len;
	int code = sm_channel_receive(channel, &type, &payload, &len, err);
	if (code < 0)
		return code;
	struct sm_reader reader;
	sm_reader_init(&reader, payload, len);
	ret_hello->version = sm_get_u16(&reader);
	if (type == SM_AGENT_HELLO && !reader.failed && ret_hello->version != SM_AGENT_VERSION)
		return sm_error_set(err, EPROTO, "the guest's agent speaks protocol version %u, not %u",
		                    ret_hello->version, SM_AGENT_VERSION);
	sm_get_str(&reader, ret_hello->kernel, sizeof ret_hello->kernel);
	if (type != SM_AGENT_HELLO || reader.failed || !sm_reader_at_end(&reader))
		return sm_error_set(err, EBADMSG, "the guest's agent sent a malformed HELLO frame");
	return 0;
}

int sm_agent_ready(int listen_fd, int end_fd, const struct sm_agent_wait *wait, struct sm_agent_hello *ret_hello,
                   struct sm_error *err)
{
	int64_t deadline_ms = sm_agent_deadline(wait);
	int code = wait_for_connection(listen_fd, end_fd, deadline_ms, wait->cancel, err);
	if (code < 0)
		return code;
	uint32_t port;
	int fds[SM_FD_PASS_MAX];
	size_t nfds = 0;
	ssize_t got = sm_fd_recv(listen_fd, &port, sizeof port, fds, &nfds);
	if (got <= 0 || nfds == 0) {
		for (size_t i = 0; i < nfds; i++)
			sm_fd_close(&fds[i]);
		return got < 0 ? sm_error_sys(err, (int)got, "connection of the guest's agent")
		               : sm_error_set(err, ECONNRESET, "the machine stopped listening for the guest's agent");
	}
	for (size_t i = 1; i < nfds; i++)
		sm_fd_close(&fds[i]);
	SM_CHANNEL_CLEANUP struct sm_channel *channel = NULL;
	code = sm_channel_new(fds[0], wait, &channel, err);
	return code < 0 ? code : read_hello(channel, ret_hello, err);
}
