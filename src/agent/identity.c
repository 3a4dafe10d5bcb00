#include "agent/identity.h"

#include "base/codec.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>

#define FRESH_BYTES 64

static int ask(int fd_taken, enum sm_agent_kind kind, const struct sm_buf *body, const struct sm_agent_wait *wait,
               struct sm_error *err)
{
	SM_CHANNEL_CLEANUP struct sm_channel *channel = NULL;
	int code = sm_channel_new(fd_taken, wait, &channel, err);
	if (code == 0)
		code = sm_channel_request(channel, kind, body, err);
	return code == 0 ? sm_channel_expect(channel, SM_AGENT_OK, err) : code;
}

int sm_agent_identity_send(int fd_taken, const struct sm_agent_identity *identity, const struct sm_agent_wait *wait,
                           struct sm_error *err)
{
	SM_BUF_CLEANUP struct sm_buf body;
	sm_buf_init(&body, SM_AGENT_REQUEST_MAX);
	sm_put_u64(&body, identity->clock_ns);
	sm_put_str(&body, identity->hostname ? identity->hostname : "");
	sm_put_bytes(&body, identity->entropy, identity->entropy_len);
	return ask(fd_taken, SM_AGENT_IDENTITY, &body, wait, err);
}

int sm_agent_identity(struct sm_control *control, int timeout_ms, struct sm_error *err)
{
	uint8_t entropy[FRESH_BYTES];
	if (getrandom(entropy, sizeof entropy, 0) != (ssize_t)sizeof entropy)
		return sm_error_sys(err, errno, "random bytes");
	int fd;
	int code = sm_control_connect(control, SM_AGENT_PORT, &fd, err);
	if (code < 0)
		return code;
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	const struct sm_agent_identity identity = {
		.clock_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec,
		.entropy = entropy,
		.entropy_len = sizeof entropy,
	};
	return sm_agent_identity_send(fd, &identity, &(struct sm_agent_wait){ .timeout_ms = timeout_ms }, err);
}

int sm_agent_command(int fd_taken, enum sm_agent_kind command, const struct sm_agent_wait *wait, struct sm_error *err)
{
	const struct sm_buf nothing = { 0 };
	return ask(fd_taken, command, &nothing, wait, err);
}
