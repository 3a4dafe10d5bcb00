/* What a store holds, as documents; and its references changed.  Names are references as sm_oci_pull takes them, a
 * reference just as the list spells it, a manifest's digest, or 8 or more of its hex digits.  Blocks; any thread. */
#ifndef SM_OCI_STORE_REPORT_H
#define SM_OCI_STORE_REPORT_H

#include "base/json.h"
#include "oci/store_census.h"

#include <stdatomic.h>

/* Each gives a document owned by the caller.  Times are in seconds since 1970; `bytes` is space on the disk, `size`
 * what manifests say.  platform NULL: any, and where images of several answer to the name, the host's.  -ENOENT for a
 * name that the store does not know, -EINVAL for one that means several images. */

/* A list by name of { reference, platform, digest, size, layers, created (the image's own word, or absent), time (of
 * the pull or tag), complete }; a damaged one has `error`, and perhaps no more. */
int sm_oci_store_list(const struct sm_oci_store *store, cJSON **ret, struct sm_error *err);
/* { digest, platform, references, config_digest, size, layers, erofs, snapshots, process (oci/image_config.h), config,
 * manifest }: layers of { digest, diff_id, media_type, size, stored }, erofs of { path, bytes }, snapshots of { path,
 * bytes, time }, config and manifest as they are. */
int sm_oci_store_inspect(const struct sm_oci_store *store, sm_oci_facts_read facts, const char *name,
                         const char *platform, cJSON **ret, struct sm_error *err);
/* { blobs, erofs, snapshots, temporaries: { count, bytes }; bytes, of all; unused_bytes, what no image and no snapshot
 * needs; images, a list of { digest, references, bytes, unique_bytes, shared_bytes } }. */
int sm_oci_store_du(const struct sm_oci_store *store, sm_oci_facts_read facts, cJSON **ret, struct sm_error *err);

/* Another name for an image that is complete: { reference, platform, digest }. */
int sm_oci_store_tag(const struct sm_oci_store *store, const char *name, const char *platform, const char *new_name,
                     const atomic_bool *cancel, cJSON **ret, struct sm_error *err);
/* Forget a name, on every platform unless one is given; by a digest, all its names.  Blobs stay until gc.  A list of
 * what was removed, as tag has it. */
int sm_oci_store_remove(const struct sm_oci_store *store, const char *name, const char *platform, cJSON **ret,
                        struct sm_error *err);

#endif
