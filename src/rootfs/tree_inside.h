/* What the files of the tree share; everybody else takes tree.h. */
#ifndef SM_ROOTFS_TREE_INSIDE_H
#define SM_ROOTFS_TREE_INSIDE_H

#include "rootfs/lower.h"
#include "rootfs/tree.h"

/* For an allocation that failed: errno says whether the maximum or the memory came first. */
int sm_tree_no_memory(struct sm_error *err);

/* tree_name.c; NULL: none, or no memory */
struct sm_tree_name *sm_tree_name_find(const struct sm_tree *tree, const struct sm_tree_node *directory,
                                       const char *name, size_t len);
struct sm_tree_name *sm_tree_name_new(struct sm_tree *tree, const char *name, size_t len); /* in no directory */
/* The name in the directory, made when there is none. */
int sm_tree_name_get(struct sm_tree *tree, struct sm_tree_node *directory, const char *name, size_t len,
                     struct sm_tree_name **ret_name, struct sm_error *err);

/* tree.c */
struct sm_tree_node *sm_tree_node_new(struct sm_tree *tree, uint32_t mode);
/* Put `node` at the name.  A directory that takes the place of another kind of file is not merged with what lower
 * layers have there: unpacked one after the other, that file would have replaced it. */
void sm_tree_name_set(struct sm_tree_name *name, struct sm_tree_node *node);
/* Walk to the directory that holds the path's last component, making what is missing; *ret_name is the name there, or
 * NULL for the root; with last_too it is made a directory. */
int sm_tree_walk(struct sm_tree *tree, const char *path, struct sm_tree_name **ret_name, bool last_too,
                 struct sm_error *err);

/* tree_lower.c */
/* What lower layers have at the first `len` bytes of path: 1, or 0 for nothing. */
int sm_tree_below(struct sm_tree *tree, const char *path, size_t len, struct sm_lower_file *ret_file,
                  struct sm_error *err);
/* Owner, mode, time and attributes. */
int sm_tree_node_from_lower(struct sm_tree *tree, const struct sm_lower_file *file, struct sm_tree_node *node,
                            struct sm_error *err);
/* Like walk, but makes nothing: *ret_node is what this layer has at the path, or NULL; then the result is 1 when lower
 * layers have *ret_file there. */
int sm_tree_find(struct sm_tree *tree, const char *path, struct sm_tree_node **ret_node, struct sm_lower_file *ret_file,
                 struct sm_error *err);

/* tree_resolve.c: the path with the symlinks among its parents followed (with last_too, all of it): this layer's so
 * far, or else lower layers'.  The root is what `..` cannot leave. */
int sm_tree_resolve(struct sm_tree *tree, const char *path, bool last_too, char out[SM_TREE_PATH_MAX],
                    struct sm_error *err);

#endif
