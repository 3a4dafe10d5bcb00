#include "oci/http_transfer.h"

#include "oci/retry.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#if LIBCURL_VERSION_NUM < 0x075500
#error "libcurl 7.85 or newer is needed: thread-safe global state and CURLOPT_PROTOCOLS_STR"
#endif

#define REDIRECTS_MAX     5
#define CONNECT_TIMEOUT_S 30L
#define STALL_BYTES_PER_S 1024L /* a transfer slower than this for a while is dead */
#define BUFFER_BYTES      (256L << 10)
#define HEADERS_MAX       (256u << 10) /* libcurl keeps them all */

static int status_of(const struct sm_oci_http_transfer *transfer)
{
	long status = 0;
	transfer->lib->easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
	return (int)status;
}

/* "bytes FIRST-LAST/SIZE" (RFC 9110, 14.4) for what was asked for; the size may be "*". */
static bool range_fits(const struct sm_oci_http_transfer *transfer)
{
	struct curl_header *header;
	if (transfer->lib->easy_header(transfer->curl, "Content-Range", 0, CURLH_HEADER, -1, &header) ||
	    strncasecmp(header->value, "bytes ", 6))
		return false;
	unsigned long long first, last, size = transfer->request.size;
	char whole[24];
	if (sscanf(header->value + 6, " %20llu-%20llu/%23s", &first, &last, whole) != 3)
		return false;
	if (strcmp(whole, "*")) {
		char *end;
		size = strtoull(whole, &end, 10);
		if (*end)
			return false;
	}
	return first == transfer->request.offset && size == transfer->request.size && last + 1 == size;
}

/* Before the first byte of a body that was asked for. */
static int begin_body(struct sm_oci_http_transfer *transfer, int status)
{
	const struct sm_oci_http_request *request = &transfer->request;
	transfer->begun = true;
	if (status == 206) {
		transfer->bad_range = !range_fits(transfer);
		return transfer->bad_range ? -ERANGE : 0;
	}
	return request->offset && request->restart ? request->restart(request->arg) : 0;
}

static bool wanted(const struct sm_oci_http_transfer *transfer, int status)
{
	return status == 200 || (status == 206 && transfer->request.offset);
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
	struct sm_oci_http_transfer *transfer = arg;
	size_t len = size * count;
	int status = status_of(transfer);
	if (wanted(transfer, status)) {
		if (!transfer->begun)
			transfer->sink_code = begin_body(transfer, status);
		transfer->given |= transfer->sink_code >= 0;
		if (transfer->sink_code >= 0)
			transfer->sink_code = transfer->request.sink(transfer->request.arg, data, len);
		return transfer->sink_code < 0 ? CURL_WRITEFUNC_ERROR : len;
	}
	struct sm_buf *body = &transfer->error_body;
	size_t room = body->max - body->len;
	sm_buf_append(body, data, len < room ? len : room);
	transfer->enough = len > room;
	return transfer->enough ? CURL_WRITEFUNC_ERROR : len;
}

static size_t on_header(char *data, size_t size, size_t count, void *arg)
{
	(void)data;
	struct sm_oci_http_transfer *transfer = arg;
	transfer->header_bytes += size * count;
	return transfer->header_bytes > HEADERS_MAX ? 0 : size * count;
}

/* The text behind it is libcurl's or the system's; the class is what a caller can act on. */
static int error_code(const struct sm_oci_http_transfer *transfer)
{
	long number = 0;
	transfer->lib->easy_getinfo(transfer->curl, CURLINFO_OS_ERRNO, &number);
	switch (transfer->result) {
	case CURLE_OUT_OF_MEMORY:
		return ENOMEM;
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return EHOSTUNREACH;
	case CURLE_COULDNT_CONNECT:
		return number ? (int)number : ECONNREFUSED;
	case CURLE_OPERATION_TIMEDOUT:
		return ETIMEDOUT;
	case CURLE_TOO_MANY_REDIRECTS:
		return ELOOP;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CONNECT_ERROR:
		return EPROTO;
	case CURLE_UNSUPPORTED_PROTOCOL:
		return EPROTONOSUPPORT;
	case CURLE_URL_MALFORMAT:
		return EINVAL;
	default:
		return EIO;
	}
}

/* Aim at transfer->url.  By hand, also after a redirect: libcurl would show the client certificate to whoever we are
 * sent to. */
static int set_url(struct sm_oci_http_transfer *transfer, struct sm_error *err)
{
	char origin[SM_OCI_ORIGIN_SIZE], host[SM_OCI_HOST_SIZE];
	CURL *curl = transfer->curl;
	const char *url = transfer->url;
	sm_oci_hop_split(transfer->lib, url, origin, host);
	if (!sm_oci_hop_allowed(&transfer->request, origin, host))
		return sm_error_set(err, EPROTONOSUPPORT, "%s%.*s: the protocol is not https",
		                    transfer->redirects ? "redirected to " : "", sm_oci_hop_shown(url), url);
	if (!transfer->redirects)
		memcpy(transfer->origin, origin, sizeof origin);
	transfer->left |= strcmp(transfer->origin, origin) != 0;
	CURLcode code = transfer->lib->easy_setopt(curl, CURLOPT_URL, url);
	if (transfer->left) {
		code = code ? code : transfer->lib->easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, NULL);
		code = code ? code : transfer->lib->easy_setopt(curl, CURLOPT_USERNAME, NULL);
		code = code ? code : transfer->lib->easy_setopt(curl, CURLOPT_PASSWORD, NULL);
		code = code ? code : transfer->lib->easy_setopt(curl, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
	}
	/* A proxy cannot reach what is on this machine. */
	code = code ? code
	            : transfer->lib->easy_setopt(curl, CURLOPT_PROXY, sm_oci_reference_is_loopback(host) ? "" : NULL);
	return code ? sm_error_set(err, EIO, "libcurl refuses an option")
	            : sm_oci_hop_trust(transfer->lib, curl, host, transfer->request.certs, transfer->ca_file, err);
}

static int set_options(struct sm_oci_http_transfer *transfer, const struct sm_oci_http_request *request,
                       unsigned stall_s)
{
	CURL *curl = transfer->curl;
	char range[32];
	CURLcode code = CURLE_OK;
#define SET(option, value) code = code ? code : transfer->lib->easy_setopt(curl, option, value)
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
	SET(CURLOPT_LOW_SPEED_LIMIT, STALL_BYTES_PER_S);
	SET(CURLOPT_LOW_SPEED_TIME, (long)stall_s);
	SET(CURLOPT_BUFFERSIZE, BUFFER_BYTES);
	SET(CURLOPT_USERAGENT, "supermachine");
	SET(CURLOPT_HTTPHEADER, transfer->headers);
	SET(CURLOPT_ERRORBUFFER, transfer->message);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, transfer);
	SET(CURLOPT_HEADERFUNCTION, on_header);
	SET(CURLOPT_HEADERDATA, transfer);
	SET(CURLOPT_PRIVATE, transfer);
	if (request->offset) {
		snprintf(range, sizeof range, "%llu-", (unsigned long long)request->offset);
		SET(CURLOPT_RANGE, range);
	}
	if (request->bearer) {
		SET(CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
		SET(CURLOPT_XOAUTH2_BEARER, request->bearer);
	} else if (request->username) {
		SET(CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		SET(CURLOPT_USERNAME, request->username);
		SET(CURLOPT_PASSWORD, request->password);
	}
	if (request->head)
		SET(CURLOPT_NOBODY, 1L);
	if (request->form)
		SET(CURLOPT_COPYPOSTFIELDS, request->form);
#undef SET
	return code ? -EINVAL : 0;
}

static void read_challenges(const struct sm_oci_http_transfer *transfer, struct sm_oci_http_response *response)
{
	struct curl_header *header;
	size_t len = 0, size = sizeof response->challenge;
	for (size_t i = 0;
	     !transfer->lib->easy_header(transfer->curl, "WWW-Authenticate", i, CURLH_HEADER, -1, &header); i++) {
		if (len + strlen(header->value) + 3 > size)
			response->challenge_cut = true;
		else
			len += (size_t)snprintf(response->challenge + len, size - len, "%s%s", len ? ", " : "",
			                        header->value);
	}
}

static void read_response(struct sm_oci_http_transfer *transfer, struct sm_oci_http_response *response)
{
	CURL *curl = transfer->curl;
	const char *type = NULL;
	curl_off_t retry_after = 0;
	response->status = status_of(transfer);
	response->error_body = transfer->error_body;
	memset(&transfer->error_body, 0, sizeof transfer->error_body);
	transfer->lib->easy_getinfo(curl, CURLINFO_RETRY_AFTER, &retry_after);
	if (retry_after > 0)
		response->retry_after_s = retry_after < UINT_MAX ? (unsigned)retry_after : UINT_MAX;
	response->transient =
	    sm_oci_retry_status(response->status) && response->retry_after_s <= SM_OCI_RETRY_AFTER_MAX_S;
	if (!transfer->lib->easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &type) && type) {
		size_t len = strcspn(type, "; \t");
		if (len < sizeof response->media_type)
			for (size_t i = 0; i < len; i++)
				response->media_type[i] = (char)tolower((unsigned char)type[i]);
	}
	struct curl_header *digest;
	if (!transfer->lib->easy_header(curl, "Docker-Content-Digest", 0, CURLH_HEADER, -1, &digest) &&
	    strlen(digest->value) < sizeof response->content_digest)
		snprintf(response->content_digest, sizeof response->content_digest, "%s", digest->value);
	/* Another host's challenge is none of ours to answer. */
	if (!transfer->left)
		read_challenges(transfer, response);
}

static int set_headers(struct sm_oci_http_transfer *transfer, const char *const *accept)
{
	for (const char *const *type = accept; type && *type; type++) {
		char line[SM_OCI_MEDIA_TYPE_SIZE + 16];
		struct curl_slist *more = NULL;
		if (snprintf(line, sizeof line, "Accept: %s", *type) < (int)sizeof line)
			more = transfer->lib->slist_append(transfer->headers, line);
		if (!more)
			return -ENOMEM;
		transfer->headers = more;
	}
	return 0;
}

void sm_oci_http_transfer_free(struct sm_oci_http_transfer *transfer)
{
	transfer->lib->easy_cleanup(transfer->curl);
	transfer->lib->slist_free_all(transfer->headers);
	sm_buf_done(&transfer->error_body);
	free(transfer->url);
	free(transfer);
}

int sm_oci_http_transfer_new(const struct sm_oci_curl_library *lib, const struct sm_oci_http_request *request,
                             unsigned stall_s, const char *ca_file, struct sm_oci_http_transfer **ret,
                             struct sm_error *err)
{
	struct sm_oci_http_transfer *transfer = calloc(1, sizeof *transfer);
	if (!transfer)
		return sm_error_sys(err, ENOMEM, "GET %.*s", sm_oci_hop_shown(request->url), request->url);
	transfer->lib = lib;
	transfer->ca_file = ca_file;
	transfer->request = *request;
	transfer->url = strdup(request->url);
	transfer->curl = transfer->lib->easy_init();
	sm_buf_init(&transfer->error_body, SM_OCI_HTTP_ERROR_BODY_MAX);
	int code = transfer->url && transfer->curl ? set_headers(transfer, request->accept) : -ENOMEM;
	if (code < 0)
		sm_error_sys(err, ENOMEM, "GET %.*s", sm_oci_hop_shown(request->url), request->url);
	else if ((code = set_options(transfer, request, stall_s)) < 0)
		sm_error_set(err, EIO, "GET %.*s: libcurl refuses an option", sm_oci_hop_shown(request->url),
		             request->url);
	else if ((code = set_url(transfer, err)) < 0)
		sm_error_context(err, "GET %.*s", sm_oci_hop_shown(request->url), request->url);
	if (code < 0)
		sm_oci_http_transfer_free(transfer);
	else
		*ret = transfer;
	return code;
}

bool sm_oci_http_transfer_is_moved(const struct sm_oci_http_transfer *transfer)
{
	const char *next = NULL;
	return (!transfer->result || transfer->enough) && !transfer->request.form &&
	       !transfer->lib->easy_getinfo(transfer->curl, CURLINFO_REDIRECT_URL, &next) && next;
}

void sm_oci_http_transfer_move(struct sm_oci_http_transfer *transfer)
{
	const char *next = NULL;
	struct sm_error *err = &transfer->refused;
	transfer->lib->easy_getinfo(transfer->curl, CURLINFO_REDIRECT_URL, &next);
	char *url = next ? strdup(next) : NULL;
	if (url) {
		free(transfer->url);
		transfer->url = url;
	}
	sm_buf_clear(&transfer->error_body);
	transfer->enough = false;
	transfer->header_bytes = 0;
	if (!url)
		sm_error_sys(err, ENOMEM, "redirect");
	else if (++transfer->redirects > REDIRECTS_MAX)
		sm_error_set(err, ELOOP, "more than %d redirects", REDIRECTS_MAX);
	else
		set_url(transfer, err);
}

static bool worth_another(CURLcode result)
{
	switch (result) {
	case CURLE_COULDNT_CONNECT:
	case CURLE_OPERATION_TIMEDOUT:
	case CURLE_PARTIAL_FILE:
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
		return true;
	default:
		return false;
	}
}

/* Why there is no answer. */
static int read_failure(const struct sm_oci_http_transfer *transfer, bool *ret_transient, struct sm_error *ret)
{
	char proxy[SM_OCI_HOST_SIZE];
	long status = 0;
	const char *text = transfer->message[0] ? transfer->message : transfer->lib->easy_strerror(transfer->result);
	const char *variable = sm_oci_hop_proxy(transfer->url, proxy);
	transfer->lib->easy_getinfo(transfer->curl, CURLINFO_HTTP_CONNECTCODE, &status);
	if (status_of(transfer) == 407)
		status = 407; /* without a tunnel */
	if (transfer->header_bytes > HEADERS_MAX)
		return sm_error_set(ret, EFBIG, "more than %u bytes of headers", HEADERS_MAX);
	/* libcurl's words have its login in them. */
	if (variable && !strncmp(text, "Unsupported proxy", strlen("Unsupported proxy")))
		return sm_error_set(ret, EINVAL, "what $%s says is no URL of a proxy that can be used", variable);
	if (status >= 300) {
		*ret_transient = sm_oci_retry_status((int)status);
		return sm_error_set(ret, status == 403 || status == 407 ? EACCES : EIO,
		                    "the proxy %s refuses: status %ld", variable ? proxy : "?", status);
	}
	*ret_transient = worth_another(transfer->result);
	return sm_error_set(ret, error_code(transfer), "%s", text);
}

int sm_oci_http_transfer_end(struct sm_oci_http_transfer *transfer, struct sm_oci_http_response *ret,
                             struct sm_error *err)
{
	int code = 0;
	sm_oci_http_response_done(ret);
	const char *method = transfer->request.form   ? "POST"
	                     : transfer->request.head ? "HEAD"
	                                              : "GET",
		   *url = transfer->url;
	ret->begun = transfer->given;
	if (!transfer->ended)
		code = sm_error_sys(err, ECANCELED, "%s %.*s", method, sm_oci_hop_shown(url), url);
	else if (transfer->refused.code)
		code = sm_error_set(err, transfer->refused.code, "%s %s: %s", method, transfer->origin,
		                    transfer->refused.message);
	/* A body of no bytes. */
	if (!code && !transfer->result && !transfer->begun && wanted(transfer, status_of(transfer)))
		transfer->sink_code = begin_body(transfer, status_of(transfer));
	if (!code && transfer->bad_range)
		code = sm_error_set(err, ERANGE, "GET %.*s: the answer is not the range from byte %llu of %llu",
		                    sm_oci_hop_shown(url), url, (unsigned long long)transfer->request.offset,
		                    (unsigned long long)transfer->request.size);
	else if (!code && transfer->sink_code < 0)
		code = transfer->sink_code;
	else if (!code && ((transfer->result && !transfer->enough) || status_of(transfer) == 407)) {
		struct sm_error why;
		code = read_failure(transfer, &ret->transient, &why);
		sm_error_set(err, code, "%s %.*s: %s", method, sm_oci_hop_shown(url), url, why.message);
	} else if (!code)
		read_response(transfer, ret);
	return code;
}
