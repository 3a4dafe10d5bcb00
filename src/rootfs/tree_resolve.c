/* Where a path leads: symlinks among its parents, this layer's so far or lower layers', are followed within the image
 * as Linux does with the image as the root, and as umoci and containerd do when they unpack. */
#include "rootfs/lower.h"
#include "rootfs/tree_inside.h"

#include <errno.h>
#include <string.h>

#define LINKS_MAX 40 /* on one path, as Linux has it */
#define STEPS_MAX 8192

struct lead {
	struct sm_tree *tree;
	char *path; /* as far as it is resolved, without symlinks */
	size_t len;
	const struct sm_tree_node *node; /* this layer's deepest directory on it */
	size_t node_len;                 /* where that is */
	size_t absent_len;               /* from here on nothing is there; SIZE_MAX */
};

static void go_to_root(struct lead *lead)
{
	lead->path[0] = 0;
	lead->len = lead->node_len = 0;
	lead->node = lead->tree->root;
	lead->absent_len = SIZE_MAX;
}

static void go_up(struct lead *lead)
{
	while (lead->len && lead->path[--lead->len] != '/')
		continue;
	lead->path[lead->len] = 0;
	if (lead->len < lead->absent_len)
		lead->absent_len = SIZE_MAX;
	if (lead->len < lead->node_len) {
		lead->node = lead->node->directory.parent;
		lead->node_len = lead->len;
	}
}

static int go_down(struct lead *lead, const char *name, size_t len, struct sm_error *err)
{
	if (len > SM_TREE_NAME_MAX || lead->len + len + 2 > SM_TREE_PATH_MAX)
		return sm_error_set(err, ENAMETOOLONG, "path leads to one that is too long");
	if (lead->len)
		lead->path[lead->len++] = '/';
	memcpy(lead->path + lead->len, name, len);
	lead->len += len;
	lead->path[lead->len] = 0;
	return 0;
}

/* Does this layer hide what lower ones have at the path? */
static bool is_hidden(const struct lead *lead)
{
	const struct sm_tree_node *node = lead->tree->root;
	bool hidden = node->opaque;
	for (const char *at = lead->path; node && *at && !hidden;) {
		size_t len = strcspn(at, "/");
		const struct sm_tree_name *name = sm_tree_name_find(lead->tree, node, at, len);
		hidden = name && name->hides_lower;
		node = name ? name->node : NULL;
		at += len + !!at[len];
	}
	return hidden;
}

/* 1 when what lower layers have at the path is a symlink. */
static int look_below(struct lead *lead, char target[SM_TREE_TARGET_MAX], struct sm_error *err)
{
	struct sm_lower_file file;
	int found = is_hidden(lead) ? 0 : sm_tree_below(lead->tree, lead->path, lead->len, &file, err);
	if (found > 0 && S_ISLNK(file.inode.mode)) {
		int code = sm_lower_target(lead->tree->lower, &file, target, SM_TREE_TARGET_MAX, err);
		return code < 0 ? code : 1;
	}
	if (found == 0 || !S_ISDIR(file.inode.mode))
		lead->absent_len = lead->len;
	return found < 0 ? found : 0;
}

/* After a step down by `len` bytes: 1 when a symlink is there. */
static int look(struct lead *lead, size_t len, char target[SM_TREE_TARGET_MAX], struct sm_error *err)
{
	if (lead->len >= lead->absent_len)
		return 0;
	size_t start = lead->len - len;
	struct sm_tree_name *name = NULL;
	if (lead->node_len + !!lead->node_len == start)
		name = sm_tree_name_find(lead->tree, lead->node, lead->path + start, len);
	if (!name || !name->node)
		return look_below(lead, target, err);
	if (S_ISDIR(name->node->mode)) {
		lead->node = name->node;
		lead->node_len = lead->len;
	} else if (S_ISLNK(name->node->mode)) {
		memcpy(target, name->node->target, name->node->size + 1);
		return 1;
	} else {
		lead->absent_len = lead->len;
	}
	return 0;
}

int sm_tree_resolve(struct sm_tree *tree, const char *path, bool last_too, char out[SM_TREE_PATH_MAX],
                    struct sm_error *err)
{
	char buffer[2 * SM_TREE_PATH_MAX], target[SM_TREE_TARGET_MAX];
	char *rest = buffer + sizeof buffer - strlen(path) - 1; /* still to go */
	struct lead lead = { .tree = tree, .path = out };
	int links = 0;
	memcpy(rest, path, strlen(path) + 1);
	go_to_root(&lead);
	for (int steps = 0; *(rest += strspn(rest, "/")); steps++) {
		const char *name = rest;
		size_t len = strcspn(rest, "/");
		rest += len;
		if (steps >= STEPS_MAX)
			return sm_error_set(err, ELOOP, "path goes through more than %d directories", STEPS_MAX);
		if (len <= 2 && !memcmp(name, "..", len)) {
			if (len == 2)
				go_up(&lead);
			/* After it the next look below begins at the root. */
			steps += (int)lead.len / 64;
			continue;
		}
		int code = go_down(&lead, name, len, err);
		if (code < 0 || (!*rest && !last_too))
			return code;
		code = look(&lead, len, target, err);
		if (code < 0)
			return code;
		if (code == 0)
			continue;
		if (links++ == LINKS_MAX)
			return sm_error_set(err, ELOOP, "path goes through more than %d symlinks", LINKS_MAX);
		len = strlen(target);
		if (len >= (size_t)(rest - buffer))
			return sm_error_set(err, ENAMETOOLONG, "path leads to one that is too long");
		go_up(&lead);
		if (target[0] == '/')
			go_to_root(&lead);
		*--rest = '/';
		rest -= len;
		memcpy(rest, target, len);
	}
	return 0;
}
