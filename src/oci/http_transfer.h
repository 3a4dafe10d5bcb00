/* One transfer of a pool: a request with its redirects, from the first byte sent to what became of it.  Whoever moves
 * it on (oci/http.c) adds its handle to a pool and takes it out of there. */
#ifndef SM_OCI_HTTP_TRANSFER_H
#define SM_OCI_HTTP_TRANSFER_H

#include "oci/hop.h"

struct sm_oci_http_transfer {
	struct sm_oci_http *http; /* the pool's, with the next */
	struct sm_oci_http_transfer *next;
	const struct sm_oci_curl_library *lib; /* the pool's */
	CURL *curl;
	const char *ca_file; /* the pool's, or NULL */
	struct curl_slist *headers;
	char *url;                       /* where it is now */
	char origin[SM_OCI_ORIGIN_SIZE]; /* of the request's own URL */
	bool left;                       /* redirected to another origin: what comes is not from whom we asked */
	unsigned redirects;
	struct sm_oci_http_request request; /* only what is not said to libcurl is kept */
	struct sm_buf error_body;
	bool begun; /* the sink has been called, or could have been */
	bool given; /* it has got bytes */
	bool bad_range;
	size_t header_bytes; /* of this hop */
	bool enough;         /* of an error's body */
	int sink_code;
	bool ended;
	CURLcode result;
	struct sm_error refused; /* a redirect that is not followed */
	char message[CURL_ERROR_SIZE];
};

/* Ready to be sent; lib and ca_file are borrowed. */
int sm_oci_http_transfer_new(const struct sm_oci_curl_library *lib, const struct sm_oci_http_request *request,
                             unsigned stall_s, const char *ca_file, struct sm_oci_http_transfer **ret,
                             struct sm_error *err);
/* Whether a transfer with a result is to go on elsewhere; move, out of the pool, makes it ready or sets `refused`. */
bool sm_oci_http_transfer_is_moved(const struct sm_oci_http_transfer *transfer);
void sm_oci_http_transfer_move(struct sm_oci_http_transfer *transfer);
/* What sm_oci_http_finish gives. */
int sm_oci_http_transfer_end(struct sm_oci_http_transfer *transfer, struct sm_oci_http_response *ret,
                             struct sm_error *err);
void sm_oci_http_transfer_free(struct sm_oci_http_transfer *transfer);

#endif
