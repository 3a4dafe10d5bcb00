/* Folders.  The guest's offsets are the host file system's own (d_off), so they mean the same whatever else is made or
 * removed meanwhile, and after a restore. */
#include "fuse/internal.h"

#include "base/fd.h"

#include <dirent.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REPLY_MAX 32768 /* of one; the guest asks again */
#define HOST_MAX  16384

struct host_entry {
	uint64_t ino;
	int64_t off;
	uint16_t len;
	uint8_t type;
	char name[];
};

int64_t sm_fuse_do_opendir(struct sm_fuse_call *call)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_open_out *out = (void *)call->reply.body;
	struct sm_fuse_hold hold;
	int code = sm_fuse_hold(fuse, call->head.nodeid, &hold);
	if (code < 0)
		return code;
	code = hold.node->is.type == S_IFDIR ? sm_fuse_reopen(fuse, hold.fd, S_IFDIR, O_RDONLY) : -ENOTDIR;
	*out = (struct fuse_open_out){
		.open_flags = fuse->mount.cache == SM_MOUNT_CACHE_ALWAYS ? FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR : 0,
	};
	if (code >= 0)
		code = sm_fuse_handle_new(fuse, hold.node, code, O_RDONLY, true, &out->fh);
	sm_fuse_drop(fuse, &hold);
	return code < 0 ? code : (int)sizeof *out;
}

int64_t sm_fuse_do_releasedir(struct sm_fuse_call *call)
{
	struct fuse_release_in in;
	memcpy(&in, call->arg, sizeof in);
	return sm_fuse_handle_close(call->fuse, in.fh, call->head.nodeid, true);
}

struct listing {
	struct sm_fuse_call *call;
	struct sm_fuse_handle *handle;
	struct sm_fuse_hold hold; /* plus: to look up in */
	bool plus;
	size_t max, len;
	uint8_t *reply;
};

/* One entry more, if there is room. */
static bool put_entry(struct listing *list, const char *name, uint64_t ino, uint64_t off, uint8_t type)
{
	struct sm_fuse *fuse = list->call->fuse;
	size_t name_len = strlen(name), head = list->plus ? sizeof(struct fuse_entry_out) : 0;
	size_t size = FUSE_REC_ALIGN(head + FUSE_NAME_OFFSET + name_len);
	if (size > list->max - list->len)
		return false;
	uint8_t *at = list->reply + list->len;
	memset(at, 0, size);
	bool dots = !strcmp(name, ".") || !strcmp(name, "..");
	/* What cannot be looked up is an entry without a node: the guest will ask for it alone, and hear why.  So is
	 * everything where nodes get scarce: the last ones are for those that are asked for. */
	if (list->plus && !dots && !sm_fuse_nodes_scarce(fuse) &&
	    sm_fuse_lookup(fuse, &list->hold, name, (void *)at) < 0)
		memset(at, 0, head);
	const struct fuse_entry_out *entry = (void *)at;
	struct fuse_dirent *dirent = (void *)(at + head);
	if (head && entry->nodeid) {
		ino = entry->attr.ino;
		type = IFTODT(entry->attr.mode);
	}
	/* What is above the root is not the guest's to know. */
	if (!strcmp(name, "..") && list->handle->node == &fuse->nodes.root)
		ino = fuse->nodes.root.is.ino;
	if (type == DT_LNK && fuse->mount.symlinks == SM_MOUNT_SYMLINKS_FOLLOW && !(head && entry->nodeid))
		type = DT_UNKNOWN;
	dirent->ino = ino;
	dirent->off = off;
	dirent->namelen = (uint32_t)name_len;
	dirent->type = type;
	memcpy(dirent->name, name, name_len);
	list->len += size;
	return true;
}

/* From the folder of a single file. */
static int list_only(struct listing *list, uint64_t offset)
{
	struct sm_fuse *fuse = list->call->fuse;
	const char *const names[] = { ".", "..", fuse->only };
	uint64_t root = fuse->nodes.root.is.ino;
	for (; offset < 3; offset++)
		if (!put_entry(list, names[offset], offset < 2 ? root : root + 1, offset + 1,
		               offset < 2 ? DT_DIR : DT_REG))
			break;
	return 0;
}

static int list_host(struct listing *list, uint64_t offset)
{
	struct sm_fuse_handle *handle = list->handle;
	_Alignas(8) char buffer[HOST_MAX];
	/* Not much more than what will have room: the rest would be read again. */
	size_t want = list->plus ? list->max / 4 : list->max;
	want = want < 1024 ? 1024 : want > sizeof buffer ? sizeof buffer : want;
	if (offset > INT64_MAX)
		return sm_fuse_hostile(list->call->fuse, -EINVAL);
	/* Where ext4 is first read at is the beginning to it, if that is the end: it then has nothing at 0 either.
	 * After a restore the guest goes on anywhere. */
	if (handle->at == -2 && offset > 0 && syscall(SYS_getdents64, handle->fd, buffer, sizeof buffer) < 0)
		return -errno;
	if (handle->at != (int64_t)offset && lseek(handle->fd, (off_t)offset, SEEK_SET) < 0)
		return -errno;
	for (;;) {
		handle->at = -1;
		long len = syscall(SYS_getdents64, handle->fd, buffer, want);
		if (len < 0)
			return list->len ? 0 : -errno;
		if (!len) {
			handle->at = (int64_t)offset;
			return 0;
		}
		for (long at = 0; at < len;) {
			const struct host_entry *entry = (const void *)(buffer + at);
			if (!put_entry(list, entry->name, entry->ino, (uint64_t)entry->off, entry->type))
				return list->len ? 0 : -EINVAL;
			offset = (uint64_t)entry->off;
			at += entry->len;
		}
		handle->at = (int64_t)offset;
	}
}

static int64_t read_folder(struct sm_fuse_call *call, bool plus)
{
	struct sm_fuse *fuse = call->fuse;
	struct fuse_read_in in;
	_Alignas(8) uint8_t reply[REPLY_MAX];
	struct listing list = { .call = call, .plus = plus, .reply = reply };
	memcpy(&in, call->arg, sizeof in);
	size_t room = in.size < call->room ? in.size : call->room;
	list.max = room < sizeof reply ? room : sizeof reply;
	int64_t result = sm_fuse_handle_get(fuse, in.fh, call->head.nodeid, true, &list.handle);
	if (result >= 0 && plus)
		result = sm_fuse_hold_node(fuse, list.handle->node, &list.hold);
	if (result >= 0) {
		pthread_mutex_lock(&list.handle->lock);
		result = fuse->only ? list_only(&list, in.offset) : list_host(&list, in.offset);
		pthread_mutex_unlock(&list.handle->lock);
	}
	sm_fuse_drop(fuse, &list.hold);
	sm_fuse_handle_put(fuse, list.handle);
	if (result >= 0)
		result = sm_fuse_body(call);
	if (result >= 0)
		result = sm_fuse_span_put(&call->out, list.reply, list.len);
	return result < 0 ? result : (int64_t)list.len;
}

int64_t sm_fuse_do_readdir(struct sm_fuse_call *call)
{
	return read_folder(call, false);
}

int64_t sm_fuse_do_readdirplus(struct sm_fuse_call *call)
{
	return read_folder(call, true);
}
