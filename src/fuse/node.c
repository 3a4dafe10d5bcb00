#include "fuse/internal.h"

#include "base/fd.h"

#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>

#define BUCKETS_MIN 256

static size_t key_of(const struct sm_fuse_nodes *nodes, const struct sm_fuse_identity *is)
{
	uint64_t hash = (is->ino ^ is->dev << 40) * 0x9e3779b97f4a7c15u;
	return (hash >> 20 ^ hash >> 44) & (nodes->buckets - 1);
}

static size_t id_of(const struct sm_fuse_nodes *nodes, uint64_t id)
{
	return id & (nodes->buckets - 1);
}

/* The same file, as far as both say. */
static bool is_same(const struct sm_fuse_identity *a, const struct sm_fuse_identity *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->type == b->type && (a->mnt == b->mnt || !a->mnt || !b->mnt) &&
	       (a->born == b->born || !a->born || !b->born);
}

static void identify(const struct sm_fuse *fuse, const struct statx *st, struct sm_fuse_identity *ret)
{
	bool born = st->stx_mask & STATX_BTIME && !fuse->nodes.born_anew;
	*ret = (struct sm_fuse_identity){
		.dev = (uint64_t)st->stx_dev_major << 32 | st->stx_dev_minor,
		.ino = st->stx_ino,
		.mnt = st->stx_mask & STATX_MNT_ID ? st->stx_mnt_id : 0,
		.born = born ? (int64_t)((uint64_t)st->stx_btime.tv_sec * 1000000000u + st->stx_btime.tv_nsec) : 0,
		.type = st->stx_mode & S_IFMT,
	};
}

/* The table; with the lock held ---------------------------------------------------------------------------------- */

static void link_key(struct sm_fuse_nodes *nodes, struct sm_fuse_node *node)
{
	struct sm_fuse_node **at = &nodes->by_key[key_of(nodes, &node->is)];
	node->next_key = *at;
	*at = node;
}

static void unlink_key(struct sm_fuse_nodes *nodes, struct sm_fuse_node *node)
{
	if (node->unkeyed)
		return;
	struct sm_fuse_node **at = &nodes->by_key[key_of(nodes, &node->is)];
	while (*at != node)
		at = &(*at)->next_key;
	*at = node->next_key;
	node->unkeyed = true;
}

static void link_id(struct sm_fuse_nodes *nodes, struct sm_fuse_node *node)
{
	struct sm_fuse_node **at = &nodes->by_id[id_of(nodes, node->id)];
	node->next_id = *at;
	*at = node;
}

static void unlink_id(struct sm_fuse_nodes *nodes, struct sm_fuse_node *node)
{
	struct sm_fuse_node **at = &nodes->by_id[id_of(nodes, node->id)];
	while (*at != node)
		at = &(*at)->next_id;
	*at = node->next_id;
}

/* Twice the buckets when they get full; without memory for that the chains get longer. */
static void grow(struct sm_fuse_nodes *nodes)
{
	size_t before = nodes->buckets;
	if (nodes->count <= before)
		return;
	struct sm_fuse_node **by_id = calloc(before * 2, sizeof(struct sm_fuse_node *));
	struct sm_fuse_node **by_key = calloc(before * 2, sizeof(struct sm_fuse_node *));
	if (!by_id || !by_key) {
		free(by_id);
		free(by_key);
		return;
	}
	struct sm_fuse_node **old_id = nodes->by_id, **old_key = nodes->by_key;
	nodes->by_id = by_id;
	nodes->by_key = by_key;
	nodes->buckets = before * 2;
	for (size_t i = 0; i < before; i++) {
		for (struct sm_fuse_node *node = old_id[i], *next; node; node = next) {
			next = node->next_id;
			link_id(nodes, node);
		}
		for (struct sm_fuse_node *node = old_key[i], *next; node; node = next) {
			next = node->next_key;
			link_key(nodes, node);
		}
	}
	free(old_id);
	free(old_key);
}

struct sm_fuse_node *sm_fuse_node_find(struct sm_fuse *fuse, uint64_t id)
{
	struct sm_fuse_node *node = fuse->nodes.by_id[id_of(&fuse->nodes, id)];
	while (node && node->id != id)
		node = node->next_id;
	return node;
}

void sm_fuse_node_settle(struct sm_fuse *fuse, struct sm_fuse_node *node)
{
	struct sm_fuse_nodes *nodes = &fuse->nodes;
	while (node && node != &nodes->root && !node->refs && !node->lookups) {
		struct sm_fuse_node *parent = node->parent;
		sm_fuse_node_shut(fuse, node);
		unlink_key(nodes, node);
		unlink_id(nodes, node);
		__atomic_store_n(&nodes->count, nodes->count - 1, __ATOMIC_RELAXED);
		free(node->name);
		free(node);
		if (parent)
			parent->refs--;
		node = parent;
	}
}

static struct sm_fuse_node *make(struct sm_fuse *fuse, uint64_t id, const struct sm_fuse_identity *is, uint64_t via,
                                 const char *name)
{
	struct sm_fuse_nodes *nodes = &fuse->nodes;
	struct sm_fuse_node *node = nodes->count < nodes->max ? malloc(sizeof *node) : NULL;
	if (!node)
		return NULL;
	*node = (struct sm_fuse_node){ .id = id, .is = *is, .via = via, .name = strdup(name), .fd = -1 };
	if (!node->name) {
		free(node);
		return NULL;
	}
	__atomic_store_n(&nodes->count, nodes->count + 1, __ATOMIC_RELAXED);
	grow(nodes);
	link_id(nodes, node);
	link_key(nodes, node);
	return node;
}

/* Attributes tell of it without the lock. */
static void note_submount(struct sm_fuse_node *node)
{
	const struct sm_fuse_node *parent = node->parent;
	bool is = node->is.type == S_IFDIR && parent && !node->via && node->is.mnt && parent->is.mnt &&
	          node->is.mnt != parent->is.mnt;
	__atomic_store_n(&node->submount, is, __ATOMIC_RELAXED);
}

/* Give it another place.  Where the host moved folders about, what we remember could become a circle: then it keeps the
 * old one, which is wrong by now, and found out to be so when it is needed. */
static void place(struct sm_fuse *fuse, struct sm_fuse_node *node, struct sm_fuse_node *parent, const char *name)
{
	if (node == &fuse->nodes.root || (node->parent == parent && !strcmp(node->name, name)))
		return;
	if (node->parent != parent && node->is.type == S_IFDIR)
		for (struct sm_fuse_node *above = parent; above; above = above->parent)
			if (above == node)
				return;
	if (strcmp(node->name, name) != 0) {
		char *copy = strdup(name);
		if (!copy)
			return;
		free(node->name);
		node->name = copy;
	}
	struct sm_fuse_node *old = node->parent;
	if (old == parent)
		return;
	node->parent = parent;
	parent->refs++;
	note_submount(node);
	if (old) {
		old->refs--;
		sm_fuse_node_settle(fuse, old);
	}
}

static struct sm_fuse_node *find_key(struct sm_fuse *fuse, const struct sm_fuse_identity *is, uint64_t via,
                                     const struct sm_fuse_node *parent, const char *name)
{
	struct sm_fuse_nodes *nodes = &fuse->nodes;
	struct sm_fuse_node *next;
	for (struct sm_fuse_node *node = nodes->by_key[key_of(nodes, is)]; node; node = next) {
		next = node->next_key;
		if (node->is.dev != is->dev || node->is.ino != is->ino || node->via != via)
			continue;
		if (via && (node->parent != parent || strcmp(node->name, name)))
			continue;
		if (is_same(&node->is, is)) {
			if (!node->is.mnt) {
				node->is.mnt = is->mnt;
				note_submount(node);
			}
			return node;
		}
		/* Its number was given to another file: this one is gone. */
		if ((!node->is.mnt || node->is.mnt == is->mnt) && node != &nodes->root)
			unlink_key(nodes, node);
	}
	return NULL;
}

int sm_fuse_node_check(struct sm_fuse *fuse, struct sm_fuse_node *node, const struct statx *st)
{
	struct sm_fuse_identity is;
	identify(fuse, st, &is);
	if (!is_same(&is, &node->is))
		return -ESTALE;
	if (!node->is.mnt) {
		node->is.mnt = is.mnt;
		note_submount(node);
	}
	return 0;
}

/* What requests use ---------------------------------------------------------------------------------------------- */

int sm_fuse_node_enter(struct sm_fuse *fuse, struct sm_fuse_node *parent, const char *name, const struct statx *st,
                       bool linked, int fd, struct fuse_entry_out *ret)
{
	struct sm_fuse_nodes *nodes = &fuse->nodes;
	struct sm_fuse_identity is;
	identify(fuse, st, &is);
	uint64_t via = linked && is.type == S_IFDIR ? parent->id : 0;
	pthread_mutex_lock(&nodes->lock);
	struct sm_fuse_node *node = find_key(fuse, &is, via, parent, name);
	if (!node)
		node = make(fuse, nodes->next++, &is, via, name);
	if (node) {
		node->lookups++;
		place(fuse, node, parent, name);
		sm_fuse_node_install(fuse, node, sm_fd_take(&fd));
		/* Still with the lock: the guest could forget it already. */
		*ret = (struct fuse_entry_out){ .nodeid = node->id,
			                        .entry_valid = fuse->valid,
			                        .attr_valid = fuse->valid };
		sm_fuse_attr(fuse, st, node, &ret->attr);
	}
	pthread_mutex_unlock(&nodes->lock);
	sm_fd_close(&fd);
	return node ? 0 : -ENFILE;
}

struct sm_fuse_node *sm_fuse_node_known(struct sm_fuse *fuse, struct sm_fuse_node *parent, const char *name,
                                        const struct statx *st)
{
	struct sm_fuse_identity is;
	identify(fuse, st, &is);
	pthread_mutex_lock(&fuse->nodes.lock);
	struct sm_fuse_node *node = find_key(fuse, &is, 0, parent, name);
	if (node)
		node->refs++;
	pthread_mutex_unlock(&fuse->nodes.lock);
	return node;
}

void sm_fuse_node_moved(struct sm_fuse *fuse, struct sm_fuse_node *parent, const char *name, const struct statx *st)
{
	struct sm_fuse_identity is;
	identify(fuse, st, &is);
	pthread_mutex_lock(&fuse->nodes.lock);
	struct sm_fuse_node *node = find_key(fuse, &is, 0, parent, name);
	if (node)
		place(fuse, node, parent, name);
	pthread_mutex_unlock(&fuse->nodes.lock);
}

bool sm_fuse_node_forget(struct sm_fuse *fuse, uint64_t id, uint64_t lookups)
{
	pthread_mutex_lock(&fuse->nodes.lock);
	struct sm_fuse_node *node = sm_fuse_node_find(fuse, id);
	bool fine = node && (lookups <= node->lookups || id == FUSE_ROOT_ID);
	if (node) {
		node->lookups -= lookups < node->lookups ? lookups : node->lookups;
		sm_fuse_node_settle(fuse, node);
	}
	pthread_mutex_unlock(&fuse->nodes.lock);
	return fine;
}

struct sm_fuse_node *sm_fuse_node_get(struct sm_fuse *fuse, uint64_t id)
{
	pthread_mutex_lock(&fuse->nodes.lock);
	struct sm_fuse_node *node = sm_fuse_node_find(fuse, id);
	if (node)
		node->refs++;
	pthread_mutex_unlock(&fuse->nodes.lock);
	return node;
}

void sm_fuse_node_put(struct sm_fuse *fuse, struct sm_fuse_node *node)
{
	if (!node)
		return;
	pthread_mutex_lock(&fuse->nodes.lock);
	node->refs--;
	sm_fuse_node_settle(fuse, node);
	pthread_mutex_unlock(&fuse->nodes.lock);
}

bool sm_fuse_nodes_scarce(struct sm_fuse *fuse)
{
	return __atomic_load_n(&fuse->nodes.count, __ATOMIC_RELAXED) > fuse->nodes.max / 4 * 3;
}

/* The whole table ------------------------------------------------------------------------------------------------ */

int sm_fuse_nodes_init(struct sm_fuse *fuse, int root_fd, size_t max, size_t max_open)
{
	struct sm_fuse_nodes *nodes = &fuse->nodes;
	struct statx st;
	int code = sm_fuse_stat(root_fd, &st);
	if (code < 0)
		return code;
	nodes->buckets = BUCKETS_MIN;
	nodes->by_id = calloc(nodes->buckets, sizeof(struct sm_fuse_node *));
	nodes->by_key = calloc(nodes->buckets, sizeof(struct sm_fuse_node *));
	if (!nodes->by_id || !nodes->by_key)
		return -ENOMEM;
	struct statfs fs;
	nodes->born_anew = fstatfs(root_fd, &fs) == 0 && fs.f_type == OVERLAYFS_SUPER_MAGIC;
	nodes->max = max;
	nodes->max_open = max_open;
	nodes->next = FUSE_ROOT_ID + 1;
	nodes->root = (struct sm_fuse_node){ .id = FUSE_ROOT_ID, .fd = root_fd };
	identify(fuse, &st, &nodes->root.is);
	link_id(nodes, &nodes->root);
	link_key(nodes, &nodes->root);
	return 0;
}

void sm_fuse_nodes_reset(struct sm_fuse *fuse)
{
	struct sm_fuse_nodes *nodes = &fuse->nodes;
	pthread_mutex_lock(&nodes->lock);
	/* Held by a reference each until it is come to: what goes is behind us. */
	for (size_t i = 0; i < nodes->buckets; i++)
		for (struct sm_fuse_node *node = nodes->by_id[i]; node; node = node->next_id) {
			node->lookups = 0;
			node->refs++;
		}
	for (size_t i = 0; i < nodes->buckets; i++) {
		for (struct sm_fuse_node *node = nodes->by_id[i], *next; node; node = next) {
			next = node->next_id;
			node->refs--;
			sm_fuse_node_settle(fuse, node);
		}
	}
	nodes->next = nodes->count ? nodes->next : FUSE_ROOT_ID + 1;
	pthread_mutex_unlock(&nodes->lock);
}

void sm_fuse_nodes_done(struct sm_fuse *fuse)
{
	if (fuse->nodes.by_id && fuse->nodes.by_key)
		sm_fuse_nodes_reset(fuse);
	free(fuse->nodes.by_id);
	free(fuse->nodes.by_key);
	fuse->nodes.by_id = fuse->nodes.by_key = NULL;
}

struct sm_fuse_node *sm_fuse_node_restore(struct sm_fuse *fuse, uint64_t id, const struct sm_fuse_identity *is,
                                          uint64_t via, const char *name)
{
	return sm_fuse_node_find(fuse, id) ? NULL : make(fuse, id, is, via, name);
}

void sm_fuse_node_unkey(struct sm_fuse *fuse, struct sm_fuse_node *node)
{
	unlink_key(&fuse->nodes, node);
}
