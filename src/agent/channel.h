/* A blocking exchange with the agent over one connection: whole frames, a deadline, a way out.
 * For the requests that are short; those of processes go through process.h, which never blocks. */
#ifndef SM_AGENT_CHANNEL_H
#define SM_AGENT_CHANNEL_H

#include "agent/protocol.h"
#include "base/buf.h"
#include "base/error.h"

#include <stdatomic.h>
#include <stdint.h>

/* How long a blocking request may take, connection and all. */
struct sm_agent_wait {
	int timeout_ms;            /* < 0: no limit */
	const atomic_bool *cancel; /* ends it early with -ECANCELED; may be NULL */
};

/* When that is over, in ms of CLOCK_MONOTONIC; INT64_MAX: never. */
int64_t sm_agent_deadline(const struct sm_agent_wait *wait);
/* How long to poll at most before asking again: ms, -1: as long as it takes; or -ETIMEDOUT, naming `what`, or
 * -ECANCELED. */
int sm_agent_poll_ms(int64_t deadline_ms, const atomic_bool *cancel, const char *what, int *ret_ms,
                     struct sm_error *err);

struct sm_channel;

/* Takes fd, closed in every case. */
int sm_channel_new(int fd_taken, const struct sm_agent_wait *wait, struct sm_channel **ret, struct sm_error *err);
void sm_channel_free(struct sm_channel *channel); /* NULL is fine */
#define SM_CHANNEL_CLEANUP __attribute__((cleanup(sm_channel_cleanup)))
void sm_channel_cleanup(struct sm_channel **channel);

/* The channel's end, but the connection lives on: its descriptor, the caller's. */
int sm_channel_take_fd(struct sm_channel *channel);

/* OPEN and the BODY frames.  A body that has failed is refused. */
int sm_channel_request(struct sm_channel *channel, enum sm_agent_kind kind, const struct sm_buf *body,
                       struct sm_error *err);
/* One frame of at most SM_AGENT_PAYLOAD_MAX bytes.  The guest may answer early (with ERROR): then -EPIPE may follow
 * while its answer can still be received. */
int sm_channel_send(struct sm_channel *channel, enum sm_agent_frame type, const void *payload, size_t len,
                    struct sm_error *err);
/* The next frame and never a byte more.  The payload is borrowed until the next call.  A guest's ERROR is returned as
 * the error it names; -ECONNRESET when the connection ends instead; -EBADMSG for what is no frame. */
int sm_channel_receive(struct sm_channel *channel, unsigned *ret_type, const void **ret_payload, size_t *ret_len,
                       struct sm_error *err);
/* The same where only one type, without payload, is right. */
int sm_channel_expect(struct sm_channel *channel, enum sm_agent_frame type, struct sm_error *err);

/* Shared with process.c: a frame's header and payload appended; the request's frames appended; the error that an
 * ERROR frame's payload means. */
void sm_channel_put_frame(struct sm_buf *buf, enum sm_agent_frame type, const void *payload, size_t len);
int sm_channel_put_request(struct sm_buf *buf, enum sm_agent_kind kind, const struct sm_buf *body,
                           struct sm_error *err);
int sm_channel_guest_error(const void *payload, size_t len, struct sm_error *err);
/* -EBADMSG when these 8 bytes are not the header of a frame. */
int sm_channel_parse_header(const uint8_t header[SM_AGENT_HEADER], unsigned *ret_type, size_t *ret_len,
                            struct sm_error *err);

#endif
