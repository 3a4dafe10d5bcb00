/* The DAX window: granules of 2 MiB, each anonymous memory or a piece of a file, shared with the host's page cache. */
#include "fuse/dax.h"

#include "base/fd.h"
#include "fuse/internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define ONES_MAX 512 /* of one REMOVEMAPPING: Linux sends a page of them at most */

struct sm_fuse_dax *sm_fuse_dax_new(struct sm_fuse *fuse, int *ret_code)
{
	*ret_code = 0;
	if (!fuse->mount.dax || !fuse->window.hva)
		return NULL;
	size_t count = fuse->window.bytes / SM_FUSE_GRANULE;
	struct sm_fuse_dax *dax = calloc(1, sizeof *dax + count * sizeof dax->granules[0]);
	if (!dax) {
		*ret_code = -ENOMEM;
		return NULL;
	}
	dax->count = count;
	pthread_mutex_init(&dax->lock, NULL);
	return dax;
}

static char *address(struct sm_fuse *fuse, size_t index)
{
	return (char *)fuse->window.hva + index * (size_t)SM_FUSE_GRANULE;
}

/* Never a hole: what the host would put there next, the guest could reach.  Where the kernel refuses even that, it has
 * not begun. */
static void make_anonymous(void *at, size_t len)
{
	int prot = PROT_READ | PROT_WRITE;
	for (int i = 0; i < 16; i++, prot = PROT_NONE)
		if (mmap(at, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED)
			break;
	madvise(at, len, MADV_DONTFORK);
}

/* With the lock held; what is mapped there stays, for something else to take its place. */
static bool let_go(struct sm_fuse *fuse, size_t index)
{
	struct sm_fuse_granule *granule = &fuse->dax->granules[index];
	if (!granule->node)
		return false;
	sm_fuse_node_put(fuse, granule->node);
	*granule = (struct sm_fuse_granule){ 0 };
	fuse->dax->mapped--;
	return true;
}

static void note(struct sm_fuse *fuse, size_t index, struct sm_fuse_node *node, uint64_t offset, uint64_t size,
                 bool writes)
{
	uint64_t left = size > offset ? size - offset : 0;
	fuse->dax->granules[index] = (struct sm_fuse_granule){
		.node = sm_fuse_node_get(fuse, node->id),
		.offset = offset,
		.valid = left < SM_FUSE_GRANULE ? (uint32_t)left : SM_FUSE_GRANULE,
		.writes = writes,
	};
	fuse->dax->mapped++;
}

/* A file's [offset, offset + len) over granules from `index` on.  With the lock held. */
static int map_file(struct sm_fuse *fuse, const struct sm_fuse_hold *hold, size_t index, uint64_t offset, size_t len,
                    bool writes)
{
	struct statx st;
	if (hold->node->is.type != S_IFREG)
		return -EINVAL;
	int fd = sm_fuse_reopen(fuse, hold->fd, S_IFREG, writes ? O_RDWR : O_RDONLY);
	int code = fd < 0 ? fd : sm_fuse_stat(fd, &st);
	if (code >= 0 && offset >= st.stx_size)
		code = sm_fuse_hostile(fuse, -EINVAL);
	if (code < 0) {
		sm_fd_close(&fd);
		return code;
	}
	for (size_t i = 0; i < len / SM_FUSE_GRANULE; i++)
		let_go(fuse, index + i);
	int prot = PROT_READ | (writes ? PROT_WRITE : 0);
	if (mmap(address(fuse, index), len, prot, MAP_SHARED | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED) {
		code = -errno;
		make_anonymous(address(fuse, index), len);
	} else {
		madvise(address(fuse, index), len, MADV_DONTFORK);
		for (size_t i = 0; i < len / SM_FUSE_GRANULE; i++)
			note(fuse, index + i, hold->node, offset + i * (uint64_t)SM_FUSE_GRANULE, st.stx_size, writes);
	}
	sm_fd_close(&fd);
	return code;
}

static bool is_whole(uint64_t value)
{
	return value % SM_FUSE_GRANULE == 0;
}

int64_t sm_fuse_do_setupmapping(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_setupmapping_in in;
	struct sm_fuse_hold hold;
	memcpy(&in, call->arg, sizeof in);
	bool writes = in.flags & FUSE_SETUPMAPPING_FLAG_WRITE;
	if (!fuse->dax || !sm_fuse_agreed(fuse, FUSE_MAP_ALIGNMENT))
		return -ENOSYS;
	if (!in.len || !is_whole(in.len) || !is_whole(in.moffset) || !is_whole(in.foffset) ||
	    !sm_fuse_add(in.moffset, in.len, fuse->window.bytes) || !sm_fuse_add(in.foffset, in.len, INT64_MAX) ||
	    in.flags & ~(FUSE_SETUPMAPPING_FLAG_WRITE | FUSE_SETUPMAPPING_FLAG_READ))
		return sm_fuse_hostile(fuse, -EINVAL);
	if (writes && fuse->mount.readonly)
		return -EROFS;
	/* Its handle is not used: Linux gives none. */
	int code = sm_fuse_hold(fuse, call->head.nodeid, &hold);
	if (code < 0)
		return code;
	pthread_mutex_lock(&fuse->dax->lock);
	code = map_file(fuse, &hold, in.moffset / SM_FUSE_GRANULE, in.foffset, in.len, writes);
	pthread_mutex_unlock(&fuse->dax->lock);
	sm_fuse_drop(fuse, &hold);
	return code;
}

int64_t sm_fuse_do_removemapping(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_removemapping_in in;
	struct fuse_removemapping_one one;
	memcpy(&in, call->arg, sizeof in);
	if (!fuse->dax)
		return -ENOSYS;
	if (!in.count || in.count > ONES_MAX || sm_fuse_span_len(&call->in) != in.count * sizeof one)
		return sm_fuse_hostile(fuse, -EINVAL);
	for (uint32_t i = 0; i < in.count; i++) {
		if (sm_fuse_span_get(&call->in, &one, sizeof one) < 0)
			return sm_fuse_hostile(fuse, -EFAULT);
		if (!one.len || !is_whole(one.len) || !is_whole(one.moffset) ||
		    !sm_fuse_add(one.moffset, one.len, fuse->window.bytes))
			return sm_fuse_hostile(fuse, -EINVAL);
		pthread_mutex_lock(&fuse->dax->lock);
		for (size_t k = 0; k < one.len / SM_FUSE_GRANULE; k++)
			if (let_go(fuse, one.moffset / SM_FUSE_GRANULE + k))
				make_anonymous(address(fuse, one.moffset / SM_FUSE_GRANULE + k), SM_FUSE_GRANULE);
		pthread_mutex_unlock(&fuse->dax->lock);
	}
	return 0;
}

void sm_fuse_dax_reset(struct sm_fuse *fuse)
{
	if (!fuse->dax)
		return;
	pthread_mutex_lock(&fuse->dax->lock);
	for (size_t i = 0; i < fuse->dax->count; i++)
		let_go(fuse, i);
	/* The guest may have used the rest as memory. */
	make_anonymous(fuse->window.hva, fuse->window.bytes);
	pthread_mutex_unlock(&fuse->dax->lock);
}

void sm_fuse_dax_free(struct sm_fuse *fuse)
{
	if (!fuse->dax)
		return;
	sm_fuse_dax_reset(fuse);
	pthread_mutex_destroy(&fuse->dax->lock);
	free(fuse->dax);
	fuse->dax = NULL;
}

void sm_fuse_dax_restore(struct sm_fuse *fuse, size_t index, struct sm_fuse_node *node, uint64_t offset, bool writes)
{
	struct sm_fuse_hold hold;
	int code = sm_fuse_hold_node(fuse, node, &hold);
	pthread_mutex_lock(&fuse->dax->lock);
	if (code >= 0)
		code = map_file(fuse, &hold, index, offset, SM_FUSE_GRANULE, writes && !fuse->mount.readonly);
	if (code < 0) {
		note(fuse, index, node, offset, 0, writes);
		fuse->dax->granules[index].mended = true;
		sm_fuse_count(&fuse->counters.stale);
	}
	pthread_mutex_unlock(&fuse->dax->lock);
	sm_fuse_drop(fuse, &hold);
}

/* Files that became shorter --------------------------------------------------------------------------------------- */

/* Where the kernel cannot read for us, a vCPU cannot either. */
static bool is_there(char *at)
{
	char byte;
	const struct iovec mine = { &byte, 1 }, other = { at, 1 };
	return process_vm_readv(getpid(), &mine, 1, &other, 1, 0) == 1;
}

/* Bytes of a granule that are there, in pages: a file ends once. */
static size_t reach(char *at, size_t page)
{
	size_t low = 0, high = SM_FUSE_GRANULE / page;
	if (is_there(at + SM_FUSE_GRANULE - page))
		return SM_FUSE_GRANULE;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (is_there(at + middle * page))
			low = middle + 1;
		else
			high = middle;
	}
	return low * page;
}

unsigned sm_fuse_mend(struct sm_fuse *fuse)
{
	struct sm_fuse_dax *dax = fuse->dax;
	unsigned mended = 0;
	if (!dax)
		return 0;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	pthread_mutex_lock(&dax->lock);
	/* First those that are shorter than when they were mapped: the end of a file that may yet grow stays its own.
	 * If none is, one has grown meanwhile and shrunk again, and which is not known. */
	for (int any = 0; any < 2 && !mended; any++)
		for (size_t i = 0; i < dax->count; i++) {
			struct sm_fuse_granule *granule = &dax->granules[i];
			if (!granule->node || granule->mended)
				continue;
			char *at = address(fuse, i);
			size_t there = reach(at, page);
			if (there == SM_FUSE_GRANULE || (!any && there >= granule->valid))
				continue;
			make_anonymous(at + there, SM_FUSE_GRANULE - there);
			granule->mended = true;
			mended++;
			sm_fuse_count(&fuse->counters.mended);
		}
	pthread_mutex_unlock(&dax->lock);
	return mended;
}
