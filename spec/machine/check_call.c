/* check_call NAME: one check of what a machine's process may answer to a request. */
#include "../base/check.h"
#include "machine/control_call.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static int null_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	return fd;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void answered(struct sm_call *call)
{
	sm_reader_init(&call->in, call->reply.body.data, call->reply.body.len);
}

static void check_short(void)
{
	struct sm_error err;
	struct sm_call call SM_CALL_CLEANUP;
	sm_call_init(&call);
	sm_put_u32(&call.reply.body, 7);
	answered(&call);
	CHECK(sm_get_u32(&call.in) == 7 && sm_call_end(&call, &err) == 0);
	CHECK(sm_get_u64(&call.in) == 0 && sm_call_end(&call, &err) == -EBADMSG);
	CHECK(strstr(err.message, "malformed"));
}

/* What was taken stays, the rest goes. */
static void check_descriptors(void)
{
	struct sm_error err;
	int taken = null_fd(), left = null_fd();
	struct sm_call call;
	sm_call_init(&call);
	sm_message_put_fd(&call.reply, left);
	sm_message_put_fd(&call.reply, taken);
	answered(&call);
	sm_get_u32(&call.in);
	CHECK(sm_call_take_fd(&call) == taken && sm_call_end(&call, &err) == 0);
	sm_call_done(&call);
	CHECK(is_open(taken) && !is_open(left));
	close(taken);
}

static void check_no_descriptor(void)
{
	static const uint32_t numbers[] = { 0, 1000, UINT32_MAX };
	struct sm_error err;
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		struct sm_call call SM_CALL_CLEANUP;
		sm_call_init(&call);
		sm_put_u32(&call.reply.body, numbers[i]);
		answered(&call);
		CHECK(sm_call_take_fd(&call) == -1 && sm_call_end(&call, &err) == -EBADMSG);
	}
}

int main(int argc, char **argv)
{
	static const struct check checks[] = {
		{ "short", check_short },
		{ "descriptors", check_descriptors },
		{ "no-descriptor", check_no_descriptor },
		{ NULL, NULL },
	};
	return check_main(checks, argc, argv);
}
