/* docker-credential-NAME: another program that knows passwords (github.com/docker/docker-credential-helpers). */
#ifndef SM_OCI_CREDENTIAL_HELPER_H
#define SM_OCI_CREDENTIAL_HELPER_H

#include "base/buf.h"
#include "base/error.h"

#include <stdatomic.h>

#define SM_OCI_CREDENTIAL_HELPER_MAX_BYTES  (64u << 10)
#define SM_OCI_CREDENTIAL_HELPER_TIMEOUT_MS 60000 /* somebody may have to type a pass phrase */

/* Runs `docker-credential-NAME get`, found in $PATH and without a shell, with `server` as its input.  1: ret (its max
 * is SM_OCI_CREDENTIAL_HELPER_MAX_BYTES) holds what it said; 0: it knows nothing of the server; -ENOENT no such
 * program, -ETIMEDOUT, -ECANCELED, -EFBIG, -ECHILD for another end.  Its words are in no message: they may be secret.
 * Its process group is gone when this returns.  cancel may be NULL. */
int sm_oci_credential_helper_get(const char *name, const char *server, int timeout_ms, const atomic_bool *cancel,
                                 struct sm_buf *ret, struct sm_error *err);

#endif
