/* The finished tree: whiteouts made real, links counted, directories sorted, files put in order. */
#include "rootfs/tree_inside.h"

#include <stdlib.h>
#include <string.h>

/* By unsigned bytes: the order that the format's binary search expects. */
static int compare_names(const void *left, const void *right)
{
	const struct sm_tree_name *const *a = left, *const *b = right;
	return strcmp((*a)->name, (*b)->name);
}

static void list(struct sm_tree *tree, struct sm_tree_node *node, struct sm_tree_node **last)
{
	if (node->listed)
		return;
	node->listed = true;
	if (*last)
		(*last)->next = node;
	else
		tree->first = node;
	*last = node;
	tree->nnodes++;
}

/* Count, allocate, fill and sort the directory's entries.  Whiteouts all are links to one node. */
static int sort_directory(struct sm_tree *tree, struct sm_tree_node *directory, struct sm_tree_node **whiteout,
                          struct sm_error *err)
{
	uint32_t count = 2;
	for (struct sm_tree_name *name = directory->directory.children; name; name = name->sibling)
		count += name->node || name->hides_lower;
	struct sm_tree_name **entries = sm_arena_alloc(&tree->arena, count * sizeof(struct sm_tree_name *));
	if (entries && !*whiteout) {
		*whiteout = sm_arena_alloc(&tree->arena, sizeof **whiteout);
		if (*whiteout)
			(*whiteout)->mode = S_IFCHR;
	}
	if (!entries || !*whiteout)
		return sm_tree_no_memory(err);
	count = 0;
	entries[count++] = tree->dot;
	entries[count++] = tree->dot_dot;
	for (struct sm_tree_name *name = directory->directory.children; name; name = name->sibling) {
		if (!name->node && name->hides_lower) {
			name->node = *whiteout;
			tree->nwhiteouts++;
		}
		if (name->node && !name->node->mode)
			name->node = name->node->settled;
		if (name->node)
			entries[count++] = name;
	}
	qsort(entries, count, sizeof(struct sm_tree_name *), compare_names);
	directory->directory.entries = entries;
	directory->directory.nentries = count;
	return 0;
}

int sm_tree_finish(struct sm_tree *tree, struct sm_error *err)
{
	struct sm_tree_node *whiteout = NULL, *last = NULL;
	list(tree, tree->root, &last);
	tree->root->nlink = 2;
	tree->nopaque = tree->root->opaque;
	/* The list grows while it is walked: directory by directory, each one's files together. */
	for (struct sm_tree_node *directory = tree->first; directory; directory = directory->next) {
		if (!S_ISDIR(directory->mode))
			continue;
		int code = sort_directory(tree, directory, &whiteout, err);
		if (code < 0)
			return code;
		for (uint32_t i = 0; i < directory->directory.nentries; i++) {
			struct sm_tree_name *name = directory->directory.entries[i];
			if (!name->node)
				continue;
			list(tree, name->node, &last);
			name->node->nlink++;
			if (S_ISDIR(name->node->mode)) {
				name->node->nlink++;
				directory->nlink++;
				name->node->opaque = name->hides_lower;
				tree->nopaque += name->node->opaque;
			}
		}
	}
	return 0;
}
