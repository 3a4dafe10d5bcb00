#include "agent/identity.h"

#include "agent/process.h"
#include "base/codec.h"
#include "base/fd.h"

#include <errno.h>
#include <string.h>
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

static void put_identity(struct sm_buf *body, const struct sm_agent_identity *identity)
{
	size_t len = 256 + identity->entropy_len + identity->hook.len;
	for (size_t i = 0; i < identity->nsecrets; i++)
		len += 8 + strlen(identity->secrets[i].path) + identity->secrets[i].len;
	sm_buf_reserve(body, len < SM_AGENT_REQUEST_MAX ? len : SM_AGENT_REQUEST_MAX);
	sm_put_u64(body, identity->clock_ns);
	sm_put_str(body, identity->hostname ? identity->hostname : "");
	sm_put_bytes(body, identity->entropy, identity->entropy_len);
	sm_put_bytes(body, identity->id, identity->id ? SM_AGENT_ID_BYTES : 0);
	sm_put_u32(body, (uint32_t)identity->nsecrets);
	for (size_t i = 0; i < identity->nsecrets; i++) {
		sm_put_str(body, identity->secrets[i].path);
		sm_put_bytes(body, identity->secrets[i].value, identity->secrets[i].len);
	}
	sm_put_bytes(body, identity->hook.body, identity->hook.len);
}

/* The last of what a hook said, on one line. */
struct words {
	size_t len;
	char text[400];
};

static void keep_last(struct words *words, const uint8_t *bytes, size_t len)
{
	size_t room = sizeof words->text;
	if (len > room) {
		bytes += len - room;
		len = room;
	}
	size_t kept = words->len < room - len ? words->len : room - len;
	memmove(words->text, words->text + words->len - kept, kept);
	for (size_t i = 0; i < len; i++)
		words->text[kept + i] = (char)(bytes[i] < ' ' || bytes[i] == 127 ? ' ' : bytes[i]);
	words->len = kept + len;
}

static int judge(const char *name, const struct sm_agent_exit *end, const struct words *words, struct sm_error *err)
{
	if (end->code == 0 && end->signal == 0)
		return 0;
	return sm_error_set(err, ECHILD, "on_restore %s: ended with %s %d: %.*s", name, end->signal ? "signal" : "code",
	                    end->signal ? end->signal : end->code, (int)words->len, words->text);
}

/* Until the hook has ended. */
static int run_hook(struct sm_agent_process *process, const char *name, const struct sm_agent_wait *wait,
                    struct sm_error *err)
{
	int64_t deadline_ms = sm_agent_deadline(wait);
	struct words words = { 0 };
	for (;;) {
		struct sm_agent_step step;
		int ms = -1;
		int code = sm_agent_process_step(process, &step, err);
		if (code < 0)
			return sm_error_context(err, "on_restore %s", name);
		keep_last(&words, step.err, step.err_len);
		if (step.exited)
			return judge(name, &step.exit, &words, err);
		code = sm_agent_poll_ms(deadline_ms, wait->cancel, "its end", &ms, err);
		if (code == 0) {
			code = sm_fd_wait(sm_agent_process_fd(process), sm_agent_process_events(process), ms);
			if (code < 0)
				sm_error_sys(err, code, "wait");
		}
		if (code < 0)
			return sm_error_context(err, "on_restore %s", name);
	}
}

int sm_agent_identity_send(int fd_taken, const struct sm_agent_identity *identity, const struct sm_agent_wait *wait,
                           struct sm_error *err)
{
	SM_BUF_WIPED struct sm_buf body;
	sm_buf_init(&body, SM_AGENT_REQUEST_MAX);
	put_identity(&body, identity);
	if (!identity->hook.name)
		return ask(fd_taken, SM_AGENT_IDENTITY, &body, wait, err);
	struct sm_agent_process *process;
	int code = sm_agent_process_over(fd_taken, SM_AGENT_IDENTITY, &body, &process, err);
	if (code == 0)
		code = run_hook(process, identity->hook.name, wait, err);
	sm_agent_process_free(process);
	return code;
}

int sm_agent_identity_renew(struct sm_control *control, const struct sm_agent_identity *identity, int timeout_ms,
                            struct sm_error *err)
{
	uint8_t entropy[FRESH_BYTES];
	struct sm_agent_identity whole = *identity;
	if (getrandom(entropy, sizeof entropy, 0) != (ssize_t)sizeof entropy)
		return sm_error_sys(err, errno, "random bytes");
	int fd;
	int code = sm_control_connect(control, SM_AGENT_PORT, &fd, err);
	if (code < 0)
		return code;
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	whole.clock_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	whole.entropy = entropy;
	whole.entropy_len = sizeof entropy;
	code = sm_agent_identity_send(fd, &whole, &(struct sm_agent_wait){ .timeout_ms = timeout_ms }, err);
	explicit_bzero(entropy, sizeof entropy);
	return code;
}

int sm_agent_command(int fd_taken, enum sm_agent_kind command, const struct sm_agent_wait *wait, struct sm_error *err)
{
	const struct sm_buf nothing = { 0 };
	return ask(fd_taken, command, &nothing, wait, err);
}
