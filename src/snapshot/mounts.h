/* Host folders that machines see: what is wished for, kept in snapshots, and opened for a machine. */
#ifndef SM_SNAPSHOT_MOUNTS_H
#define SM_SNAPSHOT_MOUNTS_H

#include "base/codec.h"
#include "base/error.h"
#include "plan/mount.h"

#include <stdbool.h>
#include <stddef.h>

#define SM_MOUNTS_MAX 64

/* Strings are owned. */
struct sm_source_mount {
	char *host;  /* a folder, or a regular file; absolute once it was added */
	char *guest; /* where it is in the guest, absolute */
	char *name;  /* of the file in its folder, for one; NULL: a folder */
	char tag[SM_MOUNT_TAG_MAX + 1];
	char *xattrs;            /* NULL: the usual ones */
	struct sm_mount options; /* without what is above, and without a descriptor */
};

/* In slot order. */
struct sm_source_mounts {
	unsigned count;
	struct sm_source_mount *list;
};

/* A copy of `wish`: its host path is made absolute, and what it names is looked at (-ENOENT, -EINVAL for what is
 * neither a folder nor a regular file).  An empty tag becomes "mount" and the slot's index.  -EEXIST for a guest path
 * or a tag that there is, -EINVAL for a guest path that is not absolute and plain, -E2BIG. */
int sm_source_mounts_add(struct sm_source_mounts *mounts, const struct sm_source_mount *wish, struct sm_error *err);
int sm_source_mounts_copy(const struct sm_source_mounts *from, struct sm_source_mounts *to, struct sm_error *err);
/* What is at the same place in the guest is replaced by `wish`, but for tag and DAX window, which the guest holds on
 * to; NULL when nothing is there. */
int sm_source_mounts_rebind(struct sm_source_mounts *mounts, const struct sm_source_mount *wish, struct sm_error *err);
const struct sm_source_mount *sm_source_mounts_find(const struct sm_source_mounts *mounts, const char *guest);
void sm_source_mounts_cut(struct sm_source_mounts *mounts, unsigned count); /* the first so many stay */
void sm_source_mounts_done(struct sm_source_mounts *mounts);

/* As a record.  get opens nothing: a host path that is gone is an error of who opens it. */
void sm_source_mounts_put(struct sm_buf *buf, const struct sm_source_mounts *mounts);
int sm_source_mounts_get(struct sm_reader *reader, struct sm_source_mounts *ret, struct sm_error *err);

/* What the machine is given; borrows the mount's strings, and has a descriptor, to be closed. */
int sm_source_mount_open(const struct sm_source_mount *mount, struct sm_mount *ret, struct sm_error *err);

#endif
