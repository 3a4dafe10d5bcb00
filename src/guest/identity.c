/* What a machine has to itself after a restore, and the small requests. */
#include "identity.h"
#include "agent/protocol.h"
#include "kernel.h"
#include "requests.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void finish_ok(struct sm_conn *conn)
{
	sm_conn_send(conn, SM_AGENT_OK, NULL, 0);
	sm_conn_finish(conn);
}

/* Credits the bytes and has the kernel make its generator's key anew at once (random(4)).  0, or -1 with errno. */
static int add_entropy(const uint8_t *bytes, size_t len)
{
	struct {
		int bits, size;
		uint8_t data[SM_AGENT_ENTROPY_MAX];
	} pool = { .bits = (int)len * 8, .size = (int)len };
	memcpy(pool.data, bytes, len);
	int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -1;
	int code = ioctl(fd, SM_RNDADDENTROPY, &pool) < 0 || ioctl(fd, SM_RNDRESEEDCRNG) < 0 ? -1 : 0;
	int cause = errno;
	close(fd);
	errno = cause;
	return code;
}

struct secret {
	const char *path;
	const uint8_t *value;
	size_t len;
};

/* The body, decoded.  Everything points into it. */
struct request {
	uint64_t clock_ns;
	const char *hostname;
	const uint8_t *entropy, *id;
	size_t name_len, entropy_len, id_len;
	uint32_t nsecrets;
	struct secret secrets[SM_AGENT_SECRETS_MAX];
	struct sm_wire hook;
};

static bool decode(struct request *request, struct sm_wire *body)
{
	request->clock_ns = sm_wire_u64(body);
	request->hostname = sm_wire_string(body);
	request->name_len = strlen(request->hostname);
	request->entropy = sm_wire_bytes(body, &request->entropy_len);
	request->id = sm_wire_bytes(body, &request->id_len);
	request->nsecrets = sm_wire_u32(body);
	if (request->nsecrets > SM_AGENT_SECRETS_MAX)
		return false;
	for (uint32_t i = 0; i < request->nsecrets; i++) {
		struct secret *secret = &request->secrets[i];
		secret->path = sm_wire_string(body);
		secret->value = sm_wire_bytes(body, &secret->len);
	}
	uint8_t *start = body->at;
	size_t hook_len;
	if (sm_wire_bytes(body, &hook_len))
		request->hook = (struct sm_wire){ .at = start + 4, .left = hook_len };
	return sm_wire_ended(body) && request->entropy_len <= SM_AGENT_ENTROPY_MAX &&
	       request->name_len <= SM_AGENT_HOSTNAME_MAX &&
	       (request->id_len == 0 || request->id_len == SM_AGENT_ID_BYTES);
}

/* Random numbers first: what follows may draw some. */
static int renew(const struct request *request, struct sm_failure *failure)
{
	struct timespec now = { .tv_sec = (time_t)(request->clock_ns / 1000000000),
		                .tv_nsec = (long)(request->clock_ns % 1000000000) };
	if (request->entropy_len && add_entropy(request->entropy, request->entropy_len) < 0)
		return sm_fail_errno(failure, "entropy");
	if (request->clock_ns && clock_settime(CLOCK_REALTIME, &now) < 0)
		return sm_fail_errno(failure, "clock");
	if (request->name_len && sethostname(request->hostname, request->name_len) < 0)
		return sm_fail_errno(failure, "host name");
	if (request->id_len && sm_identity_write(request->id, failure) < 0)
		return -1;
	for (uint32_t i = 0; i < request->nsecrets; i++) {
		const struct secret *secret = &request->secrets[i];
		if (sm_identity_write_secret(secret->path, secret->value, secret->len, failure) < 0)
			return -1;
	}
	return 0;
}

void sm_identity_open(struct sm_conn *conn, struct sm_wire *body)
{
	struct request request = { 0 };
	struct sm_failure failure = { .code = 0 };
	char value[sizeof "SUPERMACHINE_ID=" + SM_IDENTITY_TEXT] = "SUPERMACHINE_ID=";
	if (!decode(&request, body)) {
		sm_conn_fail(conn, EBADMSG, "malformed IDENTITY request");
		return;
	}
	if (!conn->agent->machine) {
		sm_conn_fail(conn, EPERM, "identity: this agent is not a machine's init");
		return;
	}
	if (renew(&request, &failure) < 0) {
		sm_conn_fail(conn, failure.code, "%s", failure.message);
	} else if (request.hook.left) {
		if (request.id_len)
			sm_identity_text(request.id, value + strlen(value));
		sm_exec_open_with(conn, &request.hook, request.id_len ? value : NULL);
	} else {
		finish_ok(conn);
	}
}

static bool empty(struct sm_conn *conn, const struct sm_wire *body)
{
	if (sm_wire_ended(body))
		return true;
	sm_conn_fail(conn, EBADMSG, "malformed request");
	return false;
}

void sm_identity_open_ping(struct sm_conn *conn, struct sm_wire *body)
{
	if (empty(conn, body))
		finish_ok(conn);
}

void sm_identity_open_sync(struct sm_conn *conn, struct sm_wire *body)
{
	if (!empty(conn, body))
		return;
	sync();
	finish_ok(conn);
}

/* Pages, dentries and inodes; what is dirty cannot be let go of, so sync first.  Source: the kernel's
 * Documentation/admin-guide/sysctl/vm.rst. */
void sm_identity_open_drop_caches(struct sm_conn *conn, struct sm_wire *body)
{
	static const char path[] = "/proc/sys/vm/drop_caches";
	if (!empty(conn, body))
		return;
	if (!conn->agent->machine) {
		sm_conn_fail(conn, EPERM, "drop caches: this agent is not a machine's init");
		return;
	}
	sync();
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int code = fd < 0 || write(fd, "3", 1) < 0 ? errno : 0;
	if (fd >= 0)
		close(fd);
	if (code)
		sm_conn_fail(conn, code, "drop caches: %s: %s", path, strerror(code));
	else
		finish_ok(conn);
}

static void frame(struct sm_conn *conn, unsigned type, uint8_t *payload, size_t len)
{
	(void)payload;
	(void)len;
	sm_conn_unexpected(conn, type);
}

static void over(struct sm_conn *conn)
{
	conn->agent->stop = true;
}

void sm_identity_open_shutdown(struct sm_conn *conn, struct sm_wire *body)
{
	static const struct sm_conn_ops ops = { .frame = frame, .over = over };
	if (!empty(conn, body))
		return;
	/* Powering off before the host has read the answer would lose it: its close is the go-ahead. */
	conn->ops = &ops;
	sm_conn_send(conn, SM_AGENT_OK, NULL, 0);
}
