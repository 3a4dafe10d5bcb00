/* The kinds of request, each an `open` of serve.c's table. */
#ifndef SM_GUEST_REQUESTS_H
#define SM_GUEST_REQUESTS_H

#include "conn.h"

void sm_exec_open(struct sm_conn *conn, struct sm_wire *body);
/* The same with one more NAME=VALUE in its environment. */
void sm_exec_open_with(struct sm_conn *conn, struct sm_wire *body, char *value);
void sm_tcp_open(struct sm_conn *conn, struct sm_wire *body);
void sm_files_open_read(struct sm_conn *conn, struct sm_wire *body);
void sm_files_open_write(struct sm_conn *conn, struct sm_wire *body);
void sm_attach_open(struct sm_conn *conn, struct sm_wire *body);
void sm_interpreter_open(struct sm_conn *conn, struct sm_wire *body);
void sm_identity_open(struct sm_conn *conn, struct sm_wire *body);
void sm_identity_open_ping(struct sm_conn *conn, struct sm_wire *body);
void sm_identity_open_sync(struct sm_conn *conn, struct sm_wire *body);
void sm_identity_open_shutdown(struct sm_conn *conn, struct sm_wire *body);
void sm_identity_open_drop_caches(struct sm_conn *conn, struct sm_wire *body);

/* Some child has ended: take every one that has.  Call on SIGCHLD. */
void sm_exec_reap(struct sm_agent *agent);
/* Kill every process of every request. */
void sm_exec_kill_all(struct sm_agent *agent);
/* Free what ended in this round. */
void sm_exec_sweep(struct sm_agent *agent);
/* What the next process needs and can be made before it is asked for. */
void sm_exec_prepare(struct sm_agent *agent);
void sm_tcp_sweep(struct sm_agent *agent);

#endif
