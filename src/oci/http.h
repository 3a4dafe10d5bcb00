/* GET over http and https by libcurl: one handle, used by one thread.
 *
 * libcurl keeps one reference count for the process; curl_global_init and curl_global_cleanup are
 * thread-safe since 7.84, so each handle takes and gives back one reference and nothing stays behind.
 * No signal is used, no environment is read but the proxy variables. */
#ifndef SM_OCI_HTTP_H
#define SM_OCI_HTTP_H

#include "oci/certs.h"
#include "oci/source.h"

struct sm_oci_http;

struct sm_oci_http_request {
	const char *url;
	bool plain;                /* http:// may be spoken, to this machine; otherwise https:// alone */
	bool insecure;             /* with plain: to other machines too */
	const char *const *accept; /* NULL-terminated media types, or NULL */
	/* Who we are: a token, or a name and a password, or neither.  Never sent along with a redirect to another
	 * scheme, host or port. */
	const char *bearer;
	const char *username, *password;
	const char *form;                 /* NULL: GET; otherwise POST this form, and follow no redirect */
	const struct sm_oci_certs *certs; /* of the registry that this serves; NULL: only what each host has */
	sm_oci_sink sink;                 /* gets the body of a 200 */
	void *arg;
};

#define SM_OCI_HTTP_ERROR_BODY_MAX (16u << 10)
struct sm_oci_http_response {
	int status;
	char media_type[SM_OCI_MEDIA_TYPE_SIZE]; /* without parameters, lower case */
	char challenge[8192];                    /* every WWW-Authenticate of the host that was asked, joined by ", " */
	bool challenge_cut;                      /* there was more of them */
	struct sm_buf error_body;                /* the body of another status, cut */
};

int sm_oci_http_new(const struct sm_oci_source_options *options, struct sm_oci_http **ret, struct sm_error *err);
void sm_oci_http_free(struct sm_oci_http *http); /* NULL is fine */

/* 0 once there is an HTTP status, whichever; follows up to 5 redirects.  The sink's failure is passed on with
 * *err left alone.  The response must be zeroed or used before. */
int sm_oci_http_get(struct sm_oci_http *http, const struct sm_oci_http_request *request,
                    struct sm_oci_http_response *ret, struct sm_error *err);
void sm_oci_http_response_done(struct sm_oci_http_response *response);

/* Append text percent-encoded for a query (RFC 3986, unreserved characters stay). */
void sm_oci_http_escape(struct sm_buf *out, const char *text);

#endif
