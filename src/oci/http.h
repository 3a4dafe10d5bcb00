/* GET over http and https by libcurl: many transfers at once over one pool of connections, all on one thread.
 * HTTP/2 where a server offers it over TLS, proxies as the environment says.
 *
 * libcurl keeps one reference count for the process; curl_global_init and curl_global_cleanup are
 * thread-safe since 7.84, so each handle takes and gives back one reference and nothing stays behind.
 * No signal is used, no environment is read but the proxy variables ($https_proxy, $http_proxy, $all_proxy, $no_proxy,
 * of all but http_proxy also in capitals). */
#ifndef SM_OCI_HTTP_H
#define SM_OCI_HTTP_H

#include "oci/certs.h"
#include "oci/source.h"

struct sm_oci_http;

struct sm_oci_http_request {
	const char *url;
	bool plain;                /* http:// may be spoken, to this machine; otherwise https:// alone */
	bool insecure;             /* with plain: to other machines too */
	bool once;                 /* get does not try again: there is somebody else to ask */
	bool head;                 /* HEAD: what would come, without the body */
	const char *const *accept; /* NULL-terminated media types, or NULL */
	/* Who we are: a token, or a name and a password, or neither.  Not sent along with a redirect to another scheme,
	 * host or port. */
	const char *bearer;
	const char *username, *password;
	const char *form;                 /* NULL: GET; otherwise POST this form, and follow no redirect */
	const struct sm_oci_certs *certs; /* of the registry that this serves; NULL: only what each host has */
	uint64_t offset;                  /* only the bytes from here on (Range), 0: all of them */
	uint64_t size;                    /* with an offset: of the whole; an answer that says otherwise is -ERANGE */
	sm_oci_sink sink;                 /* gets the body of a 200 or 206 */
	/* The body that follows begins at byte 0: the server takes no ranges, or a get is tried again.  NULL: a get
	 * that has given bytes to the sink is not tried again. */
	int (*restart)(void *arg);
	void *arg;
	void *owner; /* see sm_oci_http_run */
};

#define SM_OCI_HTTP_ERROR_BODY_MAX (16u << 10)
struct sm_oci_http_response {
	int status;
	char media_type[SM_OCI_MEDIA_TYPE_SIZE]; /* without parameters, lower case */
	char challenge[8192];                    /* every WWW-Authenticate of the host that was asked, joined by ", " */
	bool challenge_cut;                      /* there was more of them */
	char content_digest[SM_OCI_DIGEST_SIZE]; /* Docker-Content-Digest as it is, or "" */
	bool begun;                              /* the sink has been given bytes */
	struct sm_buf error_body;                /* the body of another status, cut */
	bool transient;                          /* it failed, but asking again may help (oci/retry.h) */
	unsigned retry_after_s;                  /* what the server asks for; 0: nothing */
};

int sm_oci_http_new(const struct sm_oci_source_options *options, struct sm_oci_http **ret, struct sm_error *err);
void sm_oci_http_free(struct sm_oci_http *http); /* NULL is fine */

/* 0 once there is an HTTP status, whichever; follows up to 5 redirects.  The sink's failure is passed on with
 * *err left alone.  What is transient is tried again; other transfers go on meanwhile.  The response must be zeroed or
 * used before. */
int sm_oci_http_get(struct sm_oci_http *http, const struct sm_oci_http_request *request,
                    struct sm_oci_http_response *ret, struct sm_error *err);

/* A transfer beside others.  start copies the request, whose certs stay borrowed; run moves all on and waits, at most
 * timeout_ms (negative: no limit), until one has ended, whose owner it gives, or wake_fd (-1: none) is readable or time
 * is up, with NULL; finish gives what get would from one attempt, and ends it at any point.  -ECANCELED from run. */
struct sm_oci_http_transfer;
int sm_oci_http_start(struct sm_oci_http *http, const struct sm_oci_http_request *request,
                      struct sm_oci_http_transfer **ret, struct sm_error *err);
int sm_oci_http_run(struct sm_oci_http *http, int wake_fd, int timeout_ms, void **ret_owner, struct sm_error *err);
int sm_oci_http_finish(struct sm_oci_http_transfer *transfer, struct sm_oci_http_response *ret, struct sm_error *err);
void sm_oci_http_response_done(struct sm_oci_http_response *response);

/* Append text percent-encoded for a query (RFC 3986, unreserved characters stay). */
void sm_oci_http_escape(struct sm_buf *out, const char *text);

#endif
