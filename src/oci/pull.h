/* Pull: from a reference to an image whose every blob is in the store and verified. */
#ifndef SM_OCI_PULL_H
#define SM_OCI_PULL_H

#include "oci/image.h"
#include "oci/reference.h"

#include <stdatomic.h>

#define SM_OCI_BLOB_MAX_BYTES ((uint64_t)16 << 30) /* default cap of one layer */

enum sm_oci_pull_policy {
	SM_OCI_PULL_ALWAYS,  /* ask the source what a tag means now; a digest that is stored needs no asking */
	SM_OCI_PULL_MISSING, /* only when the store does not know the reference */
	SM_OCI_PULL_NEVER,   /* only from the store */
};

struct sm_oci_pull_options {
	const char *reference; /* see oci/reference.h */
	const char *store;     /* folder; NULL: the user's */
	const char *platform;  /* see oci/platform.h; NULL: linux on the host's architecture */
	enum sm_oci_pull_policy policy;
	bool insecure;        /* http:// to other machines too; certificates are checked regardless */
	const char *ca_file;  /* PEM; NULL: the system's and those of oci/certs.h */
	const char *username; /* both or neither; NULL: see oci/credentials.h */
	const char *password;
	const char *config;        /* see oci/registries.h; NULL: the user's */
	uint64_t blob_max_bytes;   /* cap of one layer; 0: SM_OCI_BLOB_MAX_BYTES */
	const atomic_bool *cancel; /* NULL: never; seen within about a second */
};

struct sm_oci_pull_stats {
	uint64_t fetched_bytes; /* of layers */
	uint64_t reused_bytes;
	unsigned fetched_layers;
	unsigned reused_layers; /* were in the store */
};

/* Blocks; any thread.  On failure nothing partial is left: whole verified blobs stay in the store, and no reference is
 * changed.  ret_stats may be NULL.  Errors by code: -EINVAL reference or platform, -ENOENT tag or blob, -EBADMSG
 * digest, size or format, -ENOEXEC platform, -EOPNOTSUPP schema 1 or an artifact, -EFBIG caps, -EACCES login. */
int sm_oci_pull(const struct sm_oci_pull_options *options, struct sm_oci_image **ret_image,
                struct sm_oci_pull_stats *ret_stats, struct sm_error *err);

#endif
