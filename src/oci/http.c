#include "oci/http.h"

#include "oci/hop.h"
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
#define STALL_S           60u
#define BUFFER_BYTES      (256L << 10)
#define FLAG_LOOKS_MS     500 /* without a descriptor that tells of a cancel */

struct sm_oci_http {
	CURLM *multi;
	const atomic_bool *cancel;
	int cancel_fd;
	unsigned stall_s;
	unsigned retries;
	char *ca_file;
	struct sm_oci_http_transfer *first;
};

struct sm_oci_http_transfer {
	struct sm_oci_http *http;
	struct sm_oci_http_transfer *next;
	CURL *curl;
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
	bool enough; /* of an error's body */
	int sink_code;
	bool ended;
	CURLcode result;
	struct sm_error refused; /* a redirect that is not followed */
	char message[CURL_ERROR_SIZE];
};

int sm_oci_http_new(const struct sm_oci_source_options *options, struct sm_oci_http **ret, struct sm_error *err)
{
	struct sm_oci_http *http = calloc(1, sizeof *http);
	if (!http)
		return sm_error_sys(err, ENOMEM, "libcurl");
	if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
		free(http);
		return sm_error_set(err, ENOMEM, "libcurl cannot be initialised");
	}
	http->multi = curl_multi_init();
	http->cancel = options->cancel;
	http->cancel_fd = options->cancel ? options->cancel_fd : -1;
	http->stall_s = options->stall_ms ? (options->stall_ms + 999) / 1000 : STALL_S;
	http->retries = options->retries;
	http->ca_file = options->ca_file ? strdup(options->ca_file) : NULL;
	if (!http->multi || (options->ca_file && !http->ca_file)) {
		sm_oci_http_free(http);
		return sm_error_sys(err, ENOMEM, "libcurl");
	}
	*ret = http;
	return 0;
}

void sm_oci_http_free(struct sm_oci_http *http)
{
	if (!http)
		return;
	curl_multi_cleanup(http->multi);
	curl_global_cleanup();
	free(http->ca_file);
	free(http);
}

static int status_of(const struct sm_oci_http_transfer *transfer)
{
	long status = 0;
	curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
	return (int)status;
}

/* "bytes FIRST-LAST/SIZE" (RFC 9110, 14.4) for what was asked for; the size may be "*". */
static bool range_fits(const struct sm_oci_http_transfer *transfer)
{
	struct curl_header *header;
	if (curl_easy_header(transfer->curl, "Content-Range", 0, CURLH_HEADER, -1, &header) ||
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

/* The text behind it is libcurl's or the system's; the class is what a caller can act on. */
static int error_code(CURL *curl, CURLcode code)
{
	long number = 0;
	curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &number);
	switch (code) {
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
	sm_oci_hop_split(url, origin, host);
	if (!sm_oci_hop_allowed(&transfer->request, origin, host))
		return sm_error_set(err, EPROTONOSUPPORT, "%s%.*s: the protocol is not https",
		                    transfer->redirects ? "redirected to " : "", sm_oci_hop_shown(url), url);
	if (!transfer->redirects)
		memcpy(transfer->origin, origin, sizeof origin);
	transfer->left |= strcmp(transfer->origin, origin) != 0;
	CURLcode code = curl_easy_setopt(curl, CURLOPT_URL, url);
	if (transfer->left) {
		code = code ? code : curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, NULL);
		code = code ? code : curl_easy_setopt(curl, CURLOPT_USERNAME, NULL);
		code = code ? code : curl_easy_setopt(curl, CURLOPT_PASSWORD, NULL);
		code = code ? code : curl_easy_setopt(curl, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
	}
	/* A proxy cannot reach what is on this machine. */
	code = code ? code : curl_easy_setopt(curl, CURLOPT_PROXY, sm_oci_reference_is_loopback(host) ? "" : NULL);
	return code ? sm_error_set(err, EIO, "libcurl refuses an option")
	            : sm_oci_hop_trust(curl, host, transfer->request.certs, transfer->http->ca_file, err);
}

static int set_options(struct sm_oci_http_transfer *transfer, const struct sm_oci_http_request *request)
{
	const struct sm_oci_http *http = transfer->http;
	CURL *curl = transfer->curl;
	char range[32];
	CURLcode code = CURLE_OK;
#define SET(option, value) code = code ? code : curl_easy_setopt(curl, option, value)
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
	SET(CURLOPT_LOW_SPEED_LIMIT, STALL_BYTES_PER_S);
	SET(CURLOPT_LOW_SPEED_TIME, (long)http->stall_s);
	SET(CURLOPT_BUFFERSIZE, BUFFER_BYTES);
	SET(CURLOPT_USERAGENT, "supermachine");
	SET(CURLOPT_HTTPHEADER, transfer->headers);
	SET(CURLOPT_ERRORBUFFER, transfer->message);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, transfer);
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
	if (request->form)
		SET(CURLOPT_COPYPOSTFIELDS, request->form);
#undef SET
	return code ? -EINVAL : 0;
}

static void read_challenges(CURL *curl, struct sm_oci_http_response *response)
{
	struct curl_header *header;
	size_t len = 0, size = sizeof response->challenge;
	for (size_t i = 0; !curl_easy_header(curl, "WWW-Authenticate", i, CURLH_HEADER, -1, &header); i++) {
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
	curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &retry_after);
	if (retry_after > 0)
		response->retry_after_s = retry_after < UINT_MAX ? (unsigned)retry_after : UINT_MAX;
	response->transient =
	    sm_oci_retry_status(response->status) && response->retry_after_s <= SM_OCI_RETRY_AFTER_MAX_S;
	if (!curl_easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &type) && type) {
		size_t len = strcspn(type, "; \t");
		if (len < sizeof response->media_type)
			for (size_t i = 0; i < len; i++)
				response->media_type[i] = (char)tolower((unsigned char)type[i]);
	}
	/* Another host's challenge is none of ours to answer. */
	if (!transfer->left)
		read_challenges(curl, response);
}

static int set_headers(struct sm_oci_http_transfer *transfer, const char *const *accept)
{
	for (const char *const *type = accept; type && *type; type++) {
		char line[SM_OCI_MEDIA_TYPE_SIZE + 16];
		struct curl_slist *more = NULL;
		if (snprintf(line, sizeof line, "Accept: %s", *type) < (int)sizeof line)
			more = curl_slist_append(transfer->headers, line);
		if (!more)
			return -ENOMEM;
		transfer->headers = more;
	}
	return 0;
}

static void drop(struct sm_oci_http_transfer *transfer)
{
	struct sm_oci_http_transfer **link = &transfer->http->first;
	while (*link && *link != transfer)
		link = &(*link)->next;
	if (*link) {
		*link = transfer->next;
		curl_multi_remove_handle(transfer->http->multi, transfer->curl);
	}
	curl_easy_cleanup(transfer->curl);
	curl_slist_free_all(transfer->headers);
	sm_buf_done(&transfer->error_body);
	free(transfer->url);
	free(transfer);
}

int sm_oci_http_start(struct sm_oci_http *http, const struct sm_oci_http_request *request,
                      struct sm_oci_http_transfer **ret, struct sm_error *err)
{
	struct sm_oci_http_transfer *transfer = calloc(1, sizeof *transfer);
	if (!transfer)
		return sm_error_sys(err, ENOMEM, "GET %.*s", sm_oci_hop_shown(request->url), request->url);
	transfer->http = http;
	transfer->request = *request;
	transfer->url = strdup(request->url);
	transfer->curl = curl_easy_init();
	sm_buf_init(&transfer->error_body, SM_OCI_HTTP_ERROR_BODY_MAX);
	int code = transfer->url && transfer->curl ? set_headers(transfer, request->accept) : -ENOMEM;
	if (code < 0)
		sm_error_sys(err, ENOMEM, "GET %.*s", sm_oci_hop_shown(request->url), request->url);
	else if ((code = set_options(transfer, request)) < 0)
		sm_error_set(err, EIO, "GET %.*s: libcurl refuses an option", sm_oci_hop_shown(request->url),
		             request->url);
	else if ((code = set_url(transfer, err)) < 0)
		sm_error_context(err, "GET %.*s", sm_oci_hop_shown(request->url), request->url);
	else if (curl_multi_add_handle(http->multi, transfer->curl))
		code = sm_error_set(err, EIO, "GET %.*s: libcurl refuses it", sm_oci_hop_shown(request->url),
		                    request->url);
	if (code < 0) {
		drop(transfer);
		return code;
	}
	transfer->next = http->first;
	http->first = transfer;
	*ret = transfer;
	return 0;
}

/* Whether the transfer that has ended goes on elsewhere. */
static bool follow(struct sm_oci_http_transfer *transfer)
{
	const char *next = NULL;
	struct sm_error *err = &transfer->refused;
	if ((transfer->result && !transfer->enough) || transfer->request.form ||
	    curl_easy_getinfo(transfer->curl, CURLINFO_REDIRECT_URL, &next) || !next)
		return false;
	char *url = strdup(next);
	curl_multi_remove_handle(transfer->http->multi, transfer->curl);
	if (url) {
		free(transfer->url);
		transfer->url = url;
	}
	sm_buf_clear(&transfer->error_body);
	transfer->enough = false;
	if (!url)
		sm_error_sys(err, ENOMEM, "redirect");
	else if (++transfer->redirects > REDIRECTS_MAX)
		sm_error_set(err, ELOOP, "more than %d redirects", REDIRECTS_MAX);
	else if (set_url(transfer, err) == 0 && curl_multi_add_handle(transfer->http->multi, transfer->curl))
		sm_error_set(err, EIO, "libcurl refuses a redirect");
	return !err->code;
}

/* Take note of what has ended. */
static int perform(struct sm_oci_http *http, struct sm_error *err)
{
	int running, left;
	CURLMcode code = curl_multi_perform(http->multi, &running);
	for (CURLMsg *message; (message = curl_multi_info_read(http->multi, &left));) {
		struct sm_oci_http_transfer *transfer = NULL;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
		transfer->result = message->data.result;
		transfer->ended = !follow(transfer);
	}
	if (code)
		return sm_error_set(err, EIO, "libcurl: %s", curl_multi_strerror(code));
	if (http->cancel && atomic_load(http->cancel))
		return sm_error_sys(err, ECANCELED, "transfers");
	return 0;
}

/* Something has happened, or time is up. */
static int await(struct sm_oci_http *http, int wake_fd, int timeout_ms, struct sm_error *err)
{
	struct curl_waitfd fds[2];
	unsigned count = 0;
	if (wake_fd >= 0)
		fds[count++] = (struct curl_waitfd){ .fd = wake_fd, .events = CURL_WAIT_POLLIN };
	if (http->cancel_fd >= 0)
		fds[count++] = (struct curl_waitfd){ .fd = http->cancel_fd, .events = CURL_WAIT_POLLIN };
	int limit = http->cancel && http->cancel_fd < 0 ? FLAG_LOOKS_MS : INT_MAX;
	CURLMcode code =
	    curl_multi_poll(http->multi, fds, count, timeout_ms >= 0 && timeout_ms < limit ? timeout_ms : limit, NULL);
	return code ? sm_error_set(err, EIO, "libcurl: %s", curl_multi_strerror(code)) : 0;
}

static void *ended_owner(const struct sm_oci_http *http)
{
	for (const struct sm_oci_http_transfer *transfer = http->first; transfer; transfer = transfer->next)
		if (transfer->ended && transfer->request.owner)
			return transfer->request.owner;
	return NULL;
}

int sm_oci_http_run(struct sm_oci_http *http, int wake_fd, int timeout_ms, void **ret_owner, struct sm_error *err)
{
	int code = perform(http, err);
	*ret_owner = ended_owner(http);
	if (code < 0 || *ret_owner)
		return code;
	if ((code = await(http, wake_fd, timeout_ms, err)) < 0 || (code = perform(http, err)) < 0)
		return code;
	*ret_owner = ended_owner(http);
	return 0;
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

int sm_oci_http_finish(struct sm_oci_http_transfer *transfer, struct sm_oci_http_response *ret, struct sm_error *err)
{
	int code = 0;
	sm_oci_http_response_done(ret);
	const char *method = transfer->request.form ? "POST" : "GET", *url = transfer->url;
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
	else if (!code && transfer->result && !transfer->enough) {
		ret->transient = worth_another(transfer->result);
		code = sm_error_set(err, error_code(transfer->curl, transfer->result), "%s %.*s: %s", method,
		                    sm_oci_hop_shown(url), url,
		                    transfer->message[0] ? transfer->message : curl_easy_strerror(transfer->result));
	} else if (!code)
		read_response(transfer, ret);
	drop(transfer);
	return code;
}

/* Until the transfer ends, or the time comes. */
static int run_until(struct sm_oci_http *http, const struct sm_oci_http_transfer *transfer, int64_t until_ms,
                     struct sm_error *err)
{
	for (;;) {
		int code = perform(http, err);
		int64_t left = until_ms - sm_oci_retry_now_ms();
		if (code < 0 || (transfer && transfer->ended) || left <= 0)
			return code;
		if ((code = await(http, -1, left < INT_MAX ? (int)left : INT_MAX, err)) < 0)
			return code;
	}
}

int sm_oci_http_get(struct sm_oci_http *http, const struct sm_oci_http_request *request,
                    struct sm_oci_http_response *ret, struct sm_error *err)
{
	for (unsigned failures = 0;;) {
		struct sm_oci_http_transfer *transfer;
		struct sm_error own = { 0 };
		int code = sm_oci_http_start(http, request, &transfer, err);
		if (code < 0)
			return code;
		if ((code = run_until(http, transfer, INT64_MAX, err)) < 0) {
			sm_oci_http_finish(transfer, ret, NULL);
			return code;
		}
		bool begun = transfer->begun;
		code = sm_oci_http_finish(transfer, ret, &own);
		if (!ret->transient || request->once || failures++ >= http->retries || (begun && !request->restart)) {
			if (own.code)
				sm_error_set(err, own.code, "%s", own.message);
			return code;
		}
		int64_t delay_ms = sm_oci_retry_delay_ms(failures, ret->retry_after_s);
		if ((begun && (code = request->restart(request->arg)) < 0) ||
		    (code = run_until(http, NULL, sm_oci_retry_now_ms() + delay_ms, err)) < 0)
			return code;
	}
}

void sm_oci_http_response_done(struct sm_oci_http_response *response)
{
	sm_buf_done(&response->error_body);
	memset(response, 0, sizeof *response);
}

void sm_oci_http_escape(struct sm_buf *out, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		if (isalnum(c) || strchr("-._~", c))
			sm_buf_append(out, text, 1);
		else
			sm_buf_printf(out, "%%%02X", c);
	}
}
