/* A registry as a source (OCI distribution-spec 1.1, "Pull"): its mirrors in their order, then itself. */
#include "oci/endpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A blob that those before `first` have not, or not as it should be. */
struct doubt {
	struct doubt *next;
	char digest[SM_OCI_DIGEST_SIZE];
	size_t first;
	char notes[512];
};

struct registry {
	struct sm_oci_source source;
	struct sm_oci_reference reference;
	struct sm_oci_http *http;
	char *texts[2]; /* what the options point at */
	struct doubt *doubts;
	size_t count;
	struct sm_oci_endpoint endpoints[]; /* the last is the registry itself */
};

static const char *const manifest_types[] = {
	SM_OCI_TYPE_MANIFEST, SM_OCI_TYPE_INDEX, SM_OCI_TYPE_DOCKER_MANIFEST, SM_OCI_TYPE_DOCKER_LIST, NULL,
};
static const char *const any_type[] = { "*/*", NULL };

static struct registry *registry_of(struct sm_oci_source *source)
{
	return (struct registry *)source;
}

/* A mirror's bytes that are not what was asked for are as good as none. */
static int check_digest(const char *digest, const struct sm_buf *text, struct sm_error *err)
{
	char found[SM_OCI_DIGEST_SIZE];
	int code = sm_oci_digest_of(text->data, text->len, found);
	if (code < 0)
		return sm_error_sys(err, code, "%s", digest);
	if (strcmp(found, digest))
		return sm_error_set(err, EBADMSG, "%s: its bytes have digest %s", digest, found);
	return 0;
}

/* The first endpoint from this one on that may be asked; the registry itself always may. */
static size_t alive(const struct registry *registry, size_t i)
{
	while (i + 1 < registry->count && registry->endpoints[i].dead)
		i++;
	return i;
}

static bool is_last(const struct registry *registry, size_t i)
{
	return i + 1 == registry->count;
}

/* What mirrors have said, for the error of the registry itself. */
static void note(char *notes, size_t size, const struct sm_oci_endpoint *endpoint, const struct sm_error *why)
{
	size_t len = strlen(notes);
	snprintf(notes + len, size - len, "; mirror %.100s: %.160s", endpoint->host,
	         why->code ? why->message : "more than is taken");
}

/* From one endpoint. */
static int get_from(struct registry *registry, size_t i, const struct sm_oci_endpoint_request *wanted,
                    struct sm_oci_http_response *response, struct sm_error *err)
{
	struct sm_oci_endpoint *endpoint = &registry->endpoints[i];
	struct sm_oci_endpoint_request request = *wanted;
	request.http.once = request.http.head || !is_last(registry, i);
	int code;
	do {
		sm_oci_endpoint_prepare(endpoint, &request);
		code = sm_oci_http_get(registry->http, &request.http, response, err);
		code = sm_oci_endpoint_judge(endpoint, registry->http, &request, code, response, err);
	} while (code > 0);
	return code;
}

/* From one after the other until one has it.  What goes into a buffer can be taken out of it again.  ret_media_type and
 * ret_digest, what the answer says of itself, may be NULL. */
static int get(struct registry *registry, struct sm_oci_endpoint_request *wanted, const char *digest,
               char *ret_media_type, char *ret_digest, struct sm_error *err)
{
	struct sm_buf *whole = wanted->http.sink == sm_oci_source_collect ? wanted->http.arg : NULL;
	struct sm_oci_http_response response = { 0 };
	wanted->http.restart = whole ? sm_oci_source_collect_again : NULL;
	char notes[512] = "";
	for (size_t i = alive(registry, 0);; i = alive(registry, i + 1)) {
		struct sm_error own = { 0 };
		bool last = is_last(registry, i);
		int code = get_from(registry, i, wanted, &response, &own);
		if (!code && ret_media_type)
			snprintf(ret_media_type, SM_OCI_MEDIA_TYPE_SIZE, "%s", response.media_type);
		if (!code && ret_digest)
			snprintf(ret_digest, SM_OCI_DIGEST_SIZE, "%s", response.content_digest);
		bool begun = response.begun;
		sm_oci_http_response_done(&response);
		if (!code && digest && whole && !last)
			code = check_digest(digest, whole, &own);
		if (!code)
			return 0;
		if (last || code == -ECANCELED || (begun && !whole))
			return own.code ? sm_error_set(err, own.code, "%s%s", own.message, notes) : code;
		note(notes, sizeof notes, &registry->endpoints[i], &own);
		if (whole)
			sm_buf_clear(whole);
	}
}

static int registry_manifest(struct sm_oci_source *source, const char *digest, struct sm_buf *ret,
                             char ret_media_type[SM_OCI_MEDIA_TYPE_SIZE], struct sm_error *err)
{
	struct registry *registry = registry_of(source);
	struct sm_error own = { 0 };
	const char *name = digest ? digest : registry->reference.tag;
	struct sm_oci_endpoint_request wanted = {
		.kind = "manifests",
		.name = name,
		.http = { .accept = manifest_types, .sink = sm_oci_source_collect, .arg = ret },
	};
	int code = get(registry, &wanted, digest, ret_media_type, NULL, &own);
	if (code < 0 && !own.code)
		return sm_error_set(err, code, "manifest %s: larger than %zu bytes", name, ret->max);
	return code < 0 ? sm_error_set(err, own.code, "%s", own.message) : 0;
}

static int registry_peek(struct sm_oci_source *source, char ret_digest[SM_OCI_DIGEST_SIZE], struct sm_error *err)
{
	struct registry *registry = registry_of(source);
	struct sm_oci_endpoint_request wanted = {
		.kind = "manifests",
		.name = registry->reference.tag,
		.http = { .accept = manifest_types, .head = true },
	};
	return get(registry, &wanted, NULL, NULL, ret_digest, err);
}

static int registry_blob(struct sm_oci_source *source, const char *digest, sm_oci_sink sink, void *arg,
                         struct sm_error *err)
{
	struct sm_oci_endpoint_request wanted = {
		.kind = "blobs",
		.name = digest,
		.http = { .accept = any_type, .sink = sink, .arg = arg },
	};
	return get(registry_of(source), &wanted, digest, NULL, NULL, err);
}

/* ---- blobs beside others ------------------------------------------------------------------------------------- */

struct blob {
	struct sm_oci_http_transfer *http;
	struct sm_oci_endpoint_request request;
	size_t endpoint;
	char notes[512];
};

static struct doubt *find_doubt(const struct registry *registry, const char *digest)
{
	struct doubt *doubt = registry->doubts;
	while (doubt && strcmp(doubt->digest, digest))
		doubt = doubt->next;
	return doubt;
}

static bool registry_another(struct sm_oci_source *source, const struct sm_oci_transfer *transfer,
                             const struct sm_error *why)
{
	struct registry *registry = registry_of(source);
	struct doubt *doubt = find_doubt(registry, transfer->digest);
	if (is_last(registry, transfer->place))
		return false;
	if (!doubt) {
		if (!(doubt = calloc(1, sizeof *doubt)))
			return false;
		snprintf(doubt->digest, sizeof doubt->digest, "%s", transfer->digest);
		doubt->next = registry->doubts;
		registry->doubts = doubt;
	}
	doubt->first = transfer->place + 1;
	note(doubt->notes, sizeof doubt->notes, &registry->endpoints[transfer->place], why);
	return true;
}

static int send_blob(struct registry *registry, struct blob *blob, struct sm_error *err)
{
	sm_oci_endpoint_prepare(&registry->endpoints[blob->endpoint], &blob->request);
	return sm_oci_http_start(registry->http, &blob->request.http, &blob->http, err);
}

static int registry_start(struct sm_oci_source *source, struct sm_oci_transfer *transfer, struct sm_error *err)
{
	struct registry *registry = registry_of(source);
	struct blob *blob = calloc(1, sizeof *blob);
	if (!blob)
		return sm_error_sys(err, ENOMEM, "blob %s", transfer->digest);
	const struct doubt *doubt = find_doubt(registry, transfer->digest);
	blob->endpoint = alive(registry, doubt ? doubt->first : 0);
	if (doubt)
		memcpy(blob->notes, doubt->notes, sizeof blob->notes);
	blob->request = (struct sm_oci_endpoint_request){
		.kind = "blobs",
		.name = transfer->digest,
		.http = {
			.accept = any_type,
			.offset = transfer->offset,
			.size = transfer->size,
			.sink = transfer->sink,
			.restart = transfer->restart,
			.arg = transfer->arg,
			.owner = transfer,
		},
	};
	int code = send_blob(registry, blob, err);
	if (code < 0)
		free(blob);
	else
		transfer->state = blob;
	return code;
}

/* The transfer has ended, or is on its way again: with another token, or from somebody else, as long as no byte of it
 * has come; after that whoever asks for the rest does so from the first of all again. */
static bool is_over(struct registry *registry, struct sm_oci_transfer *transfer)
{
	struct blob *blob = transfer->state;
	struct sm_oci_http_response response = { 0 };
	struct sm_error own = { 0 };
	struct sm_oci_endpoint *endpoint = &registry->endpoints[blob->endpoint];
	int code = sm_oci_http_finish(blob->http, &response, &own);
	blob->http = NULL;
	code = sm_oci_endpoint_judge(endpoint, registry->http, &blob->request, code, &response, &own);
	transfer->transient = response.transient;
	transfer->retry_after_s = response.retry_after_s;
	bool elsewhere = code < 0 && code != -ECANCELED && !response.begun && !is_last(registry, blob->endpoint);
	sm_oci_http_response_done(&response);
	if (elsewhere) {
		note(blob->notes, sizeof blob->notes, endpoint, &own);
		blob->endpoint = alive(registry, blob->endpoint + 1);
		blob->request.answers = 0;
	}
	if (code > 0 || elsewhere) {
		own.code = 0;
		code = send_blob(registry, blob, &own);
		if (code == 0)
			return false;
	}
	transfer->code = code;
	transfer->place = blob->endpoint;
	if (own.code)
		sm_error_set(&transfer->err, own.code, "%s%s", own.message, blob->notes);
	return true;
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
	if (is_over(registry, transfer)) {
		free(transfer->state);
		transfer->state = NULL;
		*ret_ended = transfer;
	}
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
	for (size_t i = 0; i < registry->count; i++)
		sm_oci_endpoint_done(&registry->endpoints[i]);
	for (size_t i = 0; i < 2; i++)
		sm_oci_credentials_wipe(&registry->texts[i]);
	while (registry->doubts) {
		struct doubt *doubt = registry->doubts;
		registry->doubts = doubt->next;
		free(doubt);
	}
	sm_oci_http_free(registry->http);
	free(registry);
}

static const struct sm_oci_source_ops registry_ops = {
	.manifest = registry_manifest,
	.peek = registry_peek,
	.blob = registry_blob,
	.free = registry_free,
	.start = registry_start,
	.step = registry_step,
	.stop = registry_stop,
	.another = registry_another,
};

static int check_rules(const struct sm_oci_reference *reference, const struct sm_oci_registry_rules *rules,
                       bool insecure, struct sm_error *err)
{
	const char *host = reference->host;
	if (rules->blocked)
		return sm_error_set(err, EPERM, "registry %s is blocked: %s: registries[\"%s\"].blocked", host,
		                    rules->file, host);
	if (reference->plain_http && !insecure && !sm_oci_reference_is_loopback(host))
		return sm_error_set(err, EPERM,
		                    "registry %s: plain http to another machine needs the option 'insecure'", host);
	for (size_t i = 0; i < rules->count; i++) {
		const struct sm_oci_mirror *mirror = &rules->mirrors[i];
		if (mirror->plain && !insecure && !mirror->insecure && !sm_oci_reference_is_loopback(mirror->host))
			return sm_error_set(err, EPERM,
			                    "%s: registries[\"%s\"].mirrors: plain http to %s, another machine, needs "
			                    "registries[\"%s\"].insecure",
			                    rules->file, host, mirror->host, mirror->host);
	}
	return 0;
}

static int copy_text(const char *text, char **ret, const char **ret_borrowed)
{
	*ret = text ? strdup(text) : NULL;
	*ret_borrowed = *ret;
	return *ret || !text ? 0 : -ENOMEM;
}

static int init_endpoints(struct registry *registry, const struct sm_oci_registry_rules *rules,
                          const struct sm_oci_source_options *given, struct sm_error *err)
{
	struct sm_oci_source_options options = *given;
	int code = copy_text(given->username, &registry->texts[0], &options.username);
	if (!code)
		code = copy_text(given->password, &registry->texts[1], &options.password);
	if (code < 0)
		return sm_error_sys(err, code, "open registry");
	for (size_t i = 0; i <= rules->count && !code; i++) {
		const struct sm_oci_mirror *mirror = i < rules->count ? &rules->mirrors[i] : NULL;
		options.insecure = given->insecure || (!mirror && rules->insecure);
		code = sm_oci_endpoint_init(&registry->endpoints[i], &registry->reference, mirror, &options, err);
		registry->count++;
	}
	return code;
}

int sm_oci_registry_open(const struct sm_oci_reference *reference, const struct sm_oci_source_options *options,
                         struct sm_oci_source **ret, struct sm_error *err)
{
	struct sm_oci_registry_rules *rules = malloc(sizeof *rules);
	struct registry *registry =
	    calloc(1, sizeof *registry + (SM_OCI_MIRRORS_MAX + 1) * sizeof *registry->endpoints);
	int code = rules && registry ? 0 : sm_error_sys(err, ENOMEM, "open registry");
	if (!code)
		code = sm_oci_registries_find(options->config, reference->host, rules, err);
	if (!code)
		code = check_rules(reference, rules, options->insecure || rules->insecure, err);
	if (!code) {
		registry->source.ops = &registry_ops;
		registry->reference = *reference;
		code = sm_oci_http_new(options, &registry->http, err);
	}
	if (!code)
		code = init_endpoints(registry, rules, options, err);
	free(rules);
	if (code < 0) {
		if (registry)
			registry_free(&registry->source);
		return code;
	}
	*ret = &registry->source;
	return 0;
}
