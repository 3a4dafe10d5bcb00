#include "agent/connect.h"

#include "base/codec.h"

int sm_agent_connect(int fd_taken, const char *address, uint16_t port, const struct sm_agent_wait *wait, int *ret_fd,
                     struct sm_error *err)
{
	SM_CHANNEL_CLEANUP struct sm_channel *channel = NULL;
	SM_BUF_CLEANUP struct sm_buf body;
	sm_buf_init(&body, SM_AGENT_REQUEST_MAX);
	sm_put_str(&body, address ? address : "");
	sm_put_u16(&body, port);
	int code = sm_channel_new(fd_taken, wait, &channel, err);
	if (code == 0)
		code = sm_channel_request(channel, SM_AGENT_CONNECT, &body, err);
	if (code == 0)
		code = sm_channel_expect(channel, SM_AGENT_OK, err);
	*ret_fd = code == 0 ? sm_channel_take_fd(channel) : -1;
	return code;
}
