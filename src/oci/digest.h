/* Content digests: "sha256:" and 64 lower-case hex digits (OCI image-spec, descriptor.md, "Digests").
 * Other algorithms are refused by name. */
#ifndef SM_OCI_DIGEST_H
#define SM_OCI_DIGEST_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

#define SM_OCI_DIGEST_SIZE 72 /* with NUL */

/* 0, -EBADMSG for what is no digest, -EOPNOTSUPP for another algorithm; the error names `what`. */
int sm_oci_digest_check(const char *text, const char *what, struct sm_error *err);
/* The 64 hex digits of a checked digest.  Borrowed from it. */
const char *sm_oci_digest_hex(const char *digest);
/* The digest of a piece of memory.  0 or -ENOMEM. */
int sm_oci_digest_of(const void *data, size_t len, char out[SM_OCI_DIGEST_SIZE]);

#endif
