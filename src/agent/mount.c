#include "agent/mount.h"

#include "base/codec.h"

int sm_agent_mount(struct sm_control *control, const struct sm_agent_mount *mount, const struct sm_agent_wait *wait,
                   struct sm_error *err)
{
	SM_CHANNEL_CLEANUP struct sm_channel *channel = NULL;
	SM_BUF_CLEANUP struct sm_buf body;
	sm_buf_init(&body, SM_AGENT_REQUEST_MAX);
	sm_put_str(&body, mount->type);
	sm_put_str(&body, mount->source);
	sm_put_str(&body, mount->target);
	sm_put_str(&body, mount->name ? mount->name : "");
	sm_put_u32(&body, mount->readonly ? SM_AGENT_MOUNT_READONLY : 0);
	sm_put_str(&body, mount->options ? mount->options : "");
	int fd;
	int code = sm_control_connect(control, SM_AGENT_PORT, &fd, err);
	if (code == 0)
		code = sm_channel_new(fd, wait, &channel, err);
	if (code == 0)
		code = sm_channel_request(channel, SM_AGENT_MOUNT, &body, err);
	if (code == 0)
		code = sm_channel_expect(channel, SM_AGENT_OK, err);
	return code < 0 ? sm_error_context(err, "mount %s", mount->target) : 0;
}
