/* Certificates by host: the certs.d convention of docker and podman (containers-certs.d(5)).
 *
 * The first of $XDG_CONFIG_HOME/containers/certs.d/HOST[:PORT], /etc/containers/certs.d/.. and /etc/docker/certs.d/..
 * that is there counts.  In it *.crt are authorities to trust besides the system's, NAME.cert and NAME.key who we are
 * (PEM); of several the first by name. */
#ifndef SM_OCI_CERTS_H
#define SM_OCI_CERTS_H

#include "base/buf.h"
#include "base/error.h"

#include <limits.h>

#define SM_OCI_HOST_SIZE 288 /* "HOST[:PORT]" */

struct sm_oci_certs {
	char host[SM_OCI_HOST_SIZE]; /* whom it is for, as URLs name it */
	struct sm_buf ca;            /* PEM; empty: the system's alone */
	char certificate[PATH_MAX];  /* of the client; "": none */
	char key[PATH_MAX];
};

/* For the host, an authority being trusted too where `registry`, on whose word we go there, has it (NULL: none); its
 * client certificate is not taken over.  *ret must be zeroed or loaded before.  No folder is no failure.  -EBADMSG or
 * the system's error, naming the file. */
int sm_oci_certs_load(const char *host, const struct sm_oci_certs *registry, struct sm_oci_certs *ret,
                      struct sm_error *err);
void sm_oci_certs_done(struct sm_oci_certs *certs); /* safe on a zeroed one and twice */

#endif
