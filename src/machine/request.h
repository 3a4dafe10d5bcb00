/* Control requests as bytes: what both transports carry.  Private to this room. */
#ifndef SM_MACHINE_REQUEST_H
#define SM_MACHINE_REQUEST_H

#include "base/buf.h"
#include "base/codec.h"
#include "base/error.h"
#include "base/fd.h"
#include "machine/control.h"

#include <limits.h>

struct sm_machine;

enum sm_request_op {
	SM_REQUEST_BUILD = 1,
	SM_REQUEST_RESUME,
	SM_REQUEST_PAUSE,
	SM_REQUEST_CAPTURE,
	SM_REQUEST_CAPTURE_STEP,
	SM_REQUEST_CAPTURE_END,
	SM_REQUEST_RESET,
	SM_REQUEST_CONNECT,
	SM_REQUEST_LISTEN,
	SM_REQUEST_GENERATION,
	SM_REQUEST_BALLOON,
	SM_REQUEST_CONSOLE,
	SM_REQUEST_DEVICES,
	SM_REQUEST_STATISTICS,
	SM_REQUEST_TIMES,
	SM_REQUEST_TOUCHED,
	SM_REQUEST_BACK,
	SM_REQUEST_VOLUMES,
};

#define SM_REQUEST_MAX (4u << 20)

/* A request or a reply: fields and the descriptors that go with them. */
struct sm_message {
	struct sm_buf body;
	int fds[SM_FD_PASS_MAX];
	size_t nfds;
};

void sm_message_init(struct sm_message *message);
void sm_message_done(struct sm_message *message); /* frees the body; descriptors are the caller's business */
void sm_message_close_fds(struct sm_message *message);

/* Add a descriptor (borrowed); its index goes into the body as u32, UINT32_MAX for -1.  Past SM_FD_PASS_MAX the body
 * fails with -E2BIG. */
void sm_message_put_fd(struct sm_message *message, int fd);
/* The descriptor that the next u32 names, or -1.  A bad index fails the reader. */
int sm_message_get_fd(struct sm_reader *reader, const struct sm_message *message);

/* request_backing.c: what is behind slots.  What comes out borrows from the request, and from `ret`, which is to be
 * done with on success.  -EBADMSG, -ENOMEM. */
struct sm_request_backing {
	struct sm_disk disk;
	struct sm_volume volume;
	struct sm_mount mount;
	char tag[SM_MOUNT_TAG_MAX + 1], only[NAME_MAX + 1], xattrs[1024]; /* the mount's */
};
void sm_request_put_disk(struct sm_message *request, const struct sm_disk *disk);
int sm_request_get_disk(struct sm_reader *in, const struct sm_message *request, struct sm_disk *ret_disk);
void sm_request_put_volume(struct sm_message *request, const struct sm_volume *volume);
int sm_request_get_volume(struct sm_reader *in, const struct sm_message *request, struct sm_volume *ret);
void sm_request_put_mount(struct sm_message *request, const struct sm_mount *mount);
int sm_request_get_mount(struct sm_reader *in, const struct sm_message *request, struct sm_request_backing *ret);
void sm_request_put_backing(struct sm_message *request, const struct sm_backing *backing);
int sm_request_get_backing(struct sm_reader *in, const struct sm_message *request, struct sm_request_backing *ret,
                           struct sm_backing *ret_backing);
void sm_request_backing_done(struct sm_request_backing *backing);

void sm_request_put_build(struct sm_message *request, const struct sm_control_build *build);

/* Serve one request: the only place that turns requests into calls on a machine.  *machine is NULL before BUILD.
 * Request descriptors are borrowed; descriptors in the reply are new and pass to the caller.  end_fd: see machine.h. */
int sm_request_serve(struct sm_machine **machine, int end_fd, uint32_t op, const struct sm_message *request,
                     struct sm_message *reply, struct sm_error *err);

#endif
