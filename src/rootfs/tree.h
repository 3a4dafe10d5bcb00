/* One layer as a tree of names and files, built from tar entries in any order.
 *
 * Names and files are apart, as in a file system: hard links are names of one file.  Everything is in an arena;
 * names are found through a keyed hash, so a hostile layer cannot make the look-up slow.  A name that was
 * replaced just points elsewhere: what it pointed to is out of the tree when no walk from the root meets it.
 *
 * Not shared between threads. */
#ifndef SM_ROOTFS_TREE_H
#define SM_ROOTFS_TREE_H

#include "base/error.h"
#include "rootfs/arena.h"
#include "rootfs/tree_path.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct sm_tree_name;
struct sm_tree_pending;
struct sm_lower;
struct sm_lower_file;

/* Consecutive chunks of a file that are consecutive in the image. */
struct sm_tree_run {
	uint64_t chunk; /* in the file */
	uint64_t count; /* chunks */
	uint64_t block; /* of the image */
};

/* Where a regular file's content was put while it arrived. */
struct sm_tree_data {
	const struct sm_tree_run *runs;
	uint64_t tail_offset; /* in the spool */
	uint32_t tail_bytes;  /* 0, or the content's last bytes, to be put beside the inode */
	uint32_t block;       /* first block of a file without holes */
	uint32_t nruns;
	bool chunked;       /* has holes: runs of chunks; otherwise blocks from `block` on, then the tail */
	uint8_t chunk_bits; /* chunk size: 4096 << chunk_bits */
};

struct sm_tree_attributes {
	uint32_t mode; /* type and permissions */
	uint32_t uid, gid;
	int64_t mtime;
	uint32_t mtime_nsec;
	uint32_t major, minor; /* of a device */
	uint64_t size;         /* of a regular file */
	const char *target;    /* of a symlink */
	const void *xattrs;    /* encoded (rootfs/xattr.h), of the tree's arena; NULL: none */
	uint32_t xattr_bytes;
};

struct sm_tree_node {
	uint32_t mode; /* 0: a hard link that is ahead of its target; gone when finished */
	uint32_t uid, gid;
	uint32_t nlink; /* known when finished */
	int64_t mtime;
	uint32_t mtime_nsec;
	uint32_t xattr_bytes;
	const void *xattrs;
	uint64_t size; /* regular: content; symlink: target; directory: set by the writer */
	bool opaque;   /* a directory that hides what lower layers have in its place */
	bool listed;   /* in the order of the finished tree */
	union {
		struct sm_tree_data data;     /* regular */
		const char *target;           /* symlink */
		struct sm_tree_node *settled; /* of no kind: what it stood for */
		struct {
			uint32_t major, minor;
		} device;
		struct { /* directory */
			struct sm_tree_node *parent;
			struct sm_tree_name *children; /* newest first */
			struct sm_tree_name **entries; /* when finished: by byte order, with "." and ".." */
			uint32_t nentries;
			uint32_t tail_bytes; /* set by the writer */
		} directory;
	};
	uint64_t nid;              /* set by the writer */
	struct sm_tree_node *next; /* in the order of the finished tree */
};

struct sm_tree_name {
	struct sm_tree_name *hash_next;
	struct sm_tree_name *sibling;
	struct sm_tree_node *directory; /* where the name is */
	struct sm_tree_node *node;      /* NULL: nothing (left) here but perhaps a whiteout */
	bool hides_lower;               /* nothing of a lower layer may be seen at this name */
	uint8_t len;
	char name[]; /* NUL-terminated */
};

struct sm_tree {
	struct sm_arena arena;
	struct sm_tree_node *root;
	struct sm_tree_name **buckets;
	uint32_t nbuckets; /* a power of two */
	uint32_t nnames;
	uint32_t max_names;
	uint64_t hash_key[2];
	struct sm_lower *lower;          /* borrowed; NULL: nothing is below */
	bool asked_lower;                /* what is below matters, or would */
	struct sm_tree_node *copies;     /* lower layers' files that are hard-linked here; in no directory */
	struct sm_tree_pending *pending; /* hard links that are ahead of their targets */
	/* when finished */
	struct sm_tree_node *first; /* the root; then each directory's files together, directory by directory */
	uint64_t nnodes;
	uint64_t nwhiteouts, nopaque;
	struct sm_tree_name *dot, *dot_dot;
};

/* max_bytes bounds the arena, max_names the names. */
int sm_tree_new(size_t max_bytes, uint32_t max_names, struct sm_tree **ret_tree, struct sm_error *err);
void sm_tree_free(struct sm_tree *tree); /* NULL is fine */

/* All paths are cleaned ones (tree_path.h).  Symlinks among a path's parents are followed within the image (-ELOOP);
 * one through another non-directory of this layer is refused (-EBADMSG).  Missing parents are what lower layers have
 * there; where these have nothing, or something else, they are root's, mode 0755, time 0. */

/* Add an entry; a later one replaces an earlier one, a directory over a directory keeps the content. */
int sm_tree_add(struct sm_tree *tree, const char *path, const struct sm_tree_attributes *attributes,
                struct sm_tree_node **ret_node, struct sm_error *err);
/* Give the file at `target` another name: this layer's, or else a copy of what lower layers have there, or else what
 * this layer is yet to have there.  No directory.  1 when *ret_copy is a new copy of *ret_file: if it is a regular
 * file its content is the caller's to fill in. */
int sm_tree_link(struct sm_tree *tree, const char *path, const char *target, struct sm_tree_node **ret_copy,
                 struct sm_lower_file *ret_file, struct sm_error *err);
/* After the last entry: the links whose targets were yet to come.  Errors name the entry. */
int sm_tree_settle(struct sm_tree *tree, struct sm_error *err);
/* Hide what lower layers have at `path` (which may be, or come to be, in this layer too). */
int sm_tree_hide(struct sm_tree *tree, const char *path, struct sm_error *err);
/* Make sure that there is a directory at `path`, as for a missing parent. */
int sm_tree_directory(struct sm_tree *tree, const char *path, struct sm_error *err);
/* Hide what lower layers have in the directory `path`. */
int sm_tree_opaque(struct sm_tree *tree, const char *path, struct sm_error *err);

/* After the last entry: turn whiteouts into device 0/0 nodes, count links, sort directories, set the order. */
int sm_tree_finish(struct sm_tree *tree, struct sm_error *err);

#endif
