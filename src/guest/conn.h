/* One connection from the host: frames in, frames out, and the request it carries. */
#ifndef SM_GUEST_CONN_H
#define SM_GUEST_CONN_H

#include "agent.h"
#include "wire.h"

#include <stddef.h>

/* What a request does while it is served.  */
struct sm_conn_ops {
	void (*frame)(struct sm_conn *conn, unsigned type, uint8_t *payload, size_t len);
	void (*room)(struct sm_conn *conn); /* there is room for output again; may be NULL */
	/* The request has ended, by sm_conn_finish or sm_conn_fail, or because the host has gone: release
	 * conn->request. Called once. */
	void (*over)(struct sm_conn *conn);
};

enum sm_conn_stage {
	SM_CONN_OPENING,
	SM_CONN_BODY,
	SM_CONN_SERVING,
	SM_CONN_FINISHING, /* what is left goes out, then the host closes */
	SM_CONN_DEAD,
};

struct sm_conn {
	struct sm_agent *agent;
	struct sm_source socket;
	enum sm_conn_stage stage;
	const struct sm_conn_ops *ops;
	void *request;
	uint8_t *in; /* SM_AGENT_FRAME_MAX bytes */
	size_t in_len;
	uint8_t *out;
	size_t out_start, out_len;
	bool broken; /* the socket takes no more output */
	unsigned kind;
	uint8_t *body;
	size_t body_len, body_max;
	struct sm_conn *next;
};

/* A kind of request.  `open` has the body; it serves at once (sm_conn_finish, sm_conn_fail), or sets ops and request.
 * The body is freed when it returns. */
struct sm_conn_kind {
	unsigned kind;
	void (*open)(struct sm_conn *conn, struct sm_wire *body);
};
/* In serve.c; the last row is zero. */
extern const struct sm_conn_kind sm_conn_kinds[];

/* Takes fd.  0 or -errno (fd is closed). */
int sm_conn_new(struct sm_agent *agent, int fd);

/* A small frame (up to 1 KiB): there is always room for the few that a request sends. */
void sm_conn_send(struct sm_conn *conn, unsigned type, const void *payload, size_t len);
/* Where up to *ret_max bytes of payload may be put, to be sent by sm_conn_commit; NULL: no room now, wait for
 * ops->room. */
uint8_t *sm_conn_room(struct sm_conn *conn, size_t *ret_max);
void sm_conn_commit(struct sm_conn *conn, unsigned type, size_t len);

/* The end of the request: the last frame has been sent. */
void sm_conn_finish(struct sm_conn *conn);
/* The same, with ERROR as the last frame; code is either sign. */
void sm_conn_fail(struct sm_conn *conn, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* ERROR for a frame that has no business here. */
void sm_conn_unexpected(struct sm_conn *conn, unsigned type);
/* The connection ends here and its socket goes on elsewhere; the request is not told.  Returns the descriptor. */
int sm_conn_detach(struct sm_conn *conn);

/* Free the connections that ended in this round. */
void sm_conn_sweep(struct sm_agent *agent);

#endif
