#include "oci/resolve.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX   4  /* indexes inside indexes */
#define FETCHES_MAX 64 /* documents looked at in one search */

struct search {
	struct sm_oci_source *source;
	const struct sm_oci_store *store;
	const struct sm_oci_platform *wanted;
	struct sm_oci_resolved *found;
	unsigned fetches;
	struct sm_buf offered;    /* platforms seen, for the error */
	struct sm_error no_image; /* the first entry that is an artifact */
};

static void offer(struct search *search, const struct sm_oci_platform *platform)
{
	char text[SM_OCI_PLATFORM_TEXT + 2];
	struct sm_buf *offered = &search->offered;
	/* What builders attach to an image is marked so. */
	if (!strcmp(platform->os, "unknown"))
		return;
	sm_oci_platform_format(platform, text);
	for (char *at = text; *at; at++)
		if (*at <= ' ' || *at > '~')
			*at = '?';
	const char *so_far = sm_buf_str(offered);
	const char *seen = so_far ? strstr(so_far, text) : NULL;
	size_t len = strlen(text);
	if (!seen || (seen[len] && seen[len] != ','))
		sm_buf_printf(offered, "%s%s", offered->len ? ", " : "", text);
}

/* The platform an image has by its own word. */
static int config_platform(const struct sm_buf *config, const char *digest, struct sm_oci_platform *ret,
                           struct sm_error *err)
{
	char what[SM_OCI_DIGEST_SIZE + 16];
	const char *os, *architecture;
	SM_JSON_CLEANUP cJSON *root = NULL;
	snprintf(what, sizeof what, "config %s", digest);
	int code = sm_json_parse((const char *)config->data, config->len, what, &root, err);
	if (code < 0 || (code = sm_json_get_string(root, "os", what, &os, err)) < 0 ||
	    (code = sm_json_get_string(root, "architecture", what, &architecture, err)) < 0)
		return code;
	memset(ret, 0, sizeof *ret);
	snprintf(ret->os, sizeof ret->os, "%s", os);
	snprintf(ret->architecture, sizeof ret->architecture, "%s", architecture);
	return 0;
}

static int look_at_image(struct search *search, struct sm_oci_manifest *manifest, struct sm_error *err)
{
	struct sm_oci_platform platform;
	SM_BUF_CLEANUP struct sm_buf config;
	sm_buf_init(&config, SM_OCI_CONFIG_MAX_BYTES);
	const char *digest = manifest->config.digest;
	int code = sm_oci_source_fetch(search->source, search->store, false, &manifest->config, &config, err);
	if (code < 0 || (code = config_platform(&config, digest, &platform, err)) < 0)
		return code;
	/* A config seldom tells its variant; the index, if any, has been asked about it. */
	if (strcmp(platform.os, search->wanted->os) || strcmp(platform.architecture, search->wanted->architecture)) {
		offer(search, &platform);
		return 0;
	}
	search->found->config = config;
	memset(&config, 0, sizeof config);
	return 1;
}

static int look_at_document(struct search *search, const struct sm_buf *text, const char *digest,
                            const char *media_type, unsigned depth, struct sm_error *err);

static int look_at_entry(struct search *search, const struct sm_oci_descriptor *entry, unsigned depth,
                         struct sm_error *err)
{
	SM_BUF_CLEANUP struct sm_buf text;
	sm_buf_init(&text, SM_OCI_MANIFEST_MAX_BYTES);
	if (++search->fetches > FETCHES_MAX)
		return sm_error_set(err, EBADMSG, "more than %d manifests to look at", FETCHES_MAX);
	int code = sm_oci_source_fetch(search->source, search->store, true, entry, &text, err);
	if (code < 0)
		return code;
	code = look_at_document(search, &text, entry->digest, entry->media_type, depth, err);
	if (code > 0 && !search->found->manifest.data) {
		search->found->manifest = text;
		memset(&text, 0, sizeof text);
	}
	return code;
}

/* First what says it serves, in the index's order; then what says nothing. */
static int look_at_index(struct search *search, const struct sm_oci_manifest *index, unsigned depth,
                         struct sm_error *err)
{
	if (depth >= DEPTH_MAX)
		return sm_error_set(err, EBADMSG, "indexes are nested more than %d deep", DEPTH_MAX);
	for (int declared = 1; declared >= 0; declared--)
		for (size_t i = 0; i < index->count; i++) {
			const struct sm_oci_descriptor *entry = &index->items[i];
			if (entry->has_platform != declared || !sm_oci_manifest_type_known(entry->media_type))
				continue;
			if (declared && !sm_oci_platform_serves(&entry->platform, search->wanted)) {
				offer(search, &entry->platform);
				continue;
			}
			struct sm_error own = { 0 };
			int code = look_at_entry(search, entry, depth + 1, &own);
			if (code > 0)
				return code;
			if (code == -EOPNOTSUPP && !search->no_image.code)
				search->no_image = own;
			if (code < 0 && code != -EOPNOTSUPP)
				return sm_error_set(err, own.code, "%s", own.message);
		}
	return 0;
}

static int look_at_document(struct search *search, const struct sm_buf *text, const char *digest,
                            const char *media_type, unsigned depth, struct sm_error *err)
{
	char what[SM_OCI_DIGEST_SIZE + 16];
	SM_OCI_MANIFEST_CLEANUP struct sm_oci_manifest parsed = { 0 };
	snprintf(what, sizeof what, "manifest%s%s", *digest ? " " : "", digest);
	int code = sm_oci_manifest_parse(text->data, text->len, media_type, what, &parsed, err);
	if (code < 0)
		return code;
	if (parsed.kind == SM_OCI_KIND_INDEX)
		return look_at_index(search, &parsed, depth, err);
	code = look_at_image(search, &parsed, err);
	if (code > 0) {
		struct sm_oci_resolved *found = search->found;
		if (*digest)
			snprintf(found->digest, sizeof found->digest, "%s", digest);
		else if (sm_oci_digest_of(text->data, text->len, found->digest) < 0)
			return sm_error_sys(err, ENOMEM, "manifest");
		found->parsed = parsed;
		memset(&parsed, 0, sizeof parsed);
	}
	return code;
}

static int look_at_root(struct search *search, const char *digest, struct sm_error *err)
{
	char media_type[SM_OCI_MEDIA_TYPE_SIZE], found[SM_OCI_DIGEST_SIZE];
	SM_BUF_CLEANUP struct sm_buf text;
	sm_buf_init(&text, SM_OCI_MANIFEST_MAX_BYTES);
	int code = search->source->ops->manifest(search->source, *digest ? digest : NULL, &text, media_type, err);
	if (code < 0)
		return code;
	if ((code = sm_oci_digest_of(text.data, text.len, found)) < 0)
		return sm_error_sys(err, code, "manifest %s", digest);
	if (*digest && strcmp(found, digest))
		return sm_error_set(err, EBADMSG, "manifest %s: its bytes have digest %s", digest, found);
	memcpy(search->found->root, found, sizeof found);
	code = look_at_document(search, &text, digest, media_type, 0, err);
	if (code > 0 && !search->found->manifest.data) {
		search->found->manifest = text;
		memset(&text, 0, sizeof text);
	}
	return code;
}

int sm_oci_resolve(struct sm_oci_source *source, const struct sm_oci_store *store, const char *digest,
                   const struct sm_oci_platform *wanted, struct sm_oci_resolved *ret, struct sm_error *err)
{
	char wanted_text[SM_OCI_PLATFORM_TEXT];
	struct search search = { .source = source, .store = store, .wanted = wanted, .found = ret };
	memset(ret, 0, sizeof *ret);
	sm_buf_init(&search.offered, 4096);
	int code = look_at_root(&search, digest, err);
	if (code > 0) {
		code = 0;
	} else if (code == 0 && search.no_image.code && !search.offered.len) {
		code = sm_error_set(err, search.no_image.code, "%s", search.no_image.message);
	} else if (code == 0) {
		sm_oci_platform_format(wanted, wanted_text);
		const char *offered = sm_buf_str(&search.offered);
		code = sm_error_set(err, ENOEXEC, "no image for %s; there is: %s", wanted_text,
		                    offered && *offered ? offered : "none");
	}
	sm_buf_done(&search.offered);
	if (code < 0)
		sm_oci_resolved_done(ret);
	return code;
}

void sm_oci_resolved_done(struct sm_oci_resolved *resolved)
{
	sm_buf_done(&resolved->manifest);
	sm_buf_done(&resolved->config);
	sm_oci_manifest_done(&resolved->parsed);
}
