/* Names as a layer's tar gives them, made safe before anything is looked up. */
#ifndef SM_ROOTFS_TREE_PATH_H
#define SM_ROOTFS_TREE_PATH_H

#include "base/error.h"

#include <stdbool.h>

#define SM_TREE_PATH_MAX   4097 /* with the NUL: one more than a system call takes, for names relative to a directory */
#define SM_TREE_TARGET_MAX 4096 /* of a symlink, with the NUL, as Linux reads it */
#define SM_TREE_NAME_MAX   255

/* Write `raw` into out without leading slashes, empty and "." components; "" is the root.
 * `..` (-EBADMSG), an empty name (-EBADMSG), a component over 255 bytes and a path over 4096 bytes (-ENAMETOOLONG)
 * are refused; `what` says whose name it is.  A component that begins with ".wh." may be longer by that. */
int sm_tree_path_clean(const char *raw, const char *what, char out[SM_TREE_PATH_MAX], struct sm_error *err);

/* Split at the last slash: the parent ("" for the root) is written into parent; the last component is returned,
 * borrowed from path. */
const char *sm_tree_path_split(const char *path, char parent[SM_TREE_PATH_MAX]);

/* What the OCI image specification ("Representing Changes: Whiteouts") makes of a cleaned path. */
enum sm_tree_whiteout {
	SM_TREE_PLAIN,   /* no whiteout */
	SM_TREE_HIDE,    /* DIR/.wh.NAME: path becomes DIR/NAME */
	SM_TREE_OPAQUE,  /* DIR/.wh..wh..opq: path becomes DIR */
	SM_TREE_IGNORED, /* any other component .wh..wh.*: another tool's bookkeeping */
};

/* Classify and rewrite `path` in place.  A whiteout of nothing, of "." or "..", and a path below a whiteout are
 * refused with -EBADMSG. */
int sm_tree_path_whiteout(char path[SM_TREE_PATH_MAX], enum sm_tree_whiteout *ret_kind, struct sm_error *err);

/* A name from a stranger as it may stand in a message: cut, and without control characters. */
#define SM_TREE_SHOWN_MAX 200
const char *sm_tree_path_shown(const char *path, char out[SM_TREE_SHOWN_MAX]);

#endif
