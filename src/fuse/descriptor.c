/* The host descriptors behind nodes: a cache, bounded, of what can be found again. */
#include "fuse/internal.h"

#include "base/fd.h"

#include <string.h>

#define SHED 32 /* closed at once when the host has no more */

/* Those that may be closed, newest first; with the lock held ------------------------------------------------------ */

static void lru_add(struct sm_fuse_nodes *nodes, struct sm_fuse_node *node)
{
	node->newer = NULL;
	node->older = nodes->newest;
	*(node->older ? &node->older->newer : &nodes->oldest) = node;
	nodes->newest = node;
	nodes->open++;
}

static void lru_remove(struct sm_fuse_nodes *nodes, struct sm_fuse_node *node)
{
	*(node->newer ? &node->newer->older : &nodes->newest) = node->older;
	*(node->older ? &node->older->newer : &nodes->oldest) = node->newer;
	nodes->open--;
}

/* Those that are open by a handle, and the root, are not in the list: they stay. */
static bool in_lru(const struct sm_fuse_nodes *nodes, const struct sm_fuse_node *node)
{
	return node->fd >= 0 && !node->opens && node != &nodes->root;
}

static size_t evict(struct sm_fuse *fuse, size_t wanted)
{
	struct sm_fuse_nodes *nodes = &fuse->nodes;
	size_t closed = 0, tried = 0;
	for (struct sm_fuse_node *node = nodes->oldest, *newer; node && closed < wanted && tried < 4 * SHED;
	     node = newer, tried++) {
		newer = node->newer;
		if (node->pins)
			continue;
		lru_remove(nodes, node);
		sm_fd_close(&node->fd);
		sm_fuse_count(&fuse->counters.evicted);
		closed++;
	}
	return closed;
}

bool sm_fuse_nodes_shed(struct sm_fuse *fuse)
{
	pthread_mutex_lock(&fuse->nodes.lock);
	size_t closed = evict(fuse, SHED);
	pthread_mutex_unlock(&fuse->nodes.lock);
	return closed > 0;
}

void sm_fuse_node_install(struct sm_fuse *fuse, struct sm_fuse_node *node, int fd)
{
	struct sm_fuse_nodes *nodes = &fuse->nodes;
	if (fd < 0)
		return;
	if (node->fd >= 0) {
		sm_fd_close(&fd);
		return;
	}
	node->fd = fd;
	if (node->opens)
		nodes->kept++;
	else
		lru_add(nodes, node);
	if (nodes->open > nodes->max_open)
		evict(fuse, nodes->open - nodes->max_open);
}

static void touch(struct sm_fuse_nodes *nodes, struct sm_fuse_node *node)
{
	if (in_lru(nodes, node) && nodes->newest != node) {
		lru_remove(nodes, node);
		lru_add(nodes, node);
	}
}

void sm_fuse_node_shut(struct sm_fuse *fuse, struct sm_fuse_node *node)
{
	if (in_lru(&fuse->nodes, node))
		lru_remove(&fuse->nodes, node);
	sm_fd_close(&node->fd);
}

/* Finding again, and holding ------------------------------------------------------------------------------------- */

void sm_fuse_node_opened(struct sm_fuse *fuse, struct sm_fuse_node *node, int by)
{
	struct sm_fuse_nodes *nodes = &fuse->nodes;
	pthread_mutex_lock(&nodes->lock);
	bool before = in_lru(nodes, node);
	node->opens += (uint32_t)by;
	node->refs += (uint32_t)by;
	bool after = in_lru(nodes, node);
	if (before && !after) {
		lru_remove(nodes, node);
		nodes->kept++;
	} else if (!before && after) {
		nodes->kept--;
		lru_add(nodes, node);
		if (nodes->open > nodes->max_open)
			evict(fuse, 1);
	}
	sm_fuse_node_settle(fuse, node);
	pthread_mutex_unlock(&nodes->lock);
}

/* Open the uppermost of its folders that is not, or itself.  With the lock held, which is let go meanwhile. */
static int find_again(struct sm_fuse *fuse, struct sm_fuse_node *node)
{
	struct sm_fuse_nodes *nodes = &fuse->nodes;
	while (node->parent && node->parent->fd < 0)
		node = node->parent;
	struct sm_fuse_node *parent = node->parent;
	if (!parent || !*node->name)
		return -ESTALE;
	char name[SM_FUSE_NAME_MAX + 1];
	size_t len = strlen(node->name);
	if (len >= sizeof name)
		return -ESTALE;
	memcpy(name, node->name, len + 1);
	node->refs++;
	parent->refs++;
	parent->pins++;
	int below = parent->fd;
	pthread_mutex_unlock(&nodes->lock);

	struct statx st;
	bool follow = fuse->mount.symlinks == SM_MOUNT_SYMLINKS_FOLLOW && node->is.type != S_IFLNK;
	int fd = sm_fuse_walk(fuse, below, name, follow), code = fd < 0 ? fd : sm_fuse_stat(fd, &st);

	pthread_mutex_lock(&nodes->lock);
	if (code >= 0)
		code = sm_fuse_node_check(fuse, node, &st);
	if (code >= 0)
		sm_fuse_node_install(fuse, node, sm_fd_take(&fd));
	sm_fd_close(&fd);
	parent->pins--;
	node->refs--;
	sm_fuse_node_settle(fuse, node);
	parent->refs--; /* last: it may be the node's no longer, and nobody else's */
	sm_fuse_node_settle(fuse, parent);
	return code == -ENOENT || code == -ENOTDIR || code == -ELOOP || code == -EXDEV ? -ESTALE : code < 0 ? code : 0;
}

/* With the lock held. */
static int pin(struct sm_fuse *fuse, struct sm_fuse_node *node)
{
	/* Each round opens one; others may close some of them meanwhile. */
	unsigned rounds = 0;
	while (node->fd < 0) {
		if (++rounds > 16384)
			return -ENFILE;
		int code = find_again(fuse, node);
		if (code < 0)
			return code;
	}
	node->pins++;
	touch(&fuse->nodes, node);
	return node->fd;
}

static int hold(struct sm_fuse *fuse, struct sm_fuse_node *node, struct sm_fuse_hold *ret)
{
	node->refs++;
	int fd = pin(fuse, node);
	if (fd < 0) {
		node->refs--;
		sm_fuse_node_settle(fuse, node);
		return fd;
	}
	*ret = (struct sm_fuse_hold){ node, fd };
	return 0;
}

int sm_fuse_hold(struct sm_fuse *fuse, uint64_t id, struct sm_fuse_hold *ret)
{
	*ret = (struct sm_fuse_hold){ NULL, -1 };
	pthread_mutex_lock(&fuse->nodes.lock);
	struct sm_fuse_node *node = sm_fuse_node_find(fuse, id);
	int code = node ? hold(fuse, node, ret) : sm_fuse_hostile(fuse, -ESTALE);
	pthread_mutex_unlock(&fuse->nodes.lock);
	return code;
}

int sm_fuse_hold_node(struct sm_fuse *fuse, struct sm_fuse_node *node, struct sm_fuse_hold *ret)
{
	*ret = (struct sm_fuse_hold){ NULL, -1 };
	pthread_mutex_lock(&fuse->nodes.lock);
	int code = hold(fuse, node, ret);
	pthread_mutex_unlock(&fuse->nodes.lock);
	return code;
}

void sm_fuse_drop(struct sm_fuse *fuse, struct sm_fuse_hold *held)
{
	if (!held->node)
		return;
	pthread_mutex_lock(&fuse->nodes.lock);
	held->node->pins--;
	held->node->refs--;
	sm_fuse_node_settle(fuse, held->node);
	pthread_mutex_unlock(&fuse->nodes.lock);
	held->node = NULL;
}
