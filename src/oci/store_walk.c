/* From a manifest to all that it needs. */
#include "base/json.h"
#include "oci/manifest.h"
#include "oci/store_census.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DEPTH_MAX 4 /* indexes inside indexes, as oci/resolve.c has it */

struct walk {
	const struct sm_oci_census *census;
	sm_oci_visit visit;
	void *arg;
	unsigned missing;
};

/* Visit a blob.  false: it is not there. */
static bool visit_blob(struct walk *walk, const char *digest)
{
	struct sm_oci_entry *entry = sm_oci_census_blob(walk->census, digest);
	if (entry)
		walk->visit(walk->arg, entry, true);
	else
		walk->missing++;
	return entry;
}

/* All EROFS files of a diff or chain id, whatever stands before the digits. */
static void visit_erofs(struct walk *walk, const char *digest)
{
	const struct sm_oci_folder *erofs = &walk->census->erofs;
	char tail[SM_OCI_DIGEST_SIZE + 8];
	int len = snprintf(tail, sizeof tail, "%s.erofs", sm_oci_digest_hex(digest));
	for (size_t i = 0; i < erofs->count; i++) {
		size_t name = strlen(erofs->list[i].name);
		if (name >= (size_t)len && !strcmp(erofs->list[i].name + name - (size_t)len, tail))
			walk->visit(walk->arg, &erofs->list[i], false);
	}
}

/* chain(0) = diff(0); chain(n) = digest(chain(n - 1) " " diff(n))   OCI image-spec, config.md, "Layer ChainID" */
static int visit_layers(struct walk *walk, const char *config_digest, struct sm_error *err)
{
	char what[SM_OCI_DIGEST_SIZE + 16], chain[SM_OCI_DIGEST_SIZE] = "", both[2 * SM_OCI_DIGEST_SIZE];
	const cJSON *rootfs, *diff_ids, *item;
	SM_BUF_CLEANUP struct sm_buf text;
	SM_JSON_CLEANUP cJSON *root = NULL;
	sm_buf_init(&text, SM_OCI_CONFIG_MAX_BYTES);
	snprintf(what, sizeof what, "config %s", config_digest);
	int code = sm_oci_store_read(walk->census->store, config_digest, &text, err);
	if (code < 0 || (code = sm_json_parse((const char *)text.data, text.len, what, &root, err)) < 0 ||
	    (code = sm_json_get_object(root, "rootfs", what, &rootfs, err)) < 0)
		return code;
	if (!cJSON_GetObjectItemCaseSensitive(rootfs, "diff_ids"))
		return 0;
	if ((code = sm_json_get_array(rootfs, "diff_ids", what, &diff_ids, err)) < 0)
		return code;
	cJSON_ArrayForEach(item, diff_ids)
	{
		const char *diff_id = cJSON_GetStringValue(item);
		if (!diff_id)
			return sm_error_set(err, EBADMSG, "%s: a diff id is not a string", what);
		if ((code = sm_oci_digest_check(diff_id, what, err)) < 0)
			return code;
		int len = snprintf(both, sizeof both, "%s%s%s", chain, *chain ? " " : "", diff_id);
		if (!*chain)
			snprintf(chain, sizeof chain, "%s", diff_id);
		else if (sm_oci_digest_of(both, (size_t)len, chain) < 0)
			return sm_error_sys(err, ENOMEM, "%s", what);
		visit_erofs(walk, diff_id);
		if (strcmp(chain, diff_id))
			visit_erofs(walk, chain);
	}
	return 0;
}

static int visit_manifest(struct walk *walk, const char *digest, unsigned depth, struct sm_error *err)
{
	SM_BUF_CLEANUP struct sm_buf text;
	SM_OCI_MANIFEST_CLEANUP struct sm_oci_manifest manifest = { 0 };
	sm_buf_init(&text, SM_OCI_MANIFEST_MAX_BYTES);
	if (depth > DEPTH_MAX)
		return sm_error_set(err, EBADMSG, "%s: indexes are nested more than %d deep", digest, DEPTH_MAX);
	if (!visit_blob(walk, digest))
		return 0;
	int code = sm_oci_store_read(walk->census->store, digest, &text, err);
	if (code < 0 || (code = sm_oci_manifest_parse(text.data, text.len, "", digest, &manifest, err)) < 0)
		return code;
	if (manifest.kind == SM_OCI_KIND_INDEX) {
		for (size_t i = 0; i < manifest.count && code == 0; i++)
			if (sm_oci_census_blob(walk->census, manifest.items[i].digest) &&
			    sm_oci_manifest_type_known(manifest.items[i].media_type))
				code = visit_manifest(walk, manifest.items[i].digest, depth + 1, err);
		return code;
	}
	for (size_t i = 0; i < manifest.count; i++)
		visit_blob(walk, manifest.items[i].digest);
	return visit_blob(walk, manifest.config.digest) ? visit_layers(walk, manifest.config.digest, err) : 0;
}

int sm_oci_census_walk(const struct sm_oci_census *census, const char *digest, sm_oci_visit visit, void *arg,
                       unsigned *ret_missing, struct sm_error *err)
{
	struct walk walk = { .census = census, .visit = visit, .arg = arg };
	int code = visit_manifest(&walk, digest, 0, err);
	if (ret_missing)
		*ret_missing = walk.missing;
	return code;
}
