/* From a reference to one image manifest: through indexes, nested ones too, by platform. */
#ifndef SM_OCI_RESOLVE_H
#define SM_OCI_RESOLVE_H

#include "oci/source.h"
#include "oci/store.h"

struct sm_oci_resolved {
	char root[SM_OCI_DIGEST_SIZE]; /* of what the reference names: the manifest itself, or an index above it */
	char digest[SM_OCI_DIGEST_SIZE];
	struct sm_buf manifest; /* verified bytes */
	struct sm_buf config;   /* verified bytes, of the wanted operating system and architecture */
	struct sm_oci_manifest parsed;
};

/* digest "" starts at what the reference names, otherwise at this manifest or index.  Nothing is written to the store.
 * -ENOEXEC, listing what there is, when no image serves the platform. */
int sm_oci_resolve(struct sm_oci_source *source, const struct sm_oci_store *store, const char *digest,
                   const struct sm_oci_platform *wanted, struct sm_oci_resolved *ret, struct sm_error *err);
void sm_oci_resolved_done(struct sm_oci_resolved *resolved); /* safe on a zeroed one and twice */
#define SM_OCI_RESOLVED_CLEANUP __attribute__((cleanup(sm_oci_resolved_done)))

#endif
