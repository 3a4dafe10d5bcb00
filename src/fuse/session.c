/* Where a session begins and ends. */
#include "fuse/dax.h"
#include "fuse/internal.h"
#include "fuse/lock.h"

#include <string.h>

/* What we can do for any guest that knows of it. */
#define ALWAYS \
	((uint64_t)(FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_HAS_IOCTL_DIR | \
	            FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | \
	            FUSE_PARALLEL_DIROPS | FUSE_ABORT_ERROR | FUSE_MAX_PAGES | FUSE_SUBMOUNTS | \
	            FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT | FUSE_INIT_EXT))

uint64_t sm_fuse_able(struct sm_fuse *fuse)
{
	uint64_t flags = ALWAYS;
	if (fuse->mount.writeback)
		flags |= FUSE_WRITEBACK_CACHE;
	if (fuse->mount.cache == SM_MOUNT_CACHE_ALWAYS)
		flags |= FUSE_CACHE_SYMLINKS;
	if (fuse->locks && fuse->later)
		flags |= FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS;
	if (fuse->dax)
		flags |= FUSE_MAP_ALIGNMENT | FUSE_HAS_INODE_DAX;
	return flags;
}

int64_t sm_fuse_do_init(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_init_in in = { 0 };
	struct fuse_init_out *out = (void *)call->reply.body;
	memcpy(&in, call->arg, call->arg_len);
	*out = (struct fuse_init_out){ .major = FUSE_KERNEL_VERSION, .minor = SM_FUSE_MINOR };
	if (in.major > FUSE_KERNEL_VERSION)
		return sizeof *out; /* it asks again, in ours */
	if (in.major < FUSE_KERNEL_VERSION || in.minor < SM_FUSE_MINOR_MIN)
		return -EPROTO;
	/* A driver that begins anew has forgotten everything, and what was still under way when the last one ended. */
	sm_fuse_session_end(fuse);
	uint64_t offered = (uint32_t)in.flags;
	if (offered & FUSE_INIT_EXT)
		offered |= (uint64_t)in.flags2 << 32;
	uint64_t agreed = offered & sm_fuse_able(fuse);
	out->minor = in.minor < SM_FUSE_MINOR ? in.minor : SM_FUSE_MINOR;
	out->max_readahead = in.max_readahead < SM_FUSE_WRITE_MAX ? in.max_readahead : SM_FUSE_WRITE_MAX;
	out->flags = (uint32_t)agreed;
	out->flags2 = (uint32_t)(agreed >> 32);
	out->max_background = 64;
	out->congestion_threshold = 48;
	out->max_write = agreed & FUSE_MAX_PAGES ? SM_FUSE_WRITE_MAX : 32 * 4096;
	out->max_pages = agreed & FUSE_MAX_PAGES ? SM_FUSE_PAGES_MAX : 0;
	out->time_gran = 1;
	out->map_alignment = agreed & FUSE_MAP_ALIGNMENT ? 21 : 0;
	atomic_store(&fuse->flags, agreed);
	atomic_store(&fuse->minor, out->minor);
	atomic_store_explicit(&fuse->ready, true, memory_order_release);
	return sizeof *out;
}

/* Requests that are still being served keep what they use until they are done. */
void sm_fuse_session_end(struct sm_fuse *fuse)
{
	atomic_store(&fuse->ready, false);
	sm_fuse_locks_reset(fuse);
	sm_fuse_dax_reset(fuse);
	sm_fuse_handles_reset(fuse);
	sm_fuse_nodes_reset(fuse);
	atomic_store(&fuse->flags, 0);
	atomic_store(&fuse->minor, 0);
}

int64_t sm_fuse_do_destroy(struct sm_fuse_call *call)
{
	/* A driver that goes waits for what is under way. */
	sm_fuse_locks_give_up(call->fuse);
	sm_fuse_session_end(call->fuse);
	return 0;
}
