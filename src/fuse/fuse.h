/* A FUSE server over one host folder: what is behind a virtio-fs device.
 *
 * It speaks the kernel's protocol (linux/fuse.h, 7.31 and later) and knows nothing of virtio: a request is bytes in and
 * bytes out.  Everything that a guest sends is hostile.  Nothing outside the mount's root is reached, whatever names,
 * links or races there are: each lookup is one component, by openat2(RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS).
 *
 * Threads: serve from any number at once; the rest while none of them is inside. */
#ifndef SM_FUSE_FUSE_H
#define SM_FUSE_FUSE_H

#include "base/buf.h"
#include "base/codec.h"
#include "base/error.h"
#include "plan/mount.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct sm_fuse;

/* The DAX window: host address space that the guest sees as it is.  Whatever is not mapped from a file is anonymous. */
struct sm_fuse_window {
	void *hva;      /* 2 MiB aligned; NULL: no window */
	uint64_t bytes; /* a multiple of 2 MiB */
};

/* Copies what it needs; root_fd is duplicated.  To be called by the process that serves, which needs /proc.  -EINVAL,
 * -ENOTDIR, -EACCES, -EPERM name what is wrong. */
int sm_fuse_new(const struct sm_mount *mount, const struct sm_fuse_window *window, struct sm_fuse **ret_fuse,
                struct sm_error *err);
/* Windows are anonymous again, every descriptor is closed.  NULL is fine. */
void sm_fuse_free(struct sm_fuse *fuse);

/* What may lie in a DAX window, of this mount or another, is touched by system calls alone: a plain load could be a
 * SIGBUS where they give EFAULT.  Both lists may be used up. */
struct sm_fuse_request {
	struct iovec *in; /* header, then arguments and data */
	unsigned nin;
	struct iovec *out;
	unsigned nout;
	bool plain;   /* none of it can be in a window: two system calls less */
	void *cookie; /* handed to `later` */
};
/* Serve one; returns how many bytes of `out` were written: 0 for requests without a reply (FORGET, BATCH_FORGET), and
 * for what has no room for one.  An error of the file system is a reply.  -EPROTO: not even a header.  -EINPROGRESS:
 * the reply comes by `later`. */
int64_t sm_fuse_serve(struct sm_fuse *fuse, const struct sm_fuse_request *request);

/* How a reply comes for a request that had to wait (SETLKW of a lock that the host shares): `reply` is put into the
 * request's `out` by the callee.  Called on a thread of the server or of who serves an INTERRUPT, at most once a
 * cookie, and never after reset or free have returned; DESTROY has all of them answered (EINTR).  It must not call the
 * server.  Without it no locks are shared with the host.  Before the first request.  What waits is not saved: whoever
 * saves it pauses first, keeps the request, and after a load serves it again. */
void sm_fuse_set_later(struct sm_fuse *fuse, void (*later)(void *arg, void *cookie, const void *reply, size_t len),
                       void *arg);
/* While it is paused no reply comes by `later`; none is under way when this returns. */
void sm_fuse_pause(struct sm_fuse *fuse, bool paused);

/* Back to before FUSE_INIT: nodes, handles, locks and DAX mappings are gone.  The mount stays. */
void sm_fuse_reset(struct sm_fuse *fuse);

/* The session as one record: nodes (by path, device, inode and birth), open handles (node, flags), locks, DAX mappings,
 * and what INIT agreed on; places in folders are offsets that the guest keeps.  A session that was loaded is saved as
 * the same bytes.  load expects a server that is fresh or was reset, of a mount that does what the guest relies on, and
 * opens nothing: files are opened when the guest next asks for them, and what is gone, was replaced or has no name is
 * ESTALE by then, for that handle alone.  Locks of the host are taken with the first request; where somebody else has
 * one, its owner gets EIO.  DAX mappings are made at once, because the guest uses them without asking; one whose file
 * is gone reads as zeros and is counted.  -EINVAL, -EBADMSG, -ENOMEM; there is no session then. */
void sm_fuse_save(struct sm_fuse *fuse, struct sm_buf *out);
int sm_fuse_load(struct sm_fuse *fuse, struct sm_reader *in, struct sm_error *err);

/* A vCPU could not reach memory: put zero pages where a mapped file has become shorter than its mapping.  Returns how
 * many granules were mended; 0: the fault is not one of these.  Any thread. */
unsigned sm_fuse_mend(struct sm_fuse *fuse);

struct sm_fuse_stats {
	uint64_t requests, errors; /* served; of these, answered with an error */
	uint64_t hostile;          /* malformed, forged or out of bounds */
	uint64_t stale;            /* ESTALE */
	uint64_t mended;           /* DAX granules past a file's new end */
	uint64_t nodes, handles;   /* now */
	uint64_t descriptors;      /* of the host, now */
	uint64_t dax_bytes;        /* mapped now */
	uint64_t evicted;          /* descriptors closed because there were too many */
};
void sm_fuse_stats(struct sm_fuse *fuse, struct sm_fuse_stats *ret);

#endif
