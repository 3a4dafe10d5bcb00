/* A control, and the one way to make requests of it.  Private to control.c and control_requests.c. */
#ifndef SM_MACHINE_CONTROL_CALL_H
#define SM_MACHINE_CONTROL_CALL_H

#include "machine/control.h"
#include "machine/request.h"

#include <pthread.h>
#include <stdatomic.h>

struct sm_control {
	atomic_int references;
	struct sm_plan plan;
	bool built_backed[SM_PLAN_SLOTS_MAX]; /* what a reset makes of the plan's slots again */
	struct sm_machine *machine;           /* direct transport */
	struct sm_worker *worker;             /* worker transport */
	pthread_mutex_t lock;                 /* one request at a time */
	pthread_mutex_t whole;   /* above it: a capture is many requests, and no reset comes between them */
	int end_read, end_write; /* socketpair; the machine sends one end record */
	uint8_t id[16];          /* under the lock, as the next */
	uint32_t identity_us;
};

/* A request and its reply: init, put the request's fields, make, get the reply's fields from `in`, end. */
struct sm_call {
	struct sm_message request; /* its descriptors are borrowed */
	struct sm_message reply;   /* its descriptors are closed, unless somebody took them */
	struct sm_reader in;
};
#define SM_CALL_CLEANUP __attribute__((cleanup(sm_call_done)))
void sm_call_init(struct sm_call *call);
void sm_call_done(struct sm_call *call);
/* The one place where the transports differ. */
int sm_call_make(struct sm_call *call, struct sm_control *control, uint32_t op, struct sm_error *err);
/* The reply's next descriptor, the caller's from then on.  -1: there is none, and the end is -EBADMSG. */
int sm_call_take_fd(struct sm_call *call);
/* 0, or -EBADMSG for a reply that was too short: a worker process may be anything's by now. */
int sm_call_end(const struct sm_call *call, struct sm_error *err);

/* A request without fields, with nothing in the reply. */
int sm_call_simple(struct sm_control *control, uint32_t op, struct sm_error *err);

#endif
