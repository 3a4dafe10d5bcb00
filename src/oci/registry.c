/* A registry as a source (OCI distribution-spec 1.1, "Pull"): its mirrors in their order, then itself. */
#include "oci/endpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct registry {
	struct sm_oci_source source;
	struct sm_oci_reference reference;
	struct sm_oci_http *http;
	char *texts[2]; /* what the options point at */
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

/* A sink that knows whether a byte has gone through it. */
struct tap {
	sm_oci_sink sink;
	void *arg;
	bool wet;
	int code;
};

static int tap_sink(void *arg, const void *data, size_t len)
{
	struct tap *tap = arg;
	tap->wet = true;
	int code = tap->sink(tap->arg, data, len);
	if (code < 0)
		tap->code = code;
	return code;
}

/* A mirror's bytes that are not what was asked for are as good as none. */
static int check_manifest(const char *digest, const struct sm_buf *text, struct sm_error *err)
{
	char found[SM_OCI_DIGEST_SIZE];
	int code = sm_oci_digest_of(text->data, text->len, found);
	if (code < 0)
		return sm_error_sys(err, code, "manifest %s", digest);
	if (strcmp(found, digest))
		return sm_error_set(err, EBADMSG, "manifest %s: its bytes have digest %s", digest, found);
	return 0;
}

/* One endpoint after the other until one has it.  What it said first goes into a manifest's buffer, which is emptied
 * before the next; a blob's bytes are with the sink already, so there is no next after the first of them. */
static int registry_get(struct registry *registry, const char *kind, const char *name, const char *digest,
                        const char *const *accept, sm_oci_sink sink, void *arg, struct sm_buf *manifest,
                        char *ret_media_type, struct sm_error *err)
{
	char mirrors[512] = "";
	for (size_t i = 0;; i++) {
		struct sm_oci_endpoint *endpoint = &registry->endpoints[i];
		bool last = i + 1 == registry->count;
		if (endpoint->dead && !last)
			continue;
		struct tap tap = { .sink = sink, .arg = arg };
		struct sm_error own = { 0 };
		int code = sm_oci_endpoint_get(endpoint, registry->http, kind, name, accept, tap_sink, &tap,
		                               ret_media_type, &own);
		if (!code && manifest && digest && !last)
			code = check_manifest(digest, manifest, &own);
		if (!code)
			return 0;
		/* The sink has told its own failure. */
		if (tap.code < 0 && !(manifest && !last))
			return tap.code;
		if (last || code == -ECANCELED || (tap.wet && !manifest)) {
			sm_error_set(err, code, "%s%s", own.message, mirrors);
			return code;
		}
		if (manifest)
			sm_buf_clear(manifest);
		size_t len = strlen(mirrors);
		snprintf(mirrors + len, sizeof mirrors - len, "; mirror %.100s: %.160s", endpoint->host,
		         own.code ? own.message : "too long");
	}
}

static int registry_manifest(struct sm_oci_source *source, const char *digest, struct sm_buf *ret,
                             char ret_media_type[SM_OCI_MEDIA_TYPE_SIZE], struct sm_error *err)
{
	struct registry *registry = registry_of(source);
	struct sm_error own = { 0 };
	const char *name = digest ? digest : registry->reference.tag;
	int code = registry_get(registry, "manifests", name, digest, manifest_types, sm_oci_source_collect, ret, ret,
	                        ret_media_type, &own);
	if (code < 0 && !own.code)
		return sm_error_set(err, code, "manifest %s: larger than %zu bytes", name, ret->max);
	return code < 0 ? sm_error_set(err, own.code, "%s", own.message) : 0;
}

static int registry_blob(struct sm_oci_source *source, const char *digest, sm_oci_sink sink, void *arg,
                         struct sm_error *err)
{
	return registry_get(registry_of(source), "blobs", digest, digest, any_type, sink, arg, NULL, NULL, err);
}

static void registry_free(struct sm_oci_source *source)
{
	struct registry *registry = registry_of(source);
	for (size_t i = 0; i < registry->count; i++)
		sm_oci_endpoint_done(&registry->endpoints[i]);
	for (size_t i = 0; i < 2; i++)
		sm_oci_credentials_wipe(&registry->texts[i]);
	sm_oci_http_free(registry->http);
	free(registry);
}

static const struct sm_oci_source_ops registry_ops = {
	.manifest = registry_manifest,
	.blob = registry_blob,
	.free = registry_free,
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
