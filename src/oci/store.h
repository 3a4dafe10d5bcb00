/* The content-addressed store: a folder, shared by every process of a user.
 *
 *   blobs/sha256/HEX   manifests, configs and layers, each verified before it appears under its name
 *   refs/HEX           what a reference last led to on one platform; HEX is the hash of both, the content is JSON
 *   partial/           files being written, each locked by its writer (oci/partial.h)
 *
 * Blobs never change and files appear whole or not at all, so readers need no lock; of several writers of one blob
 * one writes and the others wait for it.  A writer may be killed at any point.  Any thread. */
#ifndef SM_OCI_STORE_H
#define SM_OCI_STORE_H

#include "base/buf.h"
#include "base/path.h"
#include "base/sha256.h"
#include "oci/digest.h"
#include "oci/partial.h"
#include "oci/platform.h"

#include <stdatomic.h>
#include <stdint.h>

struct sm_oci_store {
	char path[PATH_MAX];
};

/* path NULL: the user's data folder (base/path.h).  Makes the folders that are missing. */
int sm_oci_store_init(struct sm_oci_store *store, const char *path, struct sm_error *err);

/* The digest is checked; the path says nothing about whether the blob is there. */
int sm_oci_store_blob_path(const struct sm_oci_store *store, const char *digest, char out[PATH_MAX],
                           struct sm_error *err);
/* A read-only descriptor of a stored blob, owned by the caller; *ret_size may be NULL.  -ENOENT when it is not there.
 */
int sm_oci_store_open_blob(const struct sm_oci_store *store, const char *digest, uint64_t *ret_size,
                           struct sm_error *err);
/* Is a blob of this size there?  Its bytes were checked when it was written. */
bool sm_oci_store_has(const struct sm_oci_store *store, const char *digest, uint64_t size);
/* A small blob into memory, its digest checked again (-EBADMSG). */
int sm_oci_store_read(const struct sm_oci_store *store, const char *digest, struct sm_buf *ret, struct sm_error *err);
/* A small blob from memory, whose digest the caller has checked. */
int sm_oci_store_put(const struct sm_oci_store *store, const char *digest, const void *data, size_t len,
                     struct sm_error *err);

/* The folder of the files being written. */
int sm_oci_store_partial_path(const struct sm_oci_store *store, char out[PATH_MAX], struct sm_error *err);

/* A blob that streams in.  init, begin, any number of writes, then commit, which checks size and digest.  discard or
 * keep end it at any point (after commit they do nothing): keep leaves what came, for a later begin to go on from.
 * Embedded; not shared between threads. */
struct sm_oci_ingest {
	struct sm_oci_partial file;
	struct sm_sha256 *hash;
	char path[PATH_MAX]; /* the blob's */
	char digest[SM_OCI_DIGEST_SIZE];
	uint64_t expected;
	uint64_t written; /* bytes that are there and hashed */
	uint64_t synced;  /* bytes that the disk was told about */
	struct sm_error *err;
};
void sm_oci_ingest_init(struct sm_oci_ingest *ingest);
/* Locks the blob.  `written` is then what an earlier writer left, hashed again; *cancel (NULL: never) ends that.
 * -EAGAIN with err left alone: another writes it; wait (oci/partial.h) and call again. */
int sm_oci_ingest_begin(struct sm_oci_ingest *ingest, const struct sm_oci_store *store, const char *digest,
                        uint64_t size, const atomic_bool *cancel, struct sm_error *err);
/* Forget what came: the next write is the blob's first byte. */
int sm_oci_ingest_restart(void *ingest);
/* A sm_oci_sink (oci/source.h); refuses what goes beyond the expected size.  The error is set in begin's err. */
int sm_oci_ingest_write(void *ingest, const void *data, size_t len);
int sm_oci_ingest_commit(struct sm_oci_ingest *ingest, struct sm_error *err);
void sm_oci_ingest_keep(struct sm_oci_ingest *ingest);
void sm_oci_ingest_discard(struct sm_oci_ingest *ingest);

/* The manifest digest a reference (in its one spelling) last led to, and by way of which root: the manifest itself, an
 * index, or "" when that is not known (ret_root may be NULL).  -ENOENT when it never did. */
int sm_oci_store_ref_get(const struct sm_oci_store *store, const char *reference,
                         const struct sm_oci_platform *platform, char ret_digest[SM_OCI_DIGEST_SIZE],
                         char ret_root[SM_OCI_DIGEST_SIZE], struct sm_error *err);
int sm_oci_store_ref_set(const struct sm_oci_store *store, const char *reference,
                         const struct sm_oci_platform *platform, const char *digest, const char *root_digest,
                         struct sm_error *err);

#endif
