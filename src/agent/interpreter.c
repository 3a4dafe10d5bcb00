#include "agent/interpreter.h"

#include "base/codec.h"

int sm_agent_interpreter(struct sm_control *control, const struct sm_agent_interpreter *interpreter,
                         const struct sm_agent_wait *wait, struct sm_error *err)
{
	SM_CHANNEL_CLEANUP struct sm_channel *channel = NULL;
	SM_BUF_CLEANUP struct sm_buf body;
	sm_buf_init(&body, SM_AGENT_REQUEST_MAX);
	sm_put_str(&body, interpreter->name);
	sm_put_str(&body, interpreter->path);
	sm_put_bytes(&body, interpreter->magic, interpreter->len);
	sm_put_bytes(&body, interpreter->mask, interpreter->len);
	int fd;
	int code = sm_control_connect(control, SM_AGENT_PORT, &fd, err);
	if (code == 0)
		code = sm_channel_new(fd, wait, &channel, err);
	if (code == 0)
		code = sm_channel_request(channel, SM_AGENT_INTERPRETER, &body, err);
	if (code == 0)
		code = sm_channel_expect(channel, SM_AGENT_OK, err);
	return code < 0 ? sm_error_context(err, "interpreter %s", interpreter->name) : 0;
}
