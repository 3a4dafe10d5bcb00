/* The socket device's insides (virtio 1.2, 5.10).  Private to vsock*.c.
 *
 * vsock.c has the queues and packets, vsock_mux.c the table of connections and listeners, vsock_conn.c one connection:
 * a socket pair whose one end is ours and whose other end some host program holds.
 *
 * All of it under the device's lock.  What touches a connection's watch or closes its descriptor runs on the loop
 * thread only, so a connection that ends elsewhere is put on the list of the dead, which the loop thread reaps. */
#ifndef SM_VIRTIO_VSOCK_H
#define SM_VIRTIO_VSOCK_H

#include "base/buf.h"
#include "virtio/device.h"

#include <sys/queue.h>

#define SM_VSOCK_HOST_CID        2u
#define SM_VSOCK_HEADER_BYTES    44u
#define SM_VSOCK_BUF_ALLOC       (256u << 10) /* bytes that the guest may send before the host has taken them */
#define SM_VSOCK_CONNECTIONS_MAX 1024u
#define SM_VSOCK_LISTENERS_MAX   64u
#define SM_VSOCK_RESETS_MAX      64u
#define SM_VSOCK_BUCKETS         256u

enum { SM_VSOCK_RX, SM_VSOCK_TX, SM_VSOCK_EVENT, SM_VSOCK_QUEUES };

enum sm_vsock_op {
	SM_VSOCK_REQUEST = 1,
	SM_VSOCK_RESPONSE,
	SM_VSOCK_RST,
	SM_VSOCK_SHUTDOWN,
	SM_VSOCK_RW,
	SM_VSOCK_CREDIT_UPDATE,
	SM_VSOCK_CREDIT_REQUEST,
};
#define SM_VSOCK_STREAM       1u /* type */
#define SM_VSOCK_SHUT_RECEIVE 1u /* flags of SHUTDOWN: the sender of it will not receive, will not send */
#define SM_VSOCK_SHUT_SEND    2u
#define SM_VSOCK_SHUT_BOTH    3u

struct sm_vsock_packet {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));
_Static_assert(sizeof(struct sm_vsock_packet) == SM_VSOCK_HEADER_BYTES, "virtio_vsock_hdr");

enum sm_vsock_state {
	SM_VSOCK_NEW,        /* made by the host; the guest was not asked yet */
	SM_VSOCK_CONNECTING, /* asked */
	SM_VSOCK_OPEN,
};

struct sm_vsock_conn {
	struct sm_vsock *vsock;
	TAILQ_ENTRY(sm_vsock_conn) all;     /* among the living or the dead */
	LIST_ENTRY(sm_vsock_conn) hash;     /* unless detached or dead */
	TAILQ_ENTRY(sm_vsock_conn) control; /* when in_control: has packets without data to send */
	TAILQ_ENTRY(sm_vsock_conn) backlog; /* when in_backlog: may have data to send, and waits for buffers */
	bool in_control, in_backlog;
	bool dead;
	/* The guest has forgotten the connection; what it sent is still handed to the host. */
	bool detached;
	enum sm_vsock_state state;
	uint32_t guest_port, host_port;
	unsigned want; /* 1 << op of each packet to send */

	int fd; /* our end; -1 when nothing can move in either direction any more */
	struct sm_loop_source *source;
	uint32_t events; /* watched */
	bool reading;    /* watch for host data */
	bool hung_up;    /* no longer watched: what the host sent is all there */
	bool host_eof;   /* the host sends no more, and all it sent has gone to the guest */
	bool host_gone;  /* the host takes no more */
	bool write_shut; /* the host was told that the guest sends no more */

	unsigned guest_shut;        /* SHUT flags by the guest */
	unsigned told_shut;         /* SHUT flags to the guest */
	struct sm_buf out;          /* from the guest, for the host; at most SM_VSOCK_BUF_ALLOC */
	uint32_t fwd_cnt, told_fwd; /* bytes the host has taken, and that the guest knows of */
	uint32_t tx_cnt;            /* bytes sent to the guest */
	uint32_t peer_alloc, peer_fwd;
	bool starved; /* wanted to send, and had no credit */
};

struct sm_vsock_listener {
	struct sm_vsock *vsock;
	LIST_ENTRY(sm_vsock_listener) link;
	uint32_t port;
	int fd;
	struct sm_loop_source *source;
};

struct sm_vsock {
	struct sm_virtio base;
	uint64_t guest_cid;
	bool ended;         /* the guest is gone: connections end, and no new ones begin */
	uint32_t next_port; /* for connections by the host */
	/* After a restore the guest must have dropped its old connections before it hears of new ones. */
	bool reset_due;   /* the event is not sent yet */
	bool held;        /* sent, and not taken: nothing goes to the receive queue */
	uint16_t held_at; /* the event queue's available index until it is taken */
	/* Connections that do not exist and whose packets are to be answered by RST. */
	unsigned nresets;
	struct sm_vsock_packet resets[SM_VSOCK_RESETS_MAX];

	unsigned nconns, nlisteners;
	LIST_HEAD(, sm_vsock_conn) buckets[SM_VSOCK_BUCKETS];
	TAILQ_HEAD(, sm_vsock_conn) all, dead, control, backlog;
	LIST_HEAD(, sm_vsock_listener) listeners;
};

/* vsock.c: the receive queue.  open: the next buffer, or NULL; then exactly one of send and undo.
 * send puts the header before `packet->len` bytes that are in place. */
const struct sm_chain *sm_vsock_rx_open(struct sm_vsock *vsock);
void sm_vsock_rx_undo(struct sm_vsock *vsock);
void sm_vsock_rx_send(struct sm_vsock *vsock, const struct sm_vsock_packet *packet);
bool sm_vsock_is(const struct sm_virtio *device);

/* vsock_mux.c */
void sm_vsock_mux_init(struct sm_vsock *vsock);
/* A packet by the guest; its data follows the header in the chain. */
void sm_vsock_mux_packet(struct sm_vsock *vsock, const struct sm_vsock_packet *packet, const struct sm_chain *chain);
/* Send what waits, packets without data first.  Returns whether more could be sent at once. */
bool sm_vsock_mux_service(struct sm_vsock *vsock);
/* The first half of it: false when the guest has no buffer left. */
bool sm_vsock_mux_control(struct sm_vsock *vsock);
void sm_vsock_mux_reap(struct sm_vsock *vsock);
void sm_vsock_mux_reset(struct sm_vsock *vsock);   /* any thread */
void sm_vsock_mux_hang_up(struct sm_vsock *vsock); /* loop thread: as if the guest had reset every connection */
void sm_vsock_mux_close(struct sm_vsock *vsock);
/* In and out of the table. */
void sm_vsock_mux_add(struct sm_vsock *vsock, struct sm_vsock_conn *conn);
void sm_vsock_mux_forget(struct sm_vsock_conn *conn);

/* vsock_conn.c.  new takes fd on success. */
int sm_vsock_conn_new(struct sm_vsock *vsock, uint32_t guest_port, uint32_t host_port, int fd,
                      enum sm_vsock_state state, struct sm_vsock_conn **ret_conn);
void sm_vsock_conn_drop(struct sm_vsock_conn *conn); /* any thread */
void sm_vsock_conn_free(struct sm_vsock_conn *conn); /* loop thread, or when the device closes */
void sm_vsock_conn_want(struct sm_vsock_conn *conn, enum sm_vsock_op op);
void sm_vsock_conn_await(struct sm_vsock_conn *conn); /* into the backlog */
/* Send the packets that it wants to; false when the guest has no buffer left. */
bool sm_vsock_conn_control(struct sm_vsock_conn *conn);
/* Move host data to the guest: a bounded piece. */
void sm_vsock_conn_pump(struct sm_vsock_conn *conn);
/* A packet of an existing connection. */
void sm_vsock_conn_packet(struct sm_vsock_conn *conn, const struct sm_vsock_packet *packet,
                          const struct sm_chain *chain);
/* Draw the conclusions of whatever changed. */
void sm_vsock_conn_settle(struct sm_vsock_conn *conn);

#endif
