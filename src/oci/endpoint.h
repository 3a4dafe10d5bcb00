/* One place that serves a repository: the registry itself, or a mirror of it. */
#ifndef SM_OCI_ENDPOINT_H
#define SM_OCI_ENDPOINT_H

#include "oci/auth.h"
#include "oci/registries.h"

struct sm_oci_endpoint {
	char host[SM_OCI_HOST_SIZE]; /* as users name it */
	char url[1024];              /* "https://HOST/v2/REPOSITORY" */
	char repository[512];        /* as it is called there */
	bool plain, insecure;
	bool dead; /* no connection came about, so none is tried again */
	struct sm_oci_certs certs;
	struct sm_oci_auth auth;
};

/* Embedded, and not moved afterwards.  The options are borrowed.  mirror NULL: the registry that the reference names.
 */
int sm_oci_endpoint_init(struct sm_oci_endpoint *endpoint, const struct sm_oci_reference *reference,
                         const struct sm_oci_mirror *mirror, const struct sm_oci_source_options *options,
                         struct sm_error *err);
void sm_oci_endpoint_done(struct sm_oci_endpoint *endpoint);

/* kind: "manifests" or "blobs".  ret_media_type may be NULL.  When the sink fails, *err is left alone. */
int sm_oci_endpoint_get(struct sm_oci_endpoint *endpoint, struct sm_oci_http *http, const char *kind, const char *name,
                        const char *const *accept, sm_oci_sink sink, void *arg, char *ret_media_type,
                        struct sm_error *err);

#endif
