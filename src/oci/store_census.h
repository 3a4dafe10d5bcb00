/* All that lies in a store, and who needs it: what list, du, gc and verify go by.
 *
 *   refs/HEX               references (oci/store.h)
 *   blobs/sha256/HEX       blobs
 *   erofs/...HEX.erofs     layers as EROFS images; HEX is the diff id's, or the chain id's
 *   snapshots/NAME/        baked snapshots
 *   partial/               blobs and references that are being written, or were when their process died
 *   roots/HEX              the paths of snapshots elsewhere whose disks lie here; HEX is the path's hash
 *
 * Other names in these folders are temporaries; other folders are left alone.  A census is one thread's. */
#ifndef SM_OCI_STORE_CENSUS_H
#define SM_OCI_STORE_CENSUS_H

#include "oci/store.h"

#include <stdbool.h>
#include <stdint.h>

/* What a snapshot needs.  Owned. */
struct sm_oci_facts {
	char image[SM_OCI_DIGEST_SIZE]; /* the manifest it was made of; "": not said */
	char **files;                   /* absolute paths */
	size_t nfiles;
	char *parent; /* the snapshot that it leans on; NULL: none */
};
/* The store does not know how snapshots are written: the caller gives what reads one folder's facts. */
typedef int (*sm_oci_facts_read)(const char *folder, struct sm_oci_facts *ret_facts, struct sm_error *err);

/* A file or folder in the store. */
struct sm_oci_entry {
	char *name;
	bool temporary;  /* by its name */
	uint64_t bytes;  /* on the disk */
	int64_t mtime_s; /* since 1970 */
	/* For whoever walks the census. */
	unsigned uses, stamp;
};

struct sm_oci_folder {
	char path[PATH_MAX];
	struct sm_oci_entry *list; /* by name */
	size_t count;
};

struct sm_oci_ref {
	const struct sm_oci_entry *entry;
	char *reference, *platform; /* NULL when the file cannot be made out; error says why */
	char digest[SM_OCI_DIGEST_SIZE];
	struct sm_error error;
};

struct sm_oci_snapshot {
	char *path;
	struct sm_oci_entry *entry; /* of snapshots/ or roots/ */
	bool baked;                 /* in snapshots/ */
	bool gone;                  /* an entry of roots/ whose snapshot is no more */
	struct sm_oci_facts facts;
	struct sm_error error; /* code is not 0 when the facts cannot be made out */
};

struct sm_oci_census {
	const struct sm_oci_store *store;
	struct sm_oci_folder refs_folder, blobs, erofs, snapshots_folder, partial, roots;
	struct sm_oci_ref *refs;
	size_t nrefs;
	struct sm_oci_snapshot *snapshots;
	size_t nsnapshots;
};

/* `facts` NULL: snapshots are not looked into.  Damage is noted, not an error. */
int sm_oci_census_take(const struct sm_oci_store *store, sm_oci_facts_read facts, struct sm_oci_census *ret,
                       struct sm_error *err);
void sm_oci_census_done(struct sm_oci_census *census); /* safe on a zeroed one and twice */
#define SM_OCI_CENSUS_CLEANUP __attribute__((cleanup(sm_oci_census_done)))

/* One entry of refs/ again, and the end of what it gave. */
int sm_oci_ref_read(const struct sm_oci_folder *folder, const struct sm_oci_entry *entry, struct sm_oci_ref *ret);
void sm_oci_ref_done(struct sm_oci_ref *ref);

struct sm_oci_entry *sm_oci_census_blob(const struct sm_oci_census *census, const char *digest); /* or NULL */
/* The entry that a path names by its last part, wherever the store was when it was written down; or NULL. */
struct sm_oci_entry *sm_oci_census_erofs_file(const struct sm_oci_census *census, const char *path);

/* Visit what a manifest names and is stored: itself, config and layers, EROFS files of its layers; of an index, all of
 * its manifests that are there.  What is missing is counted in *ret_missing (NULL: whatever).  -EBADMSG for a damaged
 * one. */
typedef void (*sm_oci_visit)(void *arg, struct sm_oci_entry *entry, bool is_blob);
int sm_oci_census_walk(const struct sm_oci_census *census, const char *digest, sm_oci_visit visit, void *arg,
                       unsigned *ret_missing, struct sm_error *err);

/* Make the store spare what a snapshot at this absolute path names, when it lies outside. */
int sm_oci_store_add_root(const struct sm_oci_store *store, const char *snapshot, struct sm_error *err);

#endif
