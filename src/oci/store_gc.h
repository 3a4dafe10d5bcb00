/* Taking out of the store what nothing needs.
 *
 * Kept: what a reference leads to; what an open image names, or any other file that is held (oci/store_lock.h); the
 * EROFS files that a snapshot names, in the store or where roots/ says.  Temporaries go: under the exclusive lock their
 * processes are dead.  When a snapshot cannot be made out, every EROFS file is kept; when a reference or what it leads
 * to is damaged, nothing is removed (oci/store_verify.h repairs that).
 *
 * Each removal stands alone, so a gc that is killed leaves a sound store, and the next one goes on.  Blocks; any
 * thread. */
#ifndef SM_OCI_STORE_GC_H
#define SM_OCI_STORE_GC_H

#include "base/json.h"
#include "oci/store_census.h"

#include <stdatomic.h>

struct sm_oci_gc_options {
	bool dry_run;              /* report alone */
	uint64_t min_age_s;        /* spare what was written since */
	bool snapshots;            /* baked snapshots, too, that no open snapshot or machine uses and whose image has no
	                              reference */
	const atomic_bool *cancel; /* NULL: never */
};

/* The report, owned by the caller: removed, a list of { kind = "blob" | "erofs" | "snapshot" | "temporary" | "root",
 * name, bytes }; removed_bytes; held and young, counts of what was spared; unreadable, a list of snapshots. */
int sm_oci_store_gc(const struct sm_oci_store *store, sm_oci_facts_read facts, const struct sm_oci_gc_options *options,
                    cJSON **ret_report, struct sm_error *err);

#endif
