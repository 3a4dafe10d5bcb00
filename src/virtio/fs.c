/* The file system device (virtio 1.2, 5.11): requests of linux/fuse.h to a file server, on threads of their own. */
#include "virtio/fs_wait.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define DEVICE_ID 26u
#define TAG       SM_MOUNT_TAG_MAX

/* One request queue: the transport has one interrupt a device, for which the driver looks at all queues, so more would
 * cost each completion and gain a shorter wait for the ring's lock.  What is served at once is up to the threads. */
enum { QUEUE_HIPRIO, QUEUE_REQUEST, QUEUES };

/* linux/fuse.h: every request begins with the one, every reply with the other. */
struct in_header {
	uint32_t len, opcode;
	uint64_t unique, nodeid;
	uint32_t uid, gid, pid;
	uint16_t total_extlen, padding;
};
struct out_header {
	uint32_t len;
	int32_t error;
	uint64_t unique;
};
enum { OPCODE_FORGET = 2, OPCODE_SETLKW = 33, OPCODE_BATCH_FORGET = 42 };

struct fs {
	struct sm_virtio base;
	char tag[TAG + 1];
	struct sm_fuse *fuse; /* NULL: nothing is behind the slot */
	bool backed_later;    /* it came while the guest ran, and goes with it */
	bool host_locks;
	struct sm_fs_waiting waiting; /* with host_locks */
};

static struct fs *fs_of(struct sm_virtio *device)
{
	return (struct fs *)device;
}

static void fs_config(struct sm_virtio *device, uint8_t config[SM_VIRTIO_CONFIG_MAX])
{
	const uint32_t queues = QUEUES - 1;
	memcpy(config, fs_of(device)->tag, strlen(fs_of(device)->tag));
	memcpy(config + TAG, &queues, sizeof queues);
}

/* To all that wants a reply. */
static int64_t refuse(const struct sm_chain *chain, int code)
{
	struct in_header in;
	if (sm_chain_read(chain, 0, &in, sizeof in) != sizeof in)
		return -EPROTO;
	if (in.opcode == OPCODE_FORGET || in.opcode == OPCODE_BATCH_FORGET)
		return 0;
	const struct out_header out = { .len = sizeof out, .error = code, .unique = in.unique };
	return chain->write_bytes < sizeof out ? 0 : (int64_t)sm_chain_write(chain, 0, &out, sizeof out);
}

/* The server has what a request waited for.  Called with locks of its own held. */
static void replied(void *arg, void *cookie, const void *reply, size_t len)
{
	struct fs *fs = arg;
	sm_fs_reply(&fs->waiting, cookie, reply, len);
	sm_virtio_wake(&fs->base);
}

/* Only who wants a lock may have to wait. */
static bool may_wait(const struct fs *fs, const struct sm_chain *chain)
{
	uint32_t words[2];
	return fs->host_locks && sm_chain_read(chain, 0, words, sizeof words) == sizeof words &&
	       words[1] == OPCODE_SETLKW;
}

static int fs_serve(struct sm_virtio *device, unsigned queue, const struct sm_chain *chain,
                    struct sm_virtio_served *ret)
{
	struct fs *fs = fs_of(device);
	struct sm_fs_kept *kept = may_wait(fs, chain) ? sm_fs_keep(&fs->waiting, device, queue, chain) : NULL;
	/* The server uses them up. */
	struct iovec iov[SM_QUEUE_NUM_MAX];
	memcpy(iov, chain->iov, (chain->nread + chain->nwrite) * sizeof *iov);
	const struct sm_fuse_request request = {
		.in = iov,
		.nin = chain->nread,
		.out = iov + chain->nread,
		.nout = chain->nwrite,
		.plain = !chain->windows,
		.cookie = kept,
	};
	int64_t written = !fs->fuse                      ? refuse(chain, -ENODEV)
	                  : may_wait(fs, chain) && !kept ? refuse(chain, -ENOLCK)
	                                                 : sm_fuse_serve(fs->fuse, &request);
	ret->kept = written == -EINPROGRESS;
	if (ret->kept)
		return 0;
	if (kept)
		sm_fs_unkeep(&fs->waiting, kept);
	if (written < 0) {
		ret->failed = true;
		return (int)written;
	}
	/* Marked after the fact, which is before anybody asks: who looks for marks waits for this request. */
	sm_chain_slice(chain, true, 0, (uint64_t)written, iov);
	ret->written = (uint32_t)written;
	ret->bytes = chain->read_bytes + (uint64_t)written;
	return 0;
}

static void fs_reset(struct sm_virtio *device)
{
	if (fs_of(device)->fuse)
		sm_fuse_reset(fs_of(device)->fuse);
	sm_fs_drop(&fs_of(device)->waiting);
}

static void fs_tend(struct sm_virtio *device)
{
	sm_fs_complete(&fs_of(device)->waiting, device);
}

static bool fs_again(struct sm_virtio *device, struct sm_chain *ret_chain, unsigned *ret_queue)
{
	return sm_fs_again(&fs_of(device)->waiting, ret_chain, ret_queue);
}

/* What has its reply by then is completed, so that the rest is all that a save has to remember. */
static void fs_pause(struct sm_virtio *device, bool paused)
{
	struct fs *fs = fs_of(device);
	if (!fs->fuse || !fs->host_locks)
		return;
	sm_fuse_pause(fs->fuse, paused);
	sm_fs_complete(&fs->waiting, device);
}

static void fs_forget(struct sm_virtio *device)
{
	struct fs *fs = fs_of(device);
	if (fs->backed_later) {
		sm_fuse_free(fs->fuse);
		fs->fuse = NULL;
		fs->host_locks = false;
		fs->backed_later = false;
	}
	/* No file is there any more, but what the guest may have used as memory. */
	if (fs->base.shm.bytes)
		(void)madvise(fs->base.shm.hva, fs->base.shm.bytes, MADV_DONTNEED);
}

static void fs_save(struct sm_virtio *device, struct sm_buf *out)
{
	struct fs *fs = fs_of(device);
	sm_put_str(out, fs->tag);
	sm_put_u8(out, fs->fuse != NULL);
	if (!fs->fuse)
		return;
	sm_fuse_save(fs->fuse, out);
	sm_fs_waiting_save(&fs->waiting, device, out);
}

/* The guest's kernel knows the tag, and its file systems the session. */
static int fs_load(struct sm_virtio *device, struct sm_reader *in, struct sm_error *err)
{
	struct fs *fs = fs_of(device);
	char tag[TAG + 1];
	sm_get_str(in, tag, sizeof tag);
	uint8_t backed = sm_get_u8(in);
	if (in->failed || backed > 1)
		return sm_error_set(err, EBADMSG, "mount %s: malformed state", fs->tag);
	if (strcmp(tag, fs->tag) != 0)
		return sm_error_set(err, EBADMSG, "mount %s: saved as %s", fs->tag, tag);
	if (!backed)
		return 0;
	if (!fs->fuse)
		return sm_error_set(err, EBADMSG, "mount %s: saved with a folder, and there is none", fs->tag);
	int code = sm_fuse_load(fs->fuse, in, err);
	if (code >= 0)
		code = sm_fs_waiting_load(&fs->waiting, device, in, err);
	return code < 0 ? sm_error_context(err, "mount %s", fs->tag) : 0;
}

static void fs_close(struct sm_virtio *device)
{
	sm_fuse_free(fs_of(device)->fuse);
	sm_fs_waiting_done(&fs_of(device)->waiting);
}

static int put_behind(struct fs *fs, const struct sm_mount *mount, struct sm_error *err)
{
	const struct sm_fuse_window window = { .hva = fs->base.shm.hva, .bytes = fs->base.shm.bytes };
	int code = sm_fuse_new(mount, &window, &fs->fuse, err);
	if (code < 0)
		return sm_error_context(err, "mount %s", fs->tag);
	fs->host_locks = mount->host_locks;
	if (fs->host_locks)
		sm_fuse_set_later(fs->fuse, replied, fs);
	return 0;
}

static int fs_back(struct sm_virtio *device, const struct sm_backing *backing, struct sm_error *err)
{
	struct fs *fs = fs_of(device);
	if (!backing->mount)
		return sm_error_set(err, ENOTSUP, "mount %s: a folder is needed", fs->tag);
	if (fs->fuse)
		return sm_error_set(err, EBUSY, "mount %s: the slot has a folder already", fs->tag);
	int code = put_behind(fs, backing->mount, err);
	fs->backed_later = code == 0;
	return code;
}

static const struct sm_virtio_ops fs_ops = {
	.id = DEVICE_ID,
	.nqueues = QUEUES,
	.config = fs_config,
	.serve = fs_serve,
	.tend = fs_tend,
	.again = fs_again,
	.pause = fs_pause,
	.reset = fs_reset,
	.forget = fs_forget,
	.save = fs_save,
	.load = fs_load,
	.back = fs_back,
	.close = fs_close,
};

unsigned sm_virtio_fs_mend(struct sm_virtio *device)
{
	unsigned mended = 0;
	if (device->ops != &fs_ops)
		return 0;
	/* Not while something else is put behind the slot. */
	pthread_mutex_lock(&device->lock);
	if (fs_of(device)->fuse)
		mended = sm_fuse_mend(fs_of(device)->fuse);
	pthread_mutex_unlock(&device->lock);
	return mended;
}

bool sm_virtio_fs_stats(struct sm_virtio *device, struct sm_fuse_stats *ret)
{
	bool found = false;
	*ret = (struct sm_fuse_stats){ 0 };
	if (device->ops != &fs_ops)
		return false;
	pthread_mutex_lock(&device->lock);
	if (fs_of(device)->fuse) {
		sm_fuse_stats(fs_of(device)->fuse, ret);
		found = true;
	}
	pthread_mutex_unlock(&device->lock);
	return found;
}

int sm_virtio_fs_new(const struct sm_virtio_env *env, const char *tag, const struct sm_mount *mount,
                     struct sm_virtio **ret, struct sm_error *err)
{
	*ret = NULL;
	if (mount && mount->tag)
		tag = mount->tag;
	if (!tag[0] || strlen(tag) > TAG)
		return sm_error_set(err, EINVAL, "mount tag '%s': 1 to %u bytes", tag, TAG);
	struct fs *fs;
	int code = sm_virtio_create(sizeof *fs, env, &fs_ops, &fs, err);
	if (code < 0)
		return code;
	sm_fs_waiting_init(&fs->waiting);
	memcpy(fs->tag, tag, strlen(tag) + 1);
	if (!mount || mount->dax)
		fs->base.shm = env->window;
	if (mount)
		code = put_behind(fs, mount, err);
	if (code < 0) {
		sm_virtio_free(&fs->base);
		return code;
	}
	*ret = &fs->base;
	return 0;
}
