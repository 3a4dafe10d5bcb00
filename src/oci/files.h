/* Named files that a source reads from: those of a folder, or the members of a tar that stays packed.
 * Used by one thread at a time, as the source is. */
#ifndef SM_OCI_FILES_H
#define SM_OCI_FILES_H

#include "oci/source.h"

#include <limits.h>

struct sm_oci_files {
	const struct sm_oci_files_ops *ops;
	const atomic_bool *cancel; /* NULL: never */
	char path[PATH_MAX];       /* of the folder or the tar */
};

struct sm_oci_files_ops {
	/* One file's bytes.  When the sink fails, *err is left alone. */
	int (*read)(struct sm_oci_files *files, const char *name, sm_oci_sink sink, void *arg, struct sm_error *err);
	void (*free)(struct sm_oci_files *files);
};

/* Looks at nothing yet. */
int sm_oci_files_open_folder(const char *path, const atomic_bool *cancel, struct sm_oci_files **ret,
                             struct sm_error *err);
void sm_oci_files_free(struct sm_oci_files *files); /* NULL is fine */

/* A read-only descriptor of a regular file and its size; -EBADMSG for what is no regular file. */
int sm_oci_files_open_regular(const char *path, uint64_t *ret_size, struct sm_error *err);

int sm_oci_files_read(struct sm_oci_files *files, const char *name, sm_oci_sink sink, void *arg, struct sm_error *err);
/* A whole file into ret; -EFBIG past its max. */
int sm_oci_files_read_small(struct sm_oci_files *files, const char *name, struct sm_buf *ret, struct sm_error *err);

#endif
