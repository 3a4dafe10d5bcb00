/* A registry as a source (OCI distribution-spec 1.1, "Pull"; Docker "Token Authentication Specification"). */
#include "oci/http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TOKEN_REPLY_MAX (256u << 10)
#define TOKEN_MAX       (64u << 10)

struct registry {
	struct sm_oci_source source;
	struct sm_oci_reference reference;
	struct sm_oci_http *http;
	bool plain; /* tokens may be fetched over http as well */
	bool insecure;
	char *token; /* anonymous, for this repository; NULL: not asked for yet */
	unsigned token_count;
};

static const char *const manifest_types[] = {
	SM_OCI_TYPE_MANIFEST, SM_OCI_TYPE_INDEX, SM_OCI_TYPE_DOCKER_MANIFEST, SM_OCI_TYPE_DOCKER_LIST, NULL,
};
static const char *const any_type[] = { "*/*", NULL };

static struct registry *registry_of(struct sm_oci_source *source)
{
	return (struct registry *)source;
}

/* One name="value" of a challenge (RFC 9110, 11.2) into out; false when it is absent or does not fit. */
static bool challenge_value(const char *challenge, const char *name, char *out, size_t size)
{
	const char *at = challenge + strlen("Bearer ");
	while (*at) {
		at += strspn(at, " \t,");
		size_t name_len = strcspn(at, "= \t,");
		bool wanted = name_len == strlen(name) && !strncasecmp(at, name, name_len);
		at += name_len;
		at += strspn(at, " \t");
		if (*at != '=')
			continue;
		at++;
		at += strspn(at, " \t");
		bool quoted = *at == '"';
		at += quoted;
		size_t len = 0;
		while (*at && (quoted ? *at != '"' : !strchr(" \t,", *at))) {
			at += quoted && *at == '\\' && at[1];
			if (wanted && len + 1 >= size)
				return false;
			if (wanted)
				out[len++] = *at;
			at++;
		}
		at += quoted && *at == '"';
		if (wanted) {
			out[len] = 0;
			return len > 0;
		}
	}
	return false;
}

static bool realm_allowed(const struct registry *registry, const char *realm)
{
	if (!strncasecmp(realm, "https://", 8))
		return true;
	if (!registry->plain || strncasecmp(realm, "http://", 7))
		return false;
	return registry->insecure || sm_oci_reference_is_loopback(realm + 7);
}

static int token_url(struct registry *registry, const char *challenge, struct sm_buf *url, struct sm_error *err)
{
	char realm[1024], value[512];
	if (!challenge_value(challenge, "realm", realm, sizeof realm))
		return sm_error_set(err, EPROTO, "the registry asks for a token but names no place to get it");
	if (!realm_allowed(registry, realm))
		return sm_error_set(err, EPROTO, "the registry asks for a token from %.200s, which is not https",
		                    realm);
	sm_buf_append_str(url, realm);
	const char *sep = strchr(realm, '?') ? "&" : "?";
	if (challenge_value(challenge, "service", value, sizeof value)) {
		sm_buf_printf(url, "%sservice=", sep);
		sm_oci_http_escape(url, value);
		sep = "&";
	}
	sm_buf_printf(url, "%sscope=", sep);
	if (!challenge_value(challenge, "scope", value, sizeof value))
		snprintf(value, sizeof value, "repository:%s:pull", registry->reference.repository);
	sm_oci_http_escape(url, value);
	return sm_buf_failed(url) ? sm_error_sys(err, url->failed, "token address") : 0;
}

static int parse_token(struct registry *registry, const struct sm_buf *reply, struct sm_error *err)
{
	const char *token;
	SM_JSON_CLEANUP cJSON *root = NULL;
	int code = sm_json_parse((const char *)reply->data, reply->len, "token reply", &root, err);
	if (code < 0 || (code = sm_json_string_or(root, "access_token", "token reply", NULL, &token, err)) < 0)
		return code;
	if (!token && (code = sm_json_get_string(root, "token", "token reply", &token, err)) < 0)
		return code;
	/* What is not printable could end the header line it is put in. */
	size_t len = strlen(token);
	for (size_t i = 0; i < len; i++)
		if (token[i] <= ' ' || token[i] > '~')
			len = 0;
	if (!len || len > TOKEN_MAX)
		return sm_error_set(err, EBADMSG, "token reply: the token is empty, too long or not printable");
	free(registry->token);
	registry->token = strdup(token);
	registry->token_count++;
	return registry->token ? 0 : sm_error_sys(err, ENOMEM, "token");
}

static int fetch_token(struct registry *registry, const char *challenge, struct sm_error *err)
{
	SM_BUF_CLEANUP struct sm_buf url, reply;
	sm_buf_init(&url, 4096);
	sm_buf_init(&reply, TOKEN_REPLY_MAX);
	int code = token_url(registry, challenge, &url, err);
	if (code < 0)
		return code;
	struct sm_oci_http_request request = {
		.url = sm_buf_str(&url),
		.sink = sm_oci_source_collect,
		.restart = sm_oci_source_collect_again,
		.arg = &reply,
	};
	if (!request.url)
		return sm_error_sys(err, ENOMEM, "token address");
	struct sm_oci_http_response response = { 0 };
	struct sm_error own = { 0 };
	code = sm_oci_http_get(registry->http, &request, &response, &own);
	int status = response.status;
	sm_oci_http_response_done(&response);
	if (code < 0)
		return sm_error_set(err, code, "%s", own.code ? own.message : "token reply is too long");
	if (status != 200)
		return sm_error_set(err, EACCES, "no anonymous token: the token server answered %d", status);
	return parse_token(registry, &reply, err);
}

/* "CODE: message" of the registry's own words, made printable; empty when it has none. */
static void registry_words(struct sm_oci_http_response *response, char *out, size_t size)
{
	out[0] = 0;
	SM_JSON_CLEANUP cJSON *root = NULL;
	if (sm_json_parse((const char *)response->error_body.data, response->error_body.len, "", &root, NULL) < 0)
		return;
	const cJSON *first = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(root, "errors"), 0);
	const char *code = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(first, "code"));
	const char *message = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(first, "message"));
	if (!code && !message)
		return;
	snprintf(out, size, " (%.60s%s%.160s)", code ? code : "", code && message ? ": " : "", message ? message : "");
	for (char *at = out; *at; at++)
		if (*at < ' ' || *at > '~')
			*at = '?';
}

static int status_error(struct registry *registry, struct sm_oci_http_response *response, const char *name,
                        struct sm_error *err)
{
	static const struct {
		int status, code;
		const char *meaning;
	} known[] = {
		{ 401, EACCES, "a login is needed" },
		{ 403, EACCES, "access is refused" },
		{ 404, ENOENT, "not there" },
		{ 406, EOPNOTSUPP, "not there in a format that is supported" },
		{ 429, EAGAIN, "too many requests, try later" },
	};
	char words[256];
	registry_words(response, words, sizeof words);
	size_t count = sizeof known / sizeof known[0], i = 0;
	while (i < count && known[i].status != response->status)
		i++;
	const struct sm_oci_reference *reference = &registry->reference;
	return sm_error_set(err, i < count ? known[i].code : EIO, "registry %s: %s: %s: %s%sstatus %d%s",
	                    reference->host, reference->repository, name, i < count ? known[i].meaning : "",
	                    i < count ? ", " : "", response->status, words);
}

static void format_url(const struct registry *registry, const char *kind, const char *name, char *out, size_t size)
{
	const struct sm_oci_reference *reference = &registry->reference;
	/* Docker's registry does not live where its references point. */
	const char *host = strcmp(reference->host, "docker.io") ? reference->host : "registry-1.docker.io";
	snprintf(out, size, "%s://%s/v2/%s/%s/%s", reference->plain_http ? "http" : "https", host,
	         reference->repository, kind, name);
}

/* `kind` is "manifests" or "blobs". */
static int registry_get(struct registry *registry, const char *kind, const char *name, const char *const *accept,
                        sm_oci_sink sink, void *arg, char *ret_media_type, struct sm_error *err)
{
	const struct sm_oci_reference *reference = &registry->reference;
	char url[1024];
	format_url(registry, kind, name, url, sizeof url);
	struct sm_oci_http_request request = { .url = url, .accept = accept, .sink = sink, .arg = arg };
	if (sink == sm_oci_source_collect)
		request.restart = sm_oci_source_collect_again;
	struct sm_oci_http_response response = { 0 };
	int code = 0;
	/* A token may be missing at first, or run out during a long pull: once each request. */
	for (int attempt = 0; attempt < 2; attempt++) {
		request.bearer = registry->token;
		code = sm_oci_http_get(registry->http, &request, &response, err);
		if (code < 0 || response.status != 401 || !response.challenge[0] || attempt)
			break;
		if ((code = fetch_token(registry, response.challenge, err)) < 0) {
			sm_error_context(err, "registry %s: %s", reference->host, reference->repository);
			break;
		}
	}
	if (!code && response.status != 200)
		code = status_error(registry, &response, name, err);
	if (!code && ret_media_type)
		snprintf(ret_media_type, SM_OCI_MEDIA_TYPE_SIZE, "%s", response.media_type);
	sm_oci_http_response_done(&response);
	return code;
}

static int registry_manifest(struct sm_oci_source *source, const char *digest, struct sm_buf *ret,
                             char ret_media_type[SM_OCI_MEDIA_TYPE_SIZE], struct sm_error *err)
{
	struct registry *registry = registry_of(source);
	struct sm_error own = { 0 };
	const char *name = digest ? digest : registry->reference.tag;
	int code =
	    registry_get(registry, "manifests", name, manifest_types, sm_oci_source_collect, ret, ret_media_type, &own);
	if (code < 0 && !own.code)
		return sm_error_set(err, code, "manifest %s: larger than %zu bytes", name, ret->max);
	return code < 0 ? sm_error_set(err, own.code, "%s", own.message) : 0;
}

static int registry_blob(struct sm_oci_source *source, const char *digest, sm_oci_sink sink, void *arg,
                         struct sm_error *err)
{
	return registry_get(registry_of(source), "blobs", digest, any_type, sink, arg, NULL, err);
}

/* A blob beside others. */
struct blob {
	struct sm_oci_http_transfer *http;
	unsigned token_count; /* which token it was sent with */
	bool again;
};

static int send_blob(struct registry *registry, struct sm_oci_transfer *transfer, struct sm_error *err)
{
	struct blob *blob = transfer->state;
	char url[1024];
	format_url(registry, "blobs", transfer->digest, url, sizeof url);
	struct sm_oci_http_request request = {
		.url = url,
		.accept = any_type,
		.bearer = registry->token,
		.offset = transfer->offset,
		.size = transfer->size,
		.sink = transfer->sink,
		.restart = transfer->restart,
		.arg = transfer->arg,
		.owner = transfer,
	};
	blob->token_count = registry->token_count;
	return sm_oci_http_start(registry->http, &request, &blob->http, err);
}

static int registry_start(struct sm_oci_source *source, struct sm_oci_transfer *transfer, struct sm_error *err)
{
	transfer->state = calloc(1, sizeof(struct blob));
	if (!transfer->state)
		return sm_error_sys(err, ENOMEM, "blob %s", transfer->digest);
	int code = send_blob(registry_of(source), transfer, err);
	if (code < 0) {
		free(transfer->state);
		transfer->state = NULL;
	}
	return code;
}

/* The token ran out during a long pull: true when the blob is on its way again.  One of several at once gets a new
 * token, and the others find it. */
static bool send_again(struct registry *registry, struct sm_oci_transfer *transfer, const char *challenge)
{
	struct blob *blob = transfer->state;
	if (blob->again || !challenge[0])
		return false;
	blob->again = true;
	transfer->code = 0;
	if (blob->token_count == registry->token_count)
		transfer->code = fetch_token(registry, challenge, &transfer->err);
	if (transfer->code == 0)
		transfer->code = send_blob(registry, transfer, &transfer->err);
	return transfer->code == 0;
}

static int registry_step(struct sm_oci_source *source, int wake_fd, int timeout_ms, struct sm_oci_transfer **ret_ended,
                         struct sm_error *err)
{
	struct registry *registry = registry_of(source);
	void *owner;
	*ret_ended = NULL;
	int code = sm_oci_http_run(registry->http, wake_fd, timeout_ms, &owner, err);
	if (code < 0 || !owner)
		return code;
	struct sm_oci_transfer *transfer = owner;
	struct blob *blob = transfer->state;
	struct sm_oci_http_response response = { 0 };
	transfer->code = sm_oci_http_finish(blob->http, &response, &transfer->err);
	blob->http = NULL;
	bool sent = !transfer->code && response.status == 401 && send_again(registry, transfer, response.challenge);
	if (!sent && !transfer->code && response.status != 200 && response.status != 206)
		transfer->code = status_error(registry, &response, transfer->digest, &transfer->err);
	/* No byte of the range is there: the partial blob is not what the registry has. */
	if (response.status == 416)
		transfer->code = -ERANGE;
	transfer->transient = response.transient;
	transfer->retry_after_s = response.retry_after_s;
	sm_oci_http_response_done(&response);
	if (sent)
		return 0;
	free(blob);
	transfer->state = NULL;
	*ret_ended = transfer;
	return 0;
}

static void registry_stop(struct sm_oci_source *source, struct sm_oci_transfer *transfer)
{
	(void)source;
	struct blob *blob = transfer->state;
	struct sm_oci_http_response response = { 0 };
	if (blob)
		sm_oci_http_finish(blob->http, &response, NULL);
	sm_oci_http_response_done(&response);
	free(blob);
	transfer->state = NULL;
}

static void registry_free(struct sm_oci_source *source)
{
	struct registry *registry = registry_of(source);
	sm_oci_http_free(registry->http);
	free(registry->token);
	free(registry);
}

static const struct sm_oci_source_ops registry_ops = {
	.manifest = registry_manifest,
	.blob = registry_blob,
	.free = registry_free,
	.start = registry_start,
	.step = registry_step,
	.stop = registry_stop,
};

int sm_oci_registry_open(const struct sm_oci_reference *reference, const struct sm_oci_source_options *options,
                         struct sm_oci_source **ret, struct sm_error *err)
{
	if (reference->plain_http && !options->insecure && !sm_oci_reference_is_loopback(reference->host))
		return sm_error_set(err, EPERM,
		                    "registry %s: plain http to another machine needs the option 'insecure'",
		                    reference->host);
	struct registry *registry = calloc(1, sizeof *registry);
	if (!registry)
		return sm_error_sys(err, ENOMEM, "open registry");
	registry->source.ops = &registry_ops;
	registry->reference = *reference;
	registry->plain = reference->plain_http;
	registry->insecure = options->insecure;
	int code = sm_oci_http_new(options, reference->plain_http, &registry->http, err);
	if (code < 0) {
		free(registry);
		return code;
	}
	*ret = &registry->source;
	return 0;
}
