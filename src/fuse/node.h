/* What the guest knows of the tree: nodes, and the host descriptors behind them.
 *
 * A node is an identity (device, inode, mount, birth) and where it was last seen (parent, name).  Its O_PATH descriptor
 * is only a cache of that: it is opened when it is needed, closed when there are too many, and what is then found at
 * that place must be the same file.  A node lives while the guest has looked it up more often than it forgot it, or
 * something of ours holds it: a child, a handle, a request.  Private to this room. */
#ifndef SM_FUSE_NODE_H
#define SM_FUSE_NODE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct fuse_entry_out;
struct sm_fuse;

struct sm_fuse_identity {
	uint64_t dev, ino;
	uint64_t mnt;  /* 0: not known yet: it was loaded, and lies on another mount than the root */
	int64_t born;  /* ns; 0: the file system does not say */
	uint32_t type; /* S_IFMT */
};

struct sm_fuse_node {
	uint64_t id;
	struct sm_fuse_identity is;
	uint64_t via; /* a folder behind a link that we follow is a node for each such place: its parent's ID; else 0 */
	struct sm_fuse_node *parent; /* counted; NULL: the root */
	char *name;                  /* below parent; "": it has none, and cannot be found again */
	uint64_t lookups;            /* the guest's */
	uint32_t refs;               /* ours */
	uint32_t pins;               /* who uses fd now */
	uint32_t opens;              /* handles and mappings: fd stays, if there is one */
	int fd;                      /* O_PATH; -1 */
	struct sm_fuse_node *next_id, *next_key;
	struct sm_fuse_node *newer, *older; /* of those with fd */
	bool submount;                      /* a folder on another mount than its parent */
	bool unkeyed;                       /* not found by identity: another file has its identity now */
};

struct sm_fuse_nodes {
	pthread_mutex_t lock;
	struct sm_fuse_node **by_id, **by_key;
	size_t buckets, count, max;
	struct sm_fuse_node root;
	struct sm_fuse_node *newest, *oldest;
	size_t open, max_open; /* in that list */
	size_t kept;           /* those that handles keep open */
	uint64_t next;         /* ID; never used twice */
	bool born_anew;        /* overlayfs: a file that is written to for the first time is born then */
};

/* root_fd is the root's, and not taken. */
int sm_fuse_nodes_init(struct sm_fuse *fuse, int root_fd, size_t max, size_t max_open);
void sm_fuse_nodes_done(struct sm_fuse *fuse);
/* All that the guest holds; what others hold goes when they let go. */
void sm_fuse_nodes_reset(struct sm_fuse *fuse);

/* A node with its descriptor, for the time of a request. */
struct sm_fuse_hold {
	struct sm_fuse_node *node;
	int fd;
};
/* -ESTALE: no such node (hostile), or it is no longer where it was. */
int sm_fuse_hold(struct sm_fuse *fuse, uint64_t id, struct sm_fuse_hold *ret);
int sm_fuse_hold_node(struct sm_fuse *fuse, struct sm_fuse_node *node, struct sm_fuse_hold *ret);
void sm_fuse_drop(struct sm_fuse *fuse, struct sm_fuse_hold *hold); /* safe on a zeroed one and twice */

/* The node alone, counted; NULL: none.  put: NULL is fine. */
struct sm_fuse_node *sm_fuse_node_get(struct sm_fuse *fuse, uint64_t id);
void sm_fuse_node_put(struct sm_fuse *fuse, struct sm_fuse_node *node);
/* A handle is open on it, or no longer. */
void sm_fuse_node_opened(struct sm_fuse *fuse, struct sm_fuse_node *node, int by);

/* The guest has looked up `name` below parent and it is `st`: the node that is that file, made if there is none, with
 * one more lookup.  fd: an O_PATH descriptor of it, which is taken in any case; -1.  -ENFILE: too many nodes. */
int sm_fuse_node_enter(struct sm_fuse *fuse, struct sm_fuse_node *parent, const char *name, const struct statx *st,
                       bool linked, int fd, struct fuse_entry_out *ret);
/* The node of that file, counted; NULL: the guest knows none. */
struct sm_fuse_node *sm_fuse_node_known(struct sm_fuse *fuse, struct sm_fuse_node *parent, const char *name,
                                        const struct statx *st);
/* That file has this place now; nothing if it is no node. */
void sm_fuse_node_moved(struct sm_fuse *fuse, struct sm_fuse_node *parent, const char *name, const struct statx *st);
/* Returns false when that were more than there are. */
bool sm_fuse_node_forget(struct sm_fuse *fuse, uint64_t id, uint64_t lookups);

/* For load: a node as it was saved, whose parent comes later.  NULL: there is one, or no memory. */
struct sm_fuse_node *sm_fuse_node_restore(struct sm_fuse *fuse, uint64_t id, const struct sm_fuse_identity *is,
                                          uint64_t via, const char *name);
void sm_fuse_node_unkey(struct sm_fuse *fuse, struct sm_fuse_node *node); /* another has its identity by now */
/* With the lock held: the node, not counted; free it if nobody holds it, and then its parents likewise; what was found
 * at its place is the same file, or -ESTALE; its descriptor, which is taken; that no longer. */
struct sm_fuse_node *sm_fuse_node_find(struct sm_fuse *fuse, uint64_t id);
void sm_fuse_node_settle(struct sm_fuse *fuse, struct sm_fuse_node *node);
int sm_fuse_node_check(struct sm_fuse *fuse, struct sm_fuse_node *node, const struct statx *st);
void sm_fuse_node_install(struct sm_fuse *fuse, struct sm_fuse_node *node, int fd);
void sm_fuse_node_shut(struct sm_fuse *fuse, struct sm_fuse_node *node);
/* Open descriptors below their limit again, after one was refused; false: there is none to close. */
bool sm_fuse_nodes_shed(struct sm_fuse *fuse);
/* More than three quarters of the nodes that there may be. */
bool sm_fuse_nodes_scarce(struct sm_fuse *fuse);

#endif
