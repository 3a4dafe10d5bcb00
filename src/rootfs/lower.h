/* The layers below one, merged as overlayfs shows them. */
#ifndef SM_ROOTFS_LOWER_H
#define SM_ROOTFS_LOWER_H

#include "rootfs/arena.h"
#include "rootfs/erofs_data.h"
#include "rootfs/erofs_read.h"

/* Gives the images, lowest first; descriptors and array are borrowed until the bake ends. */
typedef int (*sm_lower_open)(void *arg, const int **ret_fds, size_t *ret_count, struct sm_error *err);

struct sm_lower_file {
	size_t layer; /* from 0, the lowest */
	struct sm_erofs_inode inode;
};

struct sm_lower {
	sm_lower_open open; /* called at the first look */
	void *arg;
	struct sm_erofs_image *images; /* NULL: not looked at yet */
	size_t count;
	/* where the last look ended: the directories that are merged there, highest first; none: not at one */
	char at[SM_TREE_PATH_MAX];
	struct sm_lower_file *merged;
	size_t nmerged;
};

void sm_lower_init(struct sm_lower *lower, sm_lower_open open, void *arg);
void sm_lower_done(struct sm_lower *lower);

/* 1 and what is at the cleaned path (a symlink is itself), or 0: nothing, or its path goes through no directory. */
int sm_lower_find(struct sm_lower *lower, const char *path, struct sm_lower_file *ret_file, struct sm_error *err);
/* A symlink's target, NUL-terminated; at most max - 1 bytes (-ENAMETOOLONG). */
int sm_lower_target(struct sm_lower *lower, const struct sm_lower_file *file, char *out, size_t max,
                    struct sm_error *err);
/* The attributes as the tree keeps them; NULL: none. */
int sm_lower_xattrs(struct sm_lower *lower, const struct sm_lower_file *file, struct sm_arena *arena,
                    const void **ret_xattrs, struct sm_error *err);
/* Copy a regular file's content, with its holes. */
int sm_lower_copy(struct sm_lower *lower, const struct sm_lower_file *file, struct sm_erofs_data *data,
                  struct sm_arena *arena, struct sm_tree_data *ret_data, struct sm_error *err);

#endif
