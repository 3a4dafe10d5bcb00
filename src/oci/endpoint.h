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

#define SM_OCI_ENDPOINT_ANSWERS \
	2 /* to the challenges of one request: a token may have run out, or be of another scope */

/* What is asked for: "manifests" or "blobs", and a tag or digest.  In `request` sink, restart, arg and whatever else
 * is not of the endpoint are set by the caller. */
struct sm_oci_endpoint_request {
	const char *kind, *name;
	struct sm_oci_http_request http;
	char url[1400]; /* the rest is the endpoint's */
	unsigned turn, answers;
};

/* Complete request->http; to be sent at once. */
void sm_oci_endpoint_prepare(struct sm_oci_endpoint *endpoint, struct sm_oci_endpoint_request *request);
/* What came of it, `code` being sm_oci_http_finish's: 0, 1 when it is to be prepared and sent again, or an error.  A
 * sink's failure leaves *err alone. */
int sm_oci_endpoint_judge(struct sm_oci_endpoint *endpoint, struct sm_oci_http *http,
                          struct sm_oci_endpoint_request *request, int code, struct sm_oci_http_response *response,
                          struct sm_error *err);

#endif
