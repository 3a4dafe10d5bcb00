/* Where a layer leans on those below it: parents that it implies, hard links out of it. */
#include "rootfs/lower.h"
#include "rootfs/tree_inside.h"

#include <errno.h>
#include <string.h>

/* A hard link whose target has yet to come, and the node without a kind that stands for it until then. */
struct sm_tree_pending {
	struct sm_tree_pending *next;
	struct sm_tree_node *node;
	const char *path, *target;
};

int sm_tree_below(struct sm_tree *tree, const char *path, size_t len, struct sm_lower_file *ret_file,
                  struct sm_error *err)
{
	char prefix[SM_TREE_PATH_MAX];
	tree->asked_lower = true;
	if (!tree->lower)
		return 0;
	memcpy(prefix, path, len);
	prefix[len] = 0;
	return sm_lower_find(tree->lower, prefix, ret_file, err);
}

int sm_tree_node_from_lower(struct sm_tree *tree, const struct sm_lower_file *file, struct sm_tree_node *node,
                            struct sm_error *err)
{
	const struct sm_erofs_inode *inode = &file->inode;
	node->mode = inode->mode;
	node->uid = inode->uid;
	node->gid = inode->gid;
	node->mtime = inode->mtime;
	node->mtime_nsec = inode->mtime_nsec;
	node->xattr_bytes = inode->xattr_bytes;
	return sm_lower_xattrs(tree->lower, file, &tree->arena, &node->xattrs, err);
}

int sm_tree_find(struct sm_tree *tree, const char *path, struct sm_tree_node **ret_node, struct sm_lower_file *ret_file,
                 struct sm_error *err)
{
	char resolved[SM_TREE_PATH_MAX];
	bool hidden = tree->root->opaque;
	int code = sm_tree_resolve(tree, path, false, resolved, err);
	*ret_node = tree->root;
	for (const char *at = resolved; code == 0 && *at;) {
		bool is_directory = S_ISDIR((*ret_node)->mode);
		size_t len = strcspn(at, "/");
		struct sm_tree_name *name = is_directory ? sm_tree_name_find(tree, *ret_node, at, len) : NULL;
		hidden |= !is_directory || (name && name->hides_lower);
		*ret_node = name ? name->node : NULL;
		if (!*ret_node)
			return hidden ? 0 : sm_tree_below(tree, resolved, strlen(resolved), ret_file, err);
		at += len + !!at[len];
	}
	return code;
}

/* The copy of a lower layer's file in this one: the same for each link to it.  1 when it is new. */
static int copy_get(struct sm_tree *tree, const struct sm_lower_file *file, struct sm_tree_node **ret_node,
                    struct sm_error *err)
{
	struct sm_tree_name *name;
	uint64_t key[2] = { file->layer, file->inode.nid };
	if (!tree->copies)
		tree->copies = sm_tree_node_new(tree, S_IFDIR);
	if (!tree->copies)
		return sm_tree_no_memory(err);
	int code = sm_tree_name_get(tree, tree->copies, (const char *)key, sizeof key, &name, err);
	if (code < 0 || name->node) {
		*ret_node = code < 0 ? NULL : name->node;
		return code;
	}
	struct sm_tree_node *made = sm_tree_node_new(tree, file->inode.mode);
	if (!made)
		return sm_tree_no_memory(err);
	made->size = S_ISREG(made->mode) || S_ISLNK(made->mode) ? file->inode.size : 0;
	code = sm_tree_node_from_lower(tree, file, made, err);
	if (code == 0 && S_ISLNK(made->mode)) {
		char target[SM_TREE_TARGET_MAX];
		code = sm_lower_target(tree->lower, file, target, sizeof target, err);
		if (code == 0 && !(made->target = sm_arena_copy(&tree->arena, target, made->size + 1)))
			code = sm_tree_no_memory(err);
	} else if (S_ISCHR(made->mode) || S_ISBLK(made->mode)) {
		made->device.major = file->inode.major;
		made->device.minor = file->inode.minor;
	}
	name->node = *ret_node = made;
	return code < 0 ? code : 1;
}

static int pending_add(struct sm_tree *tree, const char *path, const char *target, struct sm_tree_node **ret_node,
                       struct sm_error *err)
{
	struct sm_tree_pending *pending = sm_arena_alloc(&tree->arena, sizeof *pending);
	if (pending) {
		pending->node = sm_tree_node_new(tree, 0);
		pending->path = sm_arena_copy(&tree->arena, path, strlen(path) + 1);
		pending->target = sm_arena_copy(&tree->arena, target, strlen(target) + 1);
	}
	if (!pending || !pending->node || !pending->path || !pending->target)
		return sm_tree_no_memory(err);
	pending->next = tree->pending;
	tree->pending = pending;
	*ret_node = pending->node;
	return 0;
}

int sm_tree_link(struct sm_tree *tree, const char *path, const char *target, struct sm_tree_node **ret_copy,
                 struct sm_lower_file *ret_file, struct sm_error *err)
{
	char shown[SM_TREE_SHOWN_MAX];
	struct sm_tree_node *node;
	struct sm_tree_name *name;
	int copied = 0, found = sm_tree_find(tree, target, &node, ret_file, err);
	if (found < 0)
		return found;
	if (node ? S_ISDIR(node->mode) : found && S_ISDIR(ret_file->inode.mode))
		return sm_error_set(err, EBADMSG, "hard link target '%s' is a directory",
		                    sm_tree_path_shown(target, shown));
	if (found)
		copied = copy_get(tree, ret_file, &node, err);
	int code = copied < 0 ? copied : sm_tree_walk(tree, path, &name, false, err);
	if (code < 0)
		return code;
	if (!name)
		return sm_error_set(err, EBADMSG, "the root of the image can only be a directory");
	if (!node)
		code = pending_add(tree, path, target, &node, err);
	if (code < 0)
		return code;
	sm_tree_name_set(name, node);
	*ret_copy = node;
	return copied;
}

int sm_tree_settle(struct sm_tree *tree, struct sm_error *err)
{
	/* Newest first: a link to a later link finds that one settled.  (A link to an earlier one shares its node.) */
	for (struct sm_tree_pending *pending = tree->pending; pending; pending = pending->next) {
		char path[SM_TREE_SHOWN_MAX], shown[SM_TREE_SHOWN_MAX];
		struct sm_tree_node *node;
		struct sm_lower_file file;
		sm_tree_path_shown(pending->path, path);
		sm_tree_path_shown(pending->target, shown);
		int code = sm_tree_find(tree, pending->target, &node, &file, err);
		if (code < 0)
			return sm_error_context(err, "entry '%s'", path);
		if (node && !node->mode)
			node = node->settled;
		if (!node)
			return sm_error_set(err, EBADMSG, "entry '%s': hard link target '%s' is not in this layer%s",
			                    path, shown, tree->lower ? " nor in those below" : "");
		if (S_ISDIR(node->mode))
			return sm_error_set(err, EBADMSG, "entry '%s': hard link target '%s' is a directory", path,
			                    shown);
		pending->node->settled = node;
	}
	tree->pending = NULL;
	return 0;
}
