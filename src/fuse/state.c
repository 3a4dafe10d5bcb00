/* A session as a record.  Whatever is loaded could have been written by anybody: every number is checked, and nothing
 * but files of DAX mappings is opened. */
#include "fuse/dax.h"
#include "fuse/internal.h"
#include "fuse/lock.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define TAG       SM_TAG('F', 'U', 'S', 'E')
#define VERSION   1
#define WHAT      "mount's session"
#define NODE_MIN  51 /* bytes of one at least: what no count may lie about */
#define OTHER_MIN 14

enum { AT_HOME = 1, IS_GONE = 2 };

/* Saving ---------------------------------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
	const struct sm_fuse_node *const *one = a, *const *other = b;
	return (*one)->id < (*other)->id ? -1 : (*one)->id > (*other)->id;
}

/* On the root's own mount: its device and mount have other numbers elsewhere. */
static bool is_home(const struct sm_fuse *fuse, const struct sm_fuse_node *node)
{
	const struct sm_fuse_identity *root = &fuse->nodes.root.is;
	return node->is.dev == root->dev && node->is.mnt == root->mnt;
}

static void put_node(const struct sm_fuse *fuse, struct sm_buf *out, const struct sm_fuse_node *node)
{
	bool home = is_home(fuse, node);
	sm_put_u64(out, node->id);
	sm_put_u64(out, node->parent->id);
	sm_put_u64(out, node->via);
	sm_put_u64(out, node->lookups);
	sm_put_u8(out, (home ? AT_HOME : 0) | (node->unkeyed ? IS_GONE : 0));
	if (!home)
		sm_put_u64(out, node->is.dev);
	sm_put_u64(out, node->is.ino);
	sm_put_u64(out, (uint64_t)node->is.born);
	sm_put_u16(out, (uint16_t)node->is.type);
	sm_put_str(out, node->name);
}

static int put_nodes(struct sm_fuse *fuse, struct sm_buf *out)
{
	struct sm_fuse_nodes *nodes = &fuse->nodes;
	struct sm_fuse_node **all = malloc((nodes->count + 1) * sizeof(struct sm_fuse_node *));
	size_t n = 0;
	if (!all)
		return -ENOMEM;
	for (size_t i = 0; i < nodes->buckets; i++)
		for (struct sm_fuse_node *node = nodes->by_id[i]; node; node = node->next_id)
			if (node != &nodes->root)
				all[n++] = node;
	qsort(all, n, sizeof(struct sm_fuse_node *), by_id);
	sm_put_u64(out, nodes->next);
	sm_put_u32(out, (uint32_t)n);
	for (size_t i = 0; i < n; i++)
		put_node(fuse, out, all[i]);
	free(all);
	return 0;
}

static void put_handles(const struct sm_fuse *fuse, struct sm_buf *out)
{
	const struct sm_fuse_handles *handles = &fuse->handles;
	sm_put_u32(out, (uint32_t)handles->count);
	for (size_t slot = 0; slot < handles->nslots; slot++) {
		const struct sm_fuse_handle *handle = handles->slots[slot];
		if (!handle)
			continue;
		sm_put_u64(out, handle->id);
		sm_put_u64(out, handle->node->id);
		sm_put_u32(out, handle->flags);
		sm_put_u8(out, handle->folder);
		sm_put_u8(out, (uint8_t)handle->flock);
	}
}

static void put_mappings(const struct sm_fuse *fuse, struct sm_buf *out)
{
	const struct sm_fuse_dax *dax = fuse->dax;
	sm_put_u32(out, dax ? (uint32_t)dax->mapped : 0);
	for (size_t i = 0; dax && i < dax->count; i++) {
		const struct sm_fuse_granule *granule = &dax->granules[i];
		if (!granule->node)
			continue;
		sm_put_u32(out, (uint32_t)i);
		sm_put_u64(out, granule->node->id);
		sm_put_u64(out, granule->offset);
		sm_put_u8(out, granule->writes);
	}
}

static int by_owner(const void *a, const void *b)
{
	const struct sm_fuse_owner *const *one = a, *const *other = b;
	if ((*one)->node->id != (*other)->node->id)
		return (*one)->node->id < (*other)->node->id ? -1 : 1;
	return (*one)->owner < (*other)->owner ? -1 : (*one)->owner > (*other)->owner;
}

static int put_locks(const struct sm_fuse *fuse, struct sm_buf *out)
{
	struct sm_fuse_locks *locks = fuse->locks;
	size_t n = 0;
	sm_put_u32(out, locks ? (uint32_t)locks->nowners : 0);
	if (!locks || !locks->nowners)
		return 0;
	struct sm_fuse_owner **all = malloc(locks->nowners * sizeof(struct sm_fuse_owner *));
	if (!all)
		return -ENOMEM;
	for (size_t i = 0; i < SM_FUSE_LOCK_BUCKETS; i++)
		for (struct sm_fuse_owner *owner = locks->owners[i]; owner; owner = owner->next)
			all[n++] = owner;
	qsort(all, n, sizeof(struct sm_fuse_owner *), by_owner);
	for (size_t i = 0; i < n; i++) {
		sm_put_u64(out, all[i]->node->id);
		sm_put_u64(out, all[i]->owner);
		sm_put_u32(out, all[i]->nranges);
		for (uint32_t k = 0; k < all[i]->nranges; k++) {
			sm_put_u64(out, all[i]->ranges[k].first);
			sm_put_u64(out, all[i]->ranges[k].last);
			sm_put_u8(out, (uint8_t)all[i]->ranges[k].type);
		}
	}
	free(all);
	return 0;
}

void sm_fuse_save(struct sm_fuse *fuse, struct sm_buf *out)
{
	size_t record = sm_record_begin(out, TAG, VERSION);
	sm_put_u8(out, fuse->ready);
	sm_put_u32(out, fuse->minor);
	sm_put_u64(out, fuse->flags);
	int code = put_nodes(fuse, out);
	put_handles(fuse, out);
	put_mappings(fuse, out);
	if (fuse->locks)
		pthread_mutex_lock(&fuse->locks->lock);
	code = code < 0 ? code : put_locks(fuse, out);
	if (fuse->locks)
		pthread_mutex_unlock(&fuse->locks->lock);
	sm_record_end(out, record);
	if (code < 0 && !out->failed)
		out->failed = code;
}

/* Loading --------------------------------------------------------------------------------------------------------- */

static int bad(struct sm_error *err, const char *field)
{
	return sm_error_set(err, EBADMSG, WHAT ": %s", field);
}

/* How many follow; no more than there are bytes for. */
static bool get_count(struct sm_reader *in, size_t least, uint64_t max, uint32_t *ret)
{
	*ret = sm_get_u32(in);
	return !in->failed && *ret <= max && *ret <= (in->len - in->pos) / least;
}

static bool is_name(const char *name, size_t len)
{
	return len <= SM_FUSE_NAME_MAX && !memchr(name, '/', len) && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static bool is_type(uint32_t type)
{
	return type == S_IFREG || type == S_IFDIR || type == S_IFLNK || type == S_IFIFO || type == S_IFSOCK ||
	       type == S_IFCHR || type == S_IFBLK;
}

struct loaded {
	struct sm_fuse_node *node;
	uint64_t parent;
};

static int get_node(struct sm_fuse *fuse, struct sm_reader *in, uint64_t next, struct loaded *ret, struct sm_error *err)
{
	const struct sm_fuse_identity *root = &fuse->nodes.root.is;
	char name[SM_FUSE_NAME_MAX + 1];
	uint64_t id = sm_get_u64(in);
	ret->parent = sm_get_u64(in);
	uint64_t via = sm_get_u64(in), lookups = sm_get_u64(in);
	uint8_t flags = sm_get_u8(in);
	struct sm_fuse_identity is = { .dev = root->dev, .mnt = root->mnt };
	if (!(flags & AT_HOME)) {
		is.dev = sm_get_u64(in);
		is.mnt = 0;
	}
	is.ino = sm_get_u64(in);
	is.born = (int64_t)sm_get_u64(in);
	is.type = sm_get_u16(in);
	sm_get_str(in, name, sizeof name);
	if (in->failed || flags & ~(AT_HOME | IS_GONE))
		return bad(err, "a node is cut short");
	if (id <= FUSE_ROOT_ID || id >= next || !is_name(name, strlen(name)) || !is_type(is.type) ||
	    (via && (via != ret->parent || is.type != S_IFDIR)))
		return bad(err, "a node that cannot be");
	ret->node = sm_fuse_node_restore(fuse, id, &is, via, name);
	if (!ret->node)
		return bad(err, "a node twice, or no memory for one");
	ret->node->lookups = lookups;
	if (flags & IS_GONE)
		sm_fuse_node_unkey(fuse, ret->node);
	return 0;
}

/* Parents, now that all are there: folders, and above each is the root in the end.  What is wrong, or NULL. */
static const char *link_all(struct sm_fuse *fuse, const struct loaded *all, uint32_t n)
{
	const struct sm_fuse_node *root = &fuse->nodes.root;
	for (uint32_t i = 0; i < n; i++) {
		struct sm_fuse_node *parent = sm_fuse_node_find(fuse, all[i].parent);
		if (!parent || parent->is.type != S_IFDIR)
			return "a node without a folder";
		all[i].node->parent = parent;
		parent->refs++;
	}
	/* Each walk stops where one before it came by: `pins` is its number. */
	for (uint32_t i = 0; i < n; i++) {
		struct sm_fuse_node *node = all[i].node;
		for (; node != root && !node->pins; node = node->parent)
			node->pins = i + 1;
		if (node != root && node->pins == i + 1)
			return "nodes in a circle";
	}
	return NULL;
}

static int link_nodes(struct sm_fuse *fuse, const struct loaded *all, uint32_t n, struct sm_error *err)
{
	const char *wrong = link_all(fuse, all, n);
	for (uint32_t i = 0; i < n; i++) {
		struct sm_fuse_node *node = all[i].node;
		node->pins = 0;
		/* In a circle they would keep each other. */
		if (wrong && node->parent) {
			node->parent->refs--;
			node->parent = NULL;
		}
	}
	return wrong ? bad(err, wrong) : 0;
}

static int get_nodes(struct sm_fuse *fuse, struct sm_reader *in, struct loaded **ret_all, uint32_t *ret_n,
                     struct sm_error *err)
{
	uint64_t next = sm_get_u64(in);
	uint32_t n;
	if (!get_count(in, NODE_MIN, fuse->nodes.max, &n) || next <= FUSE_ROOT_ID || next > INT64_MAX)
		return bad(err, "how many nodes");
	struct loaded *all = *ret_all = calloc(n + 1u, sizeof *all);
	if (!all)
		return sm_error_set(err, ENOMEM, WHAT ": out of memory");
	for (*ret_n = 0; *ret_n < n; ++*ret_n) {
		int code = get_node(fuse, in, next, &all[*ret_n], err);
		if (code < 0)
			return code;
	}
	fuse->nodes.next = next;
	return link_nodes(fuse, all, n, err);
}

static int get_handles(struct sm_fuse *fuse, struct sm_reader *in, struct sm_error *err)
{
	uint32_t n;
	if (!get_count(in, 22, fuse->handles.max, &n))
		return bad(err, "how many handles");
	for (uint32_t i = 0; i < n; i++) {
		uint64_t id = sm_get_u64(in);
		struct sm_fuse_node *node = sm_fuse_node_find(fuse, sm_get_u64(in));
		uint32_t flags = sm_get_u32(in);
		uint8_t folder = sm_get_u8(in), lock = sm_get_u8(in);
		if (in->failed || !node || folder > 1 || node->is.type != (folder ? S_IFDIR : S_IFREG) ||
		    flags != sm_fuse_host_flags(fuse, flags) || (folder && (flags || lock != F_UNLCK)) ||
		    (lock != F_UNLCK && ((lock != F_RDLCK && lock != F_WRLCK) || !fuse->locks)) ||
		    (fuse->mount.readonly && (flags & O_ACCMODE) != O_RDONLY))
			return bad(err, "a handle that cannot be");
		if (sm_fuse_handle_restore(fuse, id, node, flags, lock, folder) < 0)
			return bad(err, "a handle twice, or no memory for one");
	}
	return 0;
}

static int get_mappings(struct sm_fuse *fuse, struct sm_reader *in, struct sm_error *err)
{
	uint32_t n, least = 0;
	if (!get_count(in, 21, fuse->dax ? fuse->dax->count : 0, &n))
		return bad(err, "how many mappings");
	for (uint32_t i = 0; i < n; i++) {
		uint32_t index = sm_get_u32(in);
		struct sm_fuse_node *node = sm_fuse_node_find(fuse, sm_get_u64(in));
		uint64_t offset = sm_get_u64(in);
		uint8_t writes = sm_get_u8(in);
		if (in->failed || index < least || index >= fuse->dax->count || !node || node->is.type != S_IFREG ||
		    offset % SM_FUSE_GRANULE || offset > INT64_MAX - SM_FUSE_GRANULE || writes > 1 ||
		    (writes && fuse->mount.readonly))
			return bad(err, "a mapping that cannot be");
		least = index + 1;
		sm_fuse_dax_restore(fuse, index, node, offset, writes);
	}
	return 0;
}

static int get_ranges(struct sm_reader *in, struct sm_fuse_owner *owner, struct sm_error *err)
{
	uint32_t n;
	if (!get_count(in, 17, SM_FUSE_RANGES_MAX, &n) || !n)
		return bad(err, "how many locks");
	owner->ranges = calloc(n, sizeof *owner->ranges);
	if (!owner->ranges)
		return sm_error_set(err, ENOMEM, WHAT ": out of memory");
	for (uint64_t least = 0; owner->nranges < n; owner->nranges++) {
		struct sm_fuse_range *range = &owner->ranges[owner->nranges];
		*range = (struct sm_fuse_range){ sm_get_u64(in), sm_get_u64(in), 0 };
		range->type = sm_get_u8(in);
		if (in->failed || range->first < least || range->first > range->last || range->last > INT64_MAX ||
		    (range->type != F_RDLCK && range->type != F_WRLCK))
			return bad(err, "a lock that cannot be");
		least = range->last + 1;
	}
	return 0;
}

static int get_locks(struct sm_fuse *fuse, struct sm_reader *in, struct sm_error *err)
{
	uint32_t n;
	if (!get_count(in, OTHER_MIN + 6, fuse->locks ? SM_FUSE_OWNERS_MAX : 0, &n))
		return bad(err, "how many owners of locks");
	for (uint32_t i = 0; i < n; i++) {
		struct sm_fuse_node *node = sm_fuse_node_find(fuse, sm_get_u64(in));
		uint64_t id = sm_get_u64(in);
		struct sm_fuse_owner *owner =
		    node && node->is.type == S_IFREG ? sm_fuse_locks_restore(fuse, node, id) : NULL;
		if (!owner)
			return bad(err, "an owner of locks that cannot be");
		int code = get_ranges(in, owner, err);
		if (code < 0)
			return code;
	}
	if (fuse->locks)
		fuse->locks->pending = n > 0;
	return 0;
}

static int get_all(struct sm_fuse *fuse, struct sm_reader *in, struct loaded **all, struct sm_error *err)
{
	uint8_t ready = sm_get_u8(in);
	uint32_t minor = sm_get_u32(in), n = 0;
	uint64_t flags = sm_get_u64(in);
	if (in->failed || ready > 1 || (ready ? minor < SM_FUSE_MINOR_MIN || minor > SM_FUSE_MINOR : minor || flags))
		return bad(err, "a protocol that it did not speak");
	if (flags & ~sm_fuse_able(fuse))
		return bad(err, "the guest relies on what this mount does not do");
	/* What handles are opened with depends on it. */
	fuse->flags = flags;
	fuse->minor = minor;
	int code = get_nodes(fuse, in, all, &n, err);
	if (code >= 0)
		code = get_handles(fuse, in, err);
	sm_fuse_handles_relist(fuse); /* whatever became of it: the reset counts on the free ones */
	if (code >= 0)
		code = get_mappings(fuse, in, err);
	if (code >= 0)
		code = get_locks(fuse, in, err);
	for (uint32_t i = 0; i < n && code >= 0; i++)
		if (!(*all)[i].node->lookups && !(*all)[i].node->refs)
			code = bad(err, "a node that nobody knows");
	if (code >= 0)
		code = sm_record_close(in, WHAT, err);
	if (code >= 0)
		fuse->ready = ready;
	return code;
}

int sm_fuse_load(struct sm_fuse *fuse, struct sm_reader *in, struct sm_error *err)
{
	struct sm_reader record;
	struct loaded *all = NULL;
	if (fuse->ready || fuse->nodes.count)
		return sm_error_set(err, EINVAL, WHAT ": the server has one");
	int code = sm_record_open(in, TAG, VERSION, WHAT, &record, err);
	if (code < 0)
		return code;
	code = get_all(fuse, &record, &all, err);
	free(all);
	if (code < 0)
		sm_fuse_session_end(fuse);
	return code;
}
