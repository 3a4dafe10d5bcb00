/* The file server inside.  Private to this room. */
#ifndef SM_FUSE_INTERNAL_H
#define SM_FUSE_INTERNAL_H

#include "fuse/fuse.h"
#include "fuse/handle.h"
#include "fuse/node.h"
#include "fuse/span.h"
#include "fuse/wire.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#define SM_FUSE_ARG_MAX   6144 /* arguments and names of any request that is no stream */
#define SM_FUSE_NAME_MAX  255  /* NAME_MAX of every host file system */
#define SM_FUSE_WRITE_MAX (1u << 20)
#define SM_FUSE_PAGES_MAX 256 /* of 4 KiB */
#define SM_FUSE_REPLY_MAX 320 /* of what is no stream */
#define SM_FUSE_XATTRS    32  /* patterns */

struct sm_fuse_counters {
	_Atomic uint64_t requests, errors, hostile, stale, mended, evicted;
};

struct sm_fuse_dax;
struct sm_fuse_locks;

struct sm_fuse {
	struct sm_mount mount;
	struct sm_fuse_window window;
	char *only; /* copies of the mount's */
	char *xattrs;
	unsigned npatterns;
	struct {
		const char *text;
		size_t len;
		bool prefix;
	} patterns[SM_FUSE_XATTRS];
	uid_t uid; /* ours */
	gid_t gid;
	mode_t umask;
	uint64_t valid; /* seconds that the guest trusts entries and attributes */

	/* What INIT agreed on. */
	_Atomic bool ready;
	_Atomic uint32_t minor;
	_Atomic uint64_t flags;

	struct sm_fuse_nodes nodes;
	struct sm_fuse_handles handles;
	struct sm_fuse_dax *dax;     /* NULL: none */
	struct sm_fuse_locks *locks; /* NULL: the guest's own affair */
	void (*later)(void *arg, void *cookie, const void *reply, size_t len);
	void *later_arg;
	struct sm_fuse_counters counters;
};

/* One request. */
struct sm_fuse_call {
	struct sm_fuse *fuse;
	struct fuse_in_header head;
	const uint8_t *arg; /* what its operation's row says; for those that are no stream: everything */
	size_t arg_len;
	struct sm_fuse_span in;  /* what is behind arg */
	struct sm_fuse_span out; /* the whole reply's place */
	size_t room;             /* bytes of it, without the header */
	struct iovec head_iov[SM_FUSE_HEAD_MAX];
	struct sm_fuse_span head_out; /* after sm_fuse_body: the header's place */
	void *cookie;
	struct {
		struct fuse_out_header head;
		uint8_t body[SM_FUSE_REPLY_MAX];
	} reply;
	bool done; /* after sm_fuse_body */
};

/* The operation puts the reply's body into call->out itself, which from now on is that alone. */
int sm_fuse_body(struct sm_fuse_call *call);

/* Each operation: bytes of the reply's body, in reply.body unless `done`; -errno is the reply's error.  One that the
 * table (ops.c) does not name is ENOSYS. */
typedef int64_t sm_fuse_operation(struct sm_fuse_call *call);
enum {
	SM_FUSE_OP_WRITES = 1, /* EROFS where the mount is read-only */
	SM_FUSE_OP_SILENT = 2, /* has no reply */
	SM_FUSE_OP_STREAM = 4, /* arg is the fixed part, the rest stays in `in` */
	SM_FUSE_OP_EARLY = 8,  /* before INIT too */
	SM_FUSE_OP_NAMES = 16, /* too long is ENAMETOOLONG */
};
struct sm_fuse_op {
	sm_fuse_operation *run;
	uint32_t in_min, in_max; /* behind the header */
	uint32_t out_min;        /* least room for the reply's body; it is not even begun without */
	unsigned flags;
};
const struct sm_fuse_op *sm_fuse_op(uint32_t opcode);

static inline void sm_fuse_count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}
/* Malformed, forged or out of bounds: counted. */
static inline int sm_fuse_hostile(struct sm_fuse *fuse, int code)
{
	sm_fuse_count(&fuse->counters.hostile);
	return code;
}
static inline bool sm_fuse_agreed(struct sm_fuse *fuse, uint64_t flag)
{
	return atomic_load_explicit(&fuse->flags, memory_order_relaxed) & flag;
}
static inline bool sm_fuse_add(uint64_t a, uint64_t b, uint64_t max)
{
	return a <= max && b <= max - a;
}

/* session.c: what INIT may agree on; nothing of the guest's is left. */
uint64_t sm_fuse_able(struct sm_fuse *fuse);
void sm_fuse_session_end(struct sm_fuse *fuse);

/* confine.c: the only places that give a guest's name to the host. */

/* One component, with its NUL, at *at of the arguments, which it moves on.  -EINVAL, -ENAMETOOLONG. */
int sm_fuse_name(struct sm_fuse_call *call, size_t *at, const char **ret_name);
/* The folder for a name that is looked up in it; for what changes it too (`change`: the error where it may not). */
int sm_fuse_parent(struct sm_fuse *fuse, uint64_t id, const char *name, int change, struct sm_fuse_hold *ret);
int sm_fuse_stat(int fd, struct statx *ret);
/* One component below parent: what it is; and its O_PATH descriptor.  ret_linked: it was a link that we followed. */
int sm_fuse_look(struct sm_fuse *fuse, int parent, const char *name, struct statx *ret, bool *ret_linked);
int sm_fuse_create(struct sm_fuse *fuse, int parent, const char *name, int flags, mode_t mode); /* a new file */
int sm_fuse_tmpfile(struct sm_fuse *fuse, int parent, int flags, mode_t mode);
int sm_fuse_walk(struct sm_fuse *fuse, int parent, const char *name, bool follow);
/* "/proc/self/fd/N": the very file of a descriptor, for calls that take paths. */
struct sm_fuse_proc {
	char path[32];
};
struct sm_fuse_proc sm_fuse_proc(int fd);
/* A regular file or a folder of an O_PATH descriptor, for real; anything else is -ENXIO.  type: S_IFMT. */
int sm_fuse_reopen(struct sm_fuse *fuse, int fd, uint32_t type, int flags);
/* A link below parent may be shown to the guest: -EACCES where it leads out and the mount denies that. */
int sm_fuse_link_allowed(struct sm_fuse *fuse, const struct sm_fuse_hold *parent, const char *name);

/* attr.c */
void sm_fuse_attr(struct sm_fuse *fuse, const struct statx *st, const struct sm_fuse_node *node, struct fuse_attr *ret);
/* lookup.c: the reply for a name; what it names has one more lookup. */
int sm_fuse_lookup(struct sm_fuse *fuse, const struct sm_fuse_hold *parent, const char *name,
                   struct fuse_entry_out *ret);

/* owner.c */
uint32_t sm_fuse_owner_out(struct sm_fuse *fuse, uint32_t id, bool group);
/* -EOVERFLOW: no host ID is this guest ID. */
int sm_fuse_owner_in(struct sm_fuse *fuse, uint32_t id, bool group, uint32_t *ret);
/* What was just made by us belongs to the caller, and has the mode that it asked for.  `fd` may be O_PATH.  Updates st.
 */
int sm_fuse_owner_made(struct sm_fuse_call *call, int parent, int fd, mode_t mode, struct statx *st);
/* Clear set-user-ID and set-group-ID, as a write does. */
int sm_fuse_kill_priv(int fd);

/* open.c */

/* The guest's flags as we give them to open(2); those of the reply. */
uint32_t sm_fuse_host_flags(struct sm_fuse *fuse, uint32_t flags);
uint32_t sm_fuse_open_flags(struct sm_fuse *fuse, uint32_t flags);
/* A regular file of an O_PATH descriptor; open_flags: FUSE_OPEN_... */
int sm_fuse_open_file(struct sm_fuse *fuse, int fd, uint32_t flags, uint32_t open_flags);

/* xattr.c */
int sm_fuse_xattr_parse(struct sm_fuse *fuse);

sm_fuse_operation sm_fuse_do_init, sm_fuse_do_destroy;
sm_fuse_operation sm_fuse_do_lookup, sm_fuse_do_forget, sm_fuse_do_batch_forget, sm_fuse_do_readlink;
sm_fuse_operation sm_fuse_do_getattr, sm_fuse_do_setattr, sm_fuse_do_statx, sm_fuse_do_access, sm_fuse_do_statfs;
sm_fuse_operation sm_fuse_do_mknod, sm_fuse_do_mkdir, sm_fuse_do_symlink, sm_fuse_do_link, sm_fuse_do_create,
    sm_fuse_do_tmpfile;
sm_fuse_operation sm_fuse_do_unlink, sm_fuse_do_rmdir, sm_fuse_do_rename, sm_fuse_do_rename2;
sm_fuse_operation sm_fuse_do_open, sm_fuse_do_release, sm_fuse_do_flush, sm_fuse_do_fsync, sm_fuse_do_syncfs;
sm_fuse_operation sm_fuse_do_read, sm_fuse_do_write, sm_fuse_do_fallocate, sm_fuse_do_lseek, sm_fuse_do_copy_file_range;
sm_fuse_operation sm_fuse_do_opendir, sm_fuse_do_readdir, sm_fuse_do_readdirplus, sm_fuse_do_releasedir,
    sm_fuse_do_fsyncdir;
sm_fuse_operation sm_fuse_do_setxattr, sm_fuse_do_getxattr, sm_fuse_do_listxattr, sm_fuse_do_removexattr;
sm_fuse_operation sm_fuse_do_ioctl, sm_fuse_do_getlk, sm_fuse_do_setlk, sm_fuse_do_setlkw, sm_fuse_do_interrupt;
sm_fuse_operation sm_fuse_do_setupmapping, sm_fuse_do_removemapping;

#endif
