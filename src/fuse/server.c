#include "fuse/internal.h"

#include "base/fd.h"
#include "fuse/dax.h"
#include "fuse/lock.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define NODES_DEFAULT       (1u << 20)
#define DESCRIPTORS_DEFAULT 4096u
#define DESCRIPTORS_MIN     16u
#define HANDLES_MAX         (1u << 20) /* their table is as long as the last slot that a session names */

/* Requests ------------------------------------------------------------------------------------------------------- */

int sm_fuse_body(struct sm_fuse_call *call)
{
	if (!sm_fuse_span_split(&call->out, sizeof call->reply.head, call->head_iov, &call->head_out))
		return -EFAULT;
	call->done = true;
	return 0;
}

/* Returns what the request's reply is, before it has a header.  The arguments are copied once, to `arg`. */
static int64_t run(struct sm_fuse_call *call, const struct sm_fuse_op *op, size_t len, uint8_t arg[SM_FUSE_ARG_MAX])
{
	struct sm_fuse *fuse = call->fuse;
	if (!op)
		return -ENOSYS;
	if (!atomic_load_explicit(&fuse->ready, memory_order_acquire) && !(op->flags & SM_FUSE_OP_EARLY))
		return sm_fuse_hostile(fuse, -EPROTO);
	if (len > op->in_max && op->flags & SM_FUSE_OP_NAMES)
		return -ENAMETOOLONG;
	if (len < op->in_min || len > op->in_max || call->room < op->out_min)
		return sm_fuse_hostile(fuse, -EINVAL);
	if (op->flags & SM_FUSE_OP_WRITES && fuse->mount.readonly)
		return -EROFS;
	if (fuse->locks && atomic_load_explicit(&fuse->locks->pending, memory_order_relaxed))
		sm_fuse_locks_take(fuse);
	call->arg = arg;
	call->arg_len = op->flags & SM_FUSE_OP_STREAM ? op->in_min : len;
	if (sm_fuse_span_get(&call->in, arg, call->arg_len) < 0)
		return sm_fuse_hostile(fuse, -EFAULT);
	return op->run(call);
}

int64_t sm_fuse_serve(struct sm_fuse *fuse, const struct sm_fuse_request *request)
{
	_Alignas(8) uint8_t arg[SM_FUSE_ARG_MAX];
	struct sm_fuse_call call;
	call.fuse = fuse;
	call.in = (struct sm_fuse_span){ request->in, request->nin, request->plain };
	call.out = (struct sm_fuse_span){ request->out, request->nout, request->plain };
	call.cookie = request->cookie;
	call.done = false;
	sm_fuse_count(&fuse->counters.requests);

	size_t len = sm_fuse_span_len(&call.in), room = sm_fuse_span_len(&call.out);
	if (sm_fuse_span_get(&call.in, &call.head, sizeof call.head) < 0)
		return sm_fuse_hostile(fuse, -EPROTO);
	const struct sm_fuse_op *op = sm_fuse_op(call.head.opcode);
	bool silent = op && op->flags & SM_FUSE_OP_SILENT;
	if (!silent && room < sizeof call.reply.head)
		return sm_fuse_hostile(fuse, 0);
	call.room = silent ? 0 : room - sizeof call.reply.head;
	int64_t result =
	    call.head.len == len ? run(&call, op, len - sizeof call.head, arg) : sm_fuse_hostile(fuse, -EINVAL);
	if (silent || result == -EINPROGRESS)
		return silent ? 0 : result;

	if (result < 0) {
		sm_fuse_count(&fuse->counters.errors);
		if (result == -ESTALE)
			sm_fuse_count(&fuse->counters.stale);
	}
	size_t body = result > 0 ? (size_t)result : 0;
	call.reply.head = (struct fuse_out_header){
		.len = (uint32_t)(sizeof call.reply.head + body),
		.error = result < 0 ? (int32_t)result : 0,
		.unique = call.head.unique,
	};
	struct sm_fuse_span *to = call.done ? &call.head_out : &call.out;
	if (sm_fuse_span_put(to, &call.reply, sizeof call.reply.head + (call.done ? 0 : body)) < 0)
		return sm_fuse_hostile(fuse, 0);
	return call.reply.head.len;
}

/* The server ----------------------------------------------------------------------------------------------------- */

static mode_t read_umask(void)
{
	char text[4096];
	int fd = open("/proc/thread-self/status", O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
	sm_fd_close(&fd);
	text[len > 0 ? len : 0] = 0;
	const char *line = strstr(text, "\nUmask:");
	return line ? (mode_t)strtoul(line + sizeof "\nUmask:" - 1, NULL, 8) & 0777 : 0;
}

static int check_mount(const struct sm_mount *mount, const struct sm_fuse_window *window, struct sm_error *err)
{
	if (mount->writeback && mount->cache == SM_MOUNT_CACHE_STRICT)
		return sm_error_set(err, EINVAL,
		                    "mount: writeback needs a cache: the guest's own size and time would win");
	if (mount->nranges > SM_MOUNT_RANGES_MAX || (mount->owners == SM_MOUNT_OWNERS_MAP && !mount->nranges))
		return sm_error_set(err, EINVAL, "mount: owners: 1 to %d ranges, not %u", SM_MOUNT_RANGES_MAX,
		                    mount->nranges);
	for (unsigned i = 0; i < mount->nranges; i++)
		if (!sm_fuse_add(mount->ranges[i].guest, mount->ranges[i].count, 1ull << 32) ||
		    !sm_fuse_add(mount->ranges[i].host, mount->ranges[i].count, 1ull << 32))
			return sm_error_set(err, EINVAL, "mount: owners: range %u is past the last ID", i + 1);
	if (mount->owners != SM_MOUNT_OWNERS_SQUASH && geteuid() != 0)
		return sm_error_set(err, EPERM, "mount: owners: only root can give files to others");
	if (window && window->hva &&
	    ((uintptr_t)window->hva % SM_FUSE_GRANULE || window->bytes % SM_FUSE_GRANULE || !window->bytes))
		return sm_error_set(err, EINVAL, "mount: the DAX window is not of 2 MiB pieces");
	return 0;
}

/* The root is one, and what is `only` in it is a file. */
static int check_root(struct sm_fuse *fuse, int root_fd, struct sm_error *err)
{
	struct statx st;
	bool linked;
	int code = sm_fuse_stat(root_fd, &st);
	if (code < 0)
		return sm_error_sys(err, -code, "mount: root");
	if (!S_ISDIR(st.stx_mode))
		return sm_error_set(err, ENOTDIR, "mount: root: not a folder");
	int fd = fuse->only ? -1 : sm_fuse_reopen(fuse, root_fd, S_IFDIR, O_RDONLY);
	if (fd < 0 && !fuse->only)
		return sm_error_sys(err, -fd, "mount: root");
	sm_fd_close(&fd);
	if (!fuse->only)
		return 0;
	if (!*fuse->only || strlen(fuse->only) > SM_FUSE_NAME_MAX || strchr(fuse->only, '/'))
		return sm_error_set(err, EINVAL, "mount: \"%.64s\" is not a file's name", fuse->only);
	code = sm_fuse_look(fuse, root_fd, fuse->only, &st, &linked);
	if (code < 0)
		return sm_error_sys(err, -code, "mount: %s", fuse->only);
	return S_ISREG(st.stx_mode) ? 0 : sm_error_set(err, EINVAL, "mount: %s: not a regular file", fuse->only);
}

static int set_up(struct sm_fuse *fuse, const struct sm_mount *mount, struct sm_error *err)
{
	struct rlimit limit = { 0 };
	getrlimit(RLIMIT_NOFILE, &limit);
	size_t most = limit.rlim_cur / 4 < DESCRIPTORS_DEFAULT ? limit.rlim_cur / 4 : DESCRIPTORS_DEFAULT;
	most = mount->max_descriptors ? mount->max_descriptors : most;
	fuse->only = mount->only ? strdup(mount->only) : NULL;
	fuse->xattrs = strdup(mount->xattrs ? mount->xattrs : "user.*");
	if ((mount->only && !fuse->only) || !fuse->xattrs)
		return sm_error_set(err, ENOMEM, "mount: out of memory");
	int code = check_root(fuse, mount->root_fd, err);
	if (code < 0)
		return code;
	int root = sm_fd_dup(mount->root_fd);
	if (root < 0)
		return sm_error_sys(err, -root, "mount: root");
	code = sm_fuse_nodes_init(fuse, root, mount->max_nodes ? mount->max_nodes : NODES_DEFAULT,
	                          most > DESCRIPTORS_MIN ? most : DESCRIPTORS_MIN);
	if (code < 0) {
		sm_fd_close(&root);
		return sm_error_sys(err, -code, "mount: root");
	}
	sm_fuse_handles_init(fuse, limit.rlim_cur / 2 < HANDLES_MAX ? limit.rlim_cur / 2 : HANDLES_MAX);
	if (sm_fuse_xattr_parse(fuse) < 0)
		return sm_error_set(err, EINVAL, "mount: xattrs: not a list of at most %d names: \"%.64s\"",
		                    SM_FUSE_XATTRS, fuse->xattrs);
	fuse->dax = sm_fuse_dax_new(fuse, &code);
	if (code >= 0 && mount->host_locks && !(fuse->locks = sm_fuse_locks_new()))
		code = -ENOMEM;
	return code < 0 ? sm_error_set(err, -code, "mount: out of memory") : 0;
}

int sm_fuse_new(const struct sm_mount *mount, const struct sm_fuse_window *window, struct sm_fuse **ret_fuse,
                struct sm_error *err)
{
	int code = check_mount(mount, window, err);
	if (code < 0)
		return code;
	struct sm_fuse *fuse = calloc(1, sizeof *fuse);
	if (!fuse)
		return sm_error_set(err, ENOMEM, "mount: out of memory");
	fuse->mount = *mount;
	fuse->mount.only = fuse->mount.xattrs = NULL;
	fuse->mount.root_fd = -1;
	fuse->window = window ? *window : (struct sm_fuse_window){ 0 };
	fuse->uid = geteuid();
	fuse->gid = getegid();
	fuse->umask = read_umask();
	fuse->valid = mount->cache == SM_MOUNT_CACHE_STRICT ? 0 : mount->cache == SM_MOUNT_CACHE_AUTO ? 1 : 86400;
	fuse->nodes.root.fd = -1;
	pthread_mutex_init(&fuse->nodes.lock, NULL);
	pthread_mutex_init(&fuse->handles.lock, NULL);
	code = set_up(fuse, mount, err);
	if (code < 0) {
		sm_fuse_free(fuse);
		return code;
	}
	*ret_fuse = fuse;
	return 0;
}

void sm_fuse_free(struct sm_fuse *fuse)
{
	if (!fuse)
		return;
	sm_fuse_locks_free(fuse);
	sm_fuse_dax_free(fuse);
	sm_fuse_handles_done(fuse);
	sm_fuse_nodes_done(fuse);
	sm_fd_close(&fuse->nodes.root.fd);
	pthread_mutex_destroy(&fuse->handles.lock);
	pthread_mutex_destroy(&fuse->nodes.lock);
	free(fuse->only);
	free(fuse->xattrs);
	free(fuse);
}

void sm_fuse_reset(struct sm_fuse *fuse)
{
	sm_fuse_session_end(fuse);
}

void sm_fuse_set_later(struct sm_fuse *fuse, void (*later)(void *arg, void *cookie, const void *reply, size_t len),
                       void *arg)
{
	fuse->later = later;
	fuse->later_arg = arg;
}

void sm_fuse_stats(struct sm_fuse *fuse, struct sm_fuse_stats *ret)
{
	struct sm_fuse_counters *counters = &fuse->counters;
	*ret = (struct sm_fuse_stats){
		.requests = counters->requests,
		.errors = counters->errors,
		.hostile = counters->hostile,
		.stale = counters->stale,
		.mended = counters->mended,
		.evicted = counters->evicted,
	};
	pthread_mutex_lock(&fuse->handles.lock);
	ret->handles = fuse->handles.count;
	pthread_mutex_unlock(&fuse->handles.lock);
	if (fuse->dax) {
		pthread_mutex_lock(&fuse->dax->lock);
		ret->dax_bytes = fuse->dax->mapped * (uint64_t)SM_FUSE_GRANULE;
		pthread_mutex_unlock(&fuse->dax->lock);
	}
	pthread_mutex_lock(&fuse->nodes.lock);
	ret->nodes = fuse->nodes.count;
	ret->descriptors = 1 + fuse->nodes.open + fuse->nodes.kept + ret->handles;
	pthread_mutex_unlock(&fuse->nodes.lock);
}
