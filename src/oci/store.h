/* The content-addressed store: a folder, shared by every process of a user.
 *
 *   blobs/sha256/HEX   manifests, configs and layers, each verified before it appears under its name
 *   refs/HEX           what a reference last led to on one platform; HEX is the hash of both, the content is JSON
 *
 * Blobs never change and files appear whole or not at all, so readers need no lock and two pulls of one
 * image at the same time only waste work.  Any thread. */
#ifndef SM_OCI_STORE_H
#define SM_OCI_STORE_H

#include "base/buf.h"
#include "base/path.h"
#include "base/sha256.h"
#include "oci/digest.h"
#include "oci/platform.h"

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

/* A blob that streams in.  begin, any number of writes, then commit, which checks size and digest; discard
 * ends it at any point (after commit it does nothing).  Embedded; not shared between threads. */
struct sm_oci_ingest {
	struct sm_path_new file;
	struct sm_sha256 *hash;
	char digest[SM_OCI_DIGEST_SIZE];
	uint64_t expected;
	uint64_t written;
	struct sm_error *err;
};
int sm_oci_ingest_begin(struct sm_oci_ingest *ingest, const struct sm_oci_store *store, const char *digest,
                        uint64_t size, struct sm_error *err);
/* A sm_oci_sink (oci/source.h); refuses what goes beyond the expected size.  The error is set in begin's err. */
int sm_oci_ingest_write(void *ingest, const void *data, size_t len);
int sm_oci_ingest_commit(struct sm_oci_ingest *ingest, struct sm_error *err);
void sm_oci_ingest_discard(struct sm_oci_ingest *ingest);
#define SM_OCI_INGEST_CLEANUP __attribute__((cleanup(sm_oci_ingest_discard)))

/* The manifest digest a reference (in its one spelling) last led to.  -ENOENT when it never did. */
int sm_oci_store_ref_get(const struct sm_oci_store *store, const char *reference,
                         const struct sm_oci_platform *platform, char ret_digest[SM_OCI_DIGEST_SIZE],
                         struct sm_error *err);
int sm_oci_store_ref_set(const struct sm_oci_store *store, const char *reference,
                         const struct sm_oci_platform *platform, const char *digest, struct sm_error *err);

#endif
