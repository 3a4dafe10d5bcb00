#include "oci/http.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#if LIBCURL_VERSION_NUM < 0x075500
#error "libcurl 7.85 or newer is needed: thread-safe global state and CURLOPT_PROTOCOLS_STR"
#endif

#define REDIRECTS_MAX     5L
#define CONNECT_TIMEOUT_S 30L
#define STALL_BYTES_PER_S 1L /* a transfer slower than this for STALL_S is dead */
#define STALL_S           60L
#define BUFFER_BYTES      (256L << 10)

struct sm_oci_http {
	CURL *curl;
	const atomic_bool *cancel;
	bool plain;
	char *ca_file;
	/* of the transfer under way */
	const struct sm_oci_http_request *request;
	struct sm_oci_http_response *response;
	int sink_code;
	char message[CURL_ERROR_SIZE];
};

int sm_oci_http_new(const struct sm_oci_source_options *options, bool plain, struct sm_oci_http **ret,
                    struct sm_error *err)
{
	struct sm_oci_http *http = calloc(1, sizeof *http);
	if (!http)
		return sm_error_sys(err, ENOMEM, "libcurl");
	if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
		free(http);
		return sm_error_set(err, ENOMEM, "libcurl cannot be initialised");
	}
	http->curl = curl_easy_init();
	http->cancel = options->cancel;
	http->plain = plain;
	http->ca_file = options->ca_file ? strdup(options->ca_file) : NULL;
	if (!http->curl || (options->ca_file && !http->ca_file)) {
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
	curl_easy_cleanup(http->curl);
	curl_global_cleanup();
	free(http->ca_file);
	free(http);
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
	struct sm_oci_http *http = arg;
	size_t len = size * count;
	long status = 0;
	curl_easy_getinfo(http->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status == 200) {
		http->sink_code = http->request->sink(http->request->arg, data, len);
		return http->sink_code < 0 ? CURL_WRITEFUNC_ERROR : len;
	}
	struct sm_buf *body = &http->response->error_body;
	size_t room = body->max - body->len;
	sm_buf_append(body, data, len < room ? len : room);
	return len;
}

static int on_progress(void *arg, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up_now)
{
	(void)total, (void)now, (void)up_total, (void)up_now;
	const struct sm_oci_http *http = arg;
	return http->cancel && atomic_load(http->cancel);
}

/* The text behind it is libcurl's or the system's; the class is what a caller can act on. */
static int error_code(CURL *curl, CURLcode code)
{
	long number = 0;
	curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &number);
	switch (code) {
	case CURLE_ABORTED_BY_CALLBACK:
		return ECANCELED;
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

static int set_options(struct sm_oci_http *http, struct curl_slist *headers)
{
	CURL *curl = http->curl;
	const struct sm_oci_http_request *request = http->request;
	const char *schemes = http->plain ? "http,https" : "https";
	CURLcode code = CURLE_OK;
#define SET(option, value) code = code ? code : curl_easy_setopt(curl, option, value)
	curl_easy_reset(curl); /* keeps connections */
	SET(CURLOPT_URL, request->url);
	SET(CURLOPT_PROTOCOLS_STR, schemes);
	SET(CURLOPT_REDIR_PROTOCOLS_STR, schemes);
	SET(CURLOPT_FOLLOWLOCATION, 1L);
	SET(CURLOPT_MAXREDIRS, REDIRECTS_MAX);
	SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
	SET(CURLOPT_LOW_SPEED_LIMIT, STALL_BYTES_PER_S);
	SET(CURLOPT_LOW_SPEED_TIME, STALL_S);
	SET(CURLOPT_BUFFERSIZE, BUFFER_BYTES);
	SET(CURLOPT_USERAGENT, "supermachine");
	SET(CURLOPT_HTTPHEADER, headers);
	SET(CURLOPT_ERRORBUFFER, http->message);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, http);
	SET(CURLOPT_NOPROGRESS, 0L);
	SET(CURLOPT_XFERINFOFUNCTION, on_progress);
	SET(CURLOPT_XFERINFODATA, http);
	if (http->ca_file) {
		SET(CURLOPT_CAINFO, http->ca_file);
		SET(CURLOPT_CAPATH, NULL);
	}
	if (request->bearer) {
		SET(CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
		SET(CURLOPT_XOAUTH2_BEARER, request->bearer);
	}
	/* A proxy cannot reach what is on this machine. */
	const char *host = strstr(request->url, "://");
	if (host && sm_oci_reference_is_loopback(host + 3))
		SET(CURLOPT_PROXY, "");
#undef SET
	return code ? -EINVAL : 0;
}

static void read_response(struct sm_oci_http *http)
{
	struct sm_oci_http_response *response = http->response;
	struct curl_header *header;
	const char *type = NULL;
	long status = 0;
	curl_easy_getinfo(http->curl, CURLINFO_RESPONSE_CODE, &status);
	response->status = (int)status;
	if (!curl_easy_getinfo(http->curl, CURLINFO_CONTENT_TYPE, &type) && type) {
		size_t len = strcspn(type, "; \t");
		if (len < sizeof response->media_type)
			for (size_t i = 0; i < len; i++)
				response->media_type[i] = (char)tolower((unsigned char)type[i]);
	}
	for (size_t i = 0; !curl_easy_header(http->curl, "WWW-Authenticate", i, CURLH_HEADER, -1, &header); i++) {
		size_t len = strlen(header->value);
		if (strncasecmp(header->value, "Bearer ", 7) || len >= sizeof response->challenge)
			continue;
		memcpy(response->challenge, header->value, len + 1);
		break;
	}
}

int sm_oci_http_get(struct sm_oci_http *http, const struct sm_oci_http_request *request,
                    struct sm_oci_http_response *ret, struct sm_error *err)
{
	struct curl_slist *headers = NULL;
	sm_oci_http_response_done(ret);
	sm_buf_init(&ret->error_body, SM_OCI_HTTP_ERROR_BODY_MAX);
	for (const char *const *type = request->accept; type && *type; type++) {
		char line[SM_OCI_MEDIA_TYPE_SIZE + 16];
		struct curl_slist *more = NULL;
		if (snprintf(line, sizeof line, "Accept: %s", *type) < (int)sizeof line)
			more = curl_slist_append(headers, line);
		if (!more) {
			curl_slist_free_all(headers);
			return sm_error_sys(err, ENOMEM, "GET %.200s", request->url);
		}
		headers = more;
	}
	http->request = request;
	http->response = ret;
	http->sink_code = 0;
	http->message[0] = 0;
	int code = set_options(http, headers);
	CURLcode result = code < 0 ? CURLE_FAILED_INIT : curl_easy_perform(http->curl);
	if (code < 0)
		sm_error_set(err, EIO, "GET %.200s: libcurl refuses an option", request->url);
	else if (http->sink_code < 0)
		code = http->sink_code;
	else if (result)
		code = sm_error_set(err, error_code(http->curl, result), "GET %.200s: %s", request->url,
		                    http->message[0] ? http->message : curl_easy_strerror(result));
	else
		read_response(http);
	curl_easy_reset(http->curl); /* it points at the headers and the response */
	curl_slist_free_all(headers);
	http->request = NULL;
	http->response = NULL;
	return code;
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
