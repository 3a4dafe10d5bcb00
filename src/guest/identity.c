/* What a machine has to itself after a restore, and the small requests. */
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

/* Credits the bytes and has the kernel make its generator's key anew at once (random(4)).  0 or errno. */
static int add_entropy(const uint8_t *bytes, size_t len)
{
	struct {
		int bits, size;
		uint8_t data[SM_AGENT_ENTROPY_MAX];
	} pool = { .bits = (int)len * 8, .size = (int)len };
	memcpy(pool.data, bytes, len);
	int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return errno;
	int code = ioctl(fd, SM_RNDADDENTROPY, &pool) < 0 || ioctl(fd, SM_RNDRESEEDCRNG) < 0 ? errno : 0;
	close(fd);
	return code;
}

void sm_identity_open(struct sm_conn *conn, struct sm_wire *body)
{
	uint64_t clock_ns = sm_wire_u64(body);
	const char *hostname = sm_wire_string(body);
	size_t len, name_len = strlen(hostname);
	const uint8_t *entropy = sm_wire_bytes(body, &len);
	if (!sm_wire_ended(body) || len > SM_AGENT_ENTROPY_MAX || name_len > SM_AGENT_HOSTNAME_MAX) {
		sm_conn_fail(conn, EBADMSG, "malformed IDENTITY request");
		return;
	}
	if (!conn->agent->machine) {
		sm_conn_fail(conn, EPERM, "identity: this agent is not a machine's init");
		return;
	}
	struct timespec now = { .tv_sec = (time_t)(clock_ns / 1000000000), .tv_nsec = (long)(clock_ns % 1000000000) };
	int code = len ? add_entropy(entropy, len) : 0;
	const char *step = "entropy";
	if (!code && clock_ns) {
		step = "clock";
		code = clock_settime(CLOCK_REALTIME, &now) < 0 ? errno : 0;
	}
	if (!code && name_len) {
		step = "host name";
		code = sethostname(hostname, name_len) < 0 ? errno : 0;
	}
	if (code)
		sm_conn_fail(conn, code, "identity: %s: %s", step, strerror(code));
	else
		finish_ok(conn);
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
