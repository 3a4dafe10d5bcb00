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

#define REDIRECTS_MAX     5
#define CONNECT_TIMEOUT_S 30L
#define STALL_BYTES_PER_S 1L /* a transfer slower than this for STALL_S is dead */
#define STALL_S           60L
#define BUFFER_BYTES      (256L << 10)
#define ORIGIN_SIZE       (SM_OCI_HOST_SIZE + 16)

struct sm_oci_http {
	CURL *curl;
	const atomic_bool *cancel;
	char *ca_file;
	struct sm_oci_certs other; /* of the last host that was not its request's own */
	/* of the transfer under way */
	const struct sm_oci_http_request *request;
	struct sm_oci_http_response *response;
	int sink_code;
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
	http->curl = curl_easy_init();
	http->cancel = options->cancel;
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
	sm_oci_certs_done(&http->other);
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

/* "scheme://host:port" of a URL, its port always there, and what is between the slashes as it is written; both are ""
 * when it has not all of them. */
static void split_url(const char *url, char origin[ORIGIN_SIZE], char host[SM_OCI_HOST_SIZE])
{
	char *scheme = NULL, *name = NULL, *port = NULL;
	CURLU *parsed = curl_url();
	CURLUcode code = parsed ? curl_url_set(parsed, CURLUPART_URL, url, 0) : CURLUE_OUT_OF_MEMORY;
	if (!code)
		code = curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0);
	if (!code)
		code = curl_url_get(parsed, CURLUPART_HOST, &name, 0);
	if (!code)
		code = curl_url_get(parsed, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT);
	const char *at = strstr(url, "://");
	int len = at ? (int)strcspn(at + 3, "/?#") : 0;
	int written = code ? 0 : snprintf(origin, ORIGIN_SIZE, "%s://%s:%s", scheme, name, port);
	if (code || written >= ORIGIN_SIZE || len >= SM_OCI_HOST_SIZE)
		written = len = 0;
	for (int i = 0; i < written; i++)
		origin[i] = (char)tolower((unsigned char)origin[i]);
	for (int i = 0; i < len; i++)
		host[i] = (char)tolower((unsigned char)at[3 + i]);
	origin[written] = host[len] = 0;
	curl_free(scheme);
	curl_free(name);
	curl_free(port);
	curl_url_cleanup(parsed);
}

/* What the certs.d folders say of this host: whom to trust, and who we are to it and to nobody else. */
static int set_trust(struct sm_oci_http *http, const char *host, struct sm_error *err)
{
	const struct sm_oci_certs *certs = http->request->certs;
	if (!certs || strcmp(certs->host, host)) {
		int code = sm_oci_certs_load(host, certs, &http->other, err);
		if (code < 0)
			return code;
		certs = &http->other;
	}
	CURLcode code = CURLE_OK;
#define SET(option, value) code = code ? code : curl_easy_setopt(http->curl, option, value)
	if (http->ca_file) {
		SET(CURLOPT_CAINFO, http->ca_file);
		SET(CURLOPT_CAPATH, NULL);
	} else if (certs->ca.len) {
		/* It replaces the system's bundle; the system's folder, with the same in it, stays. */
		struct curl_blob blob = { certs->ca.data, certs->ca.len, CURL_BLOB_COPY };
		SET(CURLOPT_CAINFO_BLOB, &blob);
	}
	if (certs->certificate[0]) {
		SET(CURLOPT_SSLCERT, certs->certificate);
		SET(CURLOPT_SSLKEY, certs->key);
		SET(CURLOPT_KEYPASSWD, ""); /* nobody is asked on the terminal */
	}
#undef SET
	return code ? sm_error_set(err, EIO, "libcurl refuses the certificates for %s", host) : 0;
}

static int set_options(struct sm_oci_http *http, const char *url, bool own, struct curl_slist *headers)
{
	CURL *curl = http->curl;
	const struct sm_oci_http_request *request = http->request;
	CURLcode code = CURLE_OK;
#define SET(option, value) code = code ? code : curl_easy_setopt(curl, option, value)
	curl_easy_reset(curl); /* keeps connections */
	SET(CURLOPT_URL, url);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
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
	if (own && request->bearer) {
		SET(CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
		SET(CURLOPT_XOAUTH2_BEARER, request->bearer);
	} else if (own && request->username) {
		SET(CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		SET(CURLOPT_USERNAME, request->username);
		SET(CURLOPT_PASSWORD, request->password);
	}
	if (request->form)
		SET(CURLOPT_POSTFIELDS, request->form);
	/* A proxy cannot reach what is on this machine. */
	const char *host = strstr(url, "://");
	if (host && sm_oci_reference_is_loopback(host + 3))
		SET(CURLOPT_PROXY, "");
#undef SET
	return code ? -EINVAL : 0;
}

static void read_response(struct sm_oci_http *http)
{
	struct sm_oci_http_response *response = http->response;
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
}

static void read_challenges(struct sm_oci_http *http)
{
	struct sm_oci_http_response *response = http->response;
	struct curl_header *header;
	size_t len = 0, size = sizeof response->challenge;
	for (size_t i = 0; !curl_easy_header(http->curl, "WWW-Authenticate", i, CURLH_HEADER, -1, &header); i++) {
		if (len + strlen(header->value) + 3 > size)
			response->challenge_cut = true;
		else
			len += (size_t)snprintf(response->challenge + len, size - len, "%s%s", len ? ", " : "",
			                        header->value);
	}
}

/* A URL without its query, where names and signatures are. */
static int shown(const char *url)
{
	size_t len = strcspn(url, "?#");
	return (int)(len < 200 ? len : 200);
}

/* One request and its answer, without redirects. */
static int perform(struct sm_oci_http *http, const char *url, bool own, const char *host, struct curl_slist *headers,
                   struct sm_error *err)
{
	const char *method = http->request->form ? "POST" : "GET";
	http->message[0] = 0;
	sm_buf_clear(&http->response->error_body);
	int code = set_options(http, url, own, headers);
	if (code < 0)
		return sm_error_set(err, EIO, "%s %.*s: libcurl refuses an option", method, shown(url), url);
	if ((code = set_trust(http, host, err)) < 0)
		return code;
	CURLcode result = curl_easy_perform(http->curl);
	if (http->sink_code < 0)
		return http->sink_code;
	if (result)
		return sm_error_set(err, error_code(http->curl, result), "%s %.*s: %s", method, shown(url), url,
		                    http->message[0] ? http->message : curl_easy_strerror(result));
	read_response(http);
	if (own)
		read_challenges(http); /* another host's are none of ours to answer */
	return 0;
}

/* http:// only where it may be spoken, and nothing but these two. */
static bool may_speak(const struct sm_oci_http_request *request, const char *origin, const char *host)
{
	if (!strncmp(origin, "https:", 6))
		return true;
	return !strncmp(origin, "http:", 5) && request->plain &&
	       (request->insecure || sm_oci_reference_is_loopback(host));
}

/* By hand: libcurl would show the client certificate to whoever we are sent to. */
static int follow(struct sm_oci_http *http, struct curl_slist *headers, struct sm_error *err)
{
	const struct sm_oci_http_request *request = http->request;
	char first[ORIGIN_SIZE], origin[ORIGIN_SIZE], host[SM_OCI_HOST_SIZE];
	char *url = strdup(request->url);
	int code = 0;
	split_url(request->url, first, host);
	for (int hop = 0; url && !code; hop++) {
		const char *next = NULL;
		split_url(url, origin, host);
		if (hop > REDIRECTS_MAX) {
			code = sm_error_set(err, ELOOP, "GET %.*s: more than %d redirects", shown(request->url),
			                    request->url, REDIRECTS_MAX);
			break;
		}
		if (!may_speak(request, origin, host)) {
			code = sm_error_set(err, EPROTONOSUPPORT, "GET %.*s: %s%.*s: the protocol is not https",
			                    shown(request->url), request->url, hop ? "redirected to " : "", shown(url),
			                    url);
			break;
		}
		if ((code = perform(http, url, !strcmp(first, origin), host, headers, err)) < 0 || request->form ||
		    curl_easy_getinfo(http->curl, CURLINFO_REDIRECT_URL, &next) || !next)
			break;
		char *copy = strdup(next);
		free(url);
		url = copy;
	}
	if (!url)
		code = sm_error_sys(err, ENOMEM, "GET %.*s", shown(request->url), request->url);
	free(url);
	return code;
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
			return sm_error_sys(err, ENOMEM, "GET %.*s", shown(request->url), request->url);
		}
		headers = more;
	}
	http->request = request;
	http->response = ret;
	http->sink_code = 0;
	int code = follow(http, headers, err);
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
