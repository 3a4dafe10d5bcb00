/* Snapshots and the image stores that their disks lie in.  Private to this room but for sm_snapshot_facts_read. */
#ifndef SM_SNAPSHOT_STORES_H
#define SM_SNAPSHOT_STORES_H

#include "oci/store_census.h"
#include "oci/store_lock.h"
#include "snapshot/sources.h"

#define SM_SNAPSHOT_STORES_MAX 8

/* While a snapshot is being saved: the lock of every store that its disks lie in. */
struct sm_snapshot_stores {
	unsigned count;
	struct sm_oci_store stores[SM_SNAPSHOT_STORES_MAX];
	struct sm_oci_store_lock locks[SM_SNAPSHOT_STORES_MAX];
};

/* Lock the stores, and tell each where the snapshot will be, so that its gc spares what it names.  path: the
 * snapshot's, whose parent exists.  To be followed by _end, on failure too. */
int sm_snapshot_stores_begin(const struct sm_sources *sources, const char *path, struct sm_snapshot_stores *ret,
                             struct sm_error *err);
void sm_snapshot_stores_end(struct sm_snapshot_stores *stores);

/* A sm_oci_facts_read: what the snapshot in this folder says it needs, from its meta alone. */
int sm_snapshot_facts_read(const char *folder, struct sm_oci_facts *ret_facts, struct sm_error *err);

#endif
