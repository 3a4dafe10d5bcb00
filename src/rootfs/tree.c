#include "rootfs/tree.h"

#include "rootfs/lower.h"
#include "rootfs/tree_inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define BUCKETS_FIRST 1024u

struct sm_tree_node *sm_tree_node_new(struct sm_tree *tree, uint32_t mode)
{
	struct sm_tree_node *node = sm_arena_alloc(&tree->arena, sizeof *node);
	if (node)
		node->mode = mode;
	return node;
}

void sm_tree_name_set(struct sm_tree_name *name, struct sm_tree_node *node)
{
	if (S_ISDIR(node->mode)) {
		if (name->node && !S_ISDIR(name->node->mode))
			name->hides_lower = true;
		node->directory.parent = name->directory;
	}
	name->node = node;
}

/* A directory that the tar implies: unpacked, it would be the one that lower layers have there. */
static int directory_imply(struct sm_tree *tree, const char *path, size_t len, bool hidden, struct sm_tree_name *name,
                           struct sm_error *err)
{
	struct sm_lower_file file;
	int code = hidden ? 0 : sm_tree_below(tree, path, len, &file, err);
	if (code < 0)
		return code;
	struct sm_tree_node *made = sm_tree_node_new(tree, S_IFDIR | 0755);
	if (!made)
		return sm_tree_no_memory(err);
	if (code > 0 && S_ISDIR(file.inode.mode))
		code = sm_tree_node_from_lower(tree, &file, made, err);
	sm_tree_name_set(name, made);
	return code < 0 ? code : 0;
}

/* The directory at the name, which is the first `len` bytes of path, made when nothing is there. */
static int directory_at(struct sm_tree *tree, const char *path, size_t len, bool hidden, struct sm_tree_name *name,
                        struct sm_tree_node **ret_directory, struct sm_error *err)
{
	int code = name->node ? 0 : directory_imply(tree, path, len, hidden || name->hides_lower, name, err);
	if (code < 0)
		return code;
	char shown[SM_TREE_SHOWN_MAX];
	if (!S_ISDIR(name->node->mode))
		return sm_error_set(err, EBADMSG, "path goes through '%s', which is no directory",
		                    sm_tree_path_shown(name->name, shown));
	*ret_directory = name->node;
	return 0;
}

int sm_tree_walk(struct sm_tree *tree, const char *path, struct sm_tree_name **ret_name, bool last_too,
                 struct sm_error *err)
{
	char resolved[SM_TREE_PATH_MAX];
	struct sm_tree_node *directory = tree->root;
	bool hidden = tree->root->opaque;
	int code = sm_tree_resolve(tree, path, last_too, resolved, err);
	*ret_name = NULL;
	for (size_t start = 0; code == 0 && resolved[start];) {
		size_t len = strcspn(resolved + start, "/"), end = start + len;
		struct sm_tree_name *name;
		code = sm_tree_name_get(tree, directory, resolved + start, len, &name, err);
		if (code < 0)
			return code;
		if (!resolved[end])
			*ret_name = name;
		if (resolved[end] || last_too)
			code = directory_at(tree, resolved, end, hidden, name, &directory, err);
		hidden |= name->hides_lower;
		start = end + !!resolved[end];
	}
	return code;
}

static void node_attributes(struct sm_tree_node *node, const struct sm_tree_attributes *attributes)
{
	node->mode = attributes->mode;
	node->uid = attributes->uid;
	node->gid = attributes->gid;
	node->mtime = attributes->mtime;
	node->mtime_nsec = attributes->mtime_nsec;
	node->xattrs = attributes->xattrs;
	node->xattr_bytes = attributes->xattr_bytes;
}

int sm_tree_add(struct sm_tree *tree, const char *path, const struct sm_tree_attributes *attributes,
                struct sm_tree_node **ret_node, struct sm_error *err)
{
	struct sm_tree_name *name;
	int code = sm_tree_walk(tree, path, &name, false, err);
	if (code < 0)
		return code;
	if (!name && !S_ISDIR(attributes->mode))
		return sm_error_set(err, EBADMSG, "the root of the image can only be a directory");
	struct sm_tree_node *node = name ? name->node : tree->root;
	if (node && S_ISDIR(node->mode) && S_ISDIR(attributes->mode)) {
		node_attributes(node, attributes);
		*ret_node = node;
		return 0;
	}
	node = sm_tree_node_new(tree, attributes->mode);
	if (!node)
		return sm_tree_no_memory(err);
	node_attributes(node, attributes);
	if (S_ISREG(node->mode))
		node->size = attributes->size;
	if (S_ISCHR(node->mode) || S_ISBLK(node->mode)) {
		node->device.major = attributes->major;
		node->device.minor = attributes->minor;
	}
	if (S_ISLNK(node->mode)) {
		node->size = strlen(attributes->target);
		node->target = sm_arena_copy(&tree->arena, attributes->target, node->size + 1);
		if (!node->target)
			return sm_tree_no_memory(err);
	}
	sm_tree_name_set(name, node);
	*ret_node = node;
	return 0;
}

int sm_tree_hide(struct sm_tree *tree, const char *path, struct sm_error *err)
{
	struct sm_tree_name *name;
	int code = sm_tree_walk(tree, path, &name, false, err);
	if (code == 0)
		name->hides_lower = true;
	return code;
}

int sm_tree_directory(struct sm_tree *tree, const char *path, struct sm_error *err)
{
	struct sm_tree_name *name;
	return sm_tree_walk(tree, path, &name, true, err);
}

int sm_tree_opaque(struct sm_tree *tree, const char *path, struct sm_error *err)
{
	struct sm_tree_name *name;
	int code = sm_tree_walk(tree, path, &name, true, err);
	if (code < 0)
		return code;
	if (name)
		name->hides_lower = true;
	else
		tree->root->opaque = true;
	return 0;
}

int sm_tree_new(size_t max_bytes, uint32_t max_names, struct sm_tree **ret_tree, struct sm_error *err)
{
	struct sm_tree *tree = calloc(1, sizeof *tree);
	if (!tree)
		return sm_error_sys(err, ENOMEM, "layer tree");
	sm_arena_init(&tree->arena, max_bytes);
	tree->max_names = max_names;
	tree->nbuckets = BUCKETS_FIRST;
	tree->buckets = calloc(tree->nbuckets, sizeof(struct sm_tree_name *));
	tree->root = sm_tree_node_new(tree, S_IFDIR | 0755);
	tree->dot = sm_tree_name_new(tree, ".", 1);
	tree->dot_dot = sm_tree_name_new(tree, "..", 2);
	int code = 0;
	if (!tree->buckets || !tree->root || !tree->dot || !tree->dot_dot)
		code = sm_tree_no_memory(err);
	else if (getrandom(tree->hash_key, sizeof tree->hash_key, 0) != (ssize_t)sizeof tree->hash_key)
		code = sm_error_sys(err, errno, "getrandom");
	if (code < 0) {
		sm_tree_free(tree);
		return code;
	}
	tree->root->directory.parent = tree->root;
	*ret_tree = tree;
	return 0;
}

void sm_tree_free(struct sm_tree *tree)
{
	if (!tree)
		return;
	sm_arena_done(&tree->arena);
	free(tree->buckets);
	free(tree);
}
