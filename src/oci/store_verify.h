/* Is the store what it says it is? */
#ifndef SM_OCI_STORE_VERIFY_H
#define SM_OCI_STORE_VERIFY_H

#include "base/json.h"
#include "oci/store_census.h"

#include <stdatomic.h>

/* Is the open file a sound EROFS image of the layer with this diff id?  The floor above knows. */
typedef int (*sm_oci_erofs_check)(int fd, const char *diff_id);

struct sm_oci_verify_options {
	const char *name, *platform; /* one image alone, as oci/store_report.h names it; NULL: all that is there */
	bool remove;                 /* what is damaged, unless it is held: the next pull or bake makes it anew */
	const atomic_bool *cancel;   /* NULL: never */
};

/* Hash every blob, check every EROFS image, read every reference and follow it.  The report, owned by the caller:
 * blobs, erofs and references, counts of what was looked at; bytes, hashed; problems, a list of { kind = "blob" |
 * "erofs" | "reference", name, problem, removed }.  Without `remove` nothing is locked or changed; with it the store is
 * locked from the first removal on.  Blocks; any thread. */
int sm_oci_store_verify(const struct sm_oci_store *store, sm_oci_erofs_check check,
                        const struct sm_oci_verify_options *options, cJSON **ret_report, struct sm_error *err);

#endif
