#include "oci/manifest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_TYPE        "application/vnd.oci.image.config.v1+json"
#define CONFIG_TYPE_DOCKER "application/vnd.docker.container.image.v1+json"
#define SCHEMA1_PREFIX     "application/vnd.docker.distribution.manifest.v1+"

static const struct {
	const char *media_type;
	enum sm_oci_manifest_kind kind;
} types[] = {
	{ SM_OCI_TYPE_MANIFEST, SM_OCI_KIND_MANIFEST },
	{ SM_OCI_TYPE_DOCKER_MANIFEST, SM_OCI_KIND_MANIFEST },
	{ SM_OCI_TYPE_INDEX, SM_OCI_KIND_INDEX },
	{ SM_OCI_TYPE_DOCKER_LIST, SM_OCI_KIND_INDEX },
};
#define TYPES (sizeof types / sizeof types[0])

/* Types that say "some JSON" or "some bytes": the document must speak for itself. */
static bool is_general(const char *media_type)
{
	return !*media_type || !strcmp(media_type, "application/json") || !strcmp(media_type, "text/plain") ||
	       !strcmp(media_type, "application/octet-stream");
}

/* What a layer's media type begins with; the packing follows, and is read off the content anyway. */
static const char *const layer_types[] = {
	"application/vnd.oci.image.layer.v1.tar",
	"application/vnd.oci.image.layer.nondistributable.v1.tar",
	"application/vnd.docker.image.rootfs.diff.tar",
	"application/vnd.docker.image.rootfs.foreign.diff.tar",
};
static const char *const packings[] = { "gzip", "zstd", "bzip2", "xz" };

bool sm_oci_manifest_is_layer(const char *media_type)
{
	for (size_t i = 0; i < sizeof layer_types / sizeof *layer_types; i++) {
		size_t len = strlen(layer_types[i]);
		if (strncmp(media_type, layer_types[i], len))
			continue;
		const char *packing = media_type + len;
		if (!*packing)
			return true;
		/* OCI's "+gzip", Docker's ".gzip"; each has been seen behind the other's name */
		for (size_t j = 0; j < sizeof packings / sizeof *packings; j++)
			if ((*packing == '+' || *packing == '.') && !strcmp(packing + 1, packings[j]))
				return true;
	}
	return is_general(media_type);
}

static int check_layers(const struct sm_oci_manifest *manifest, const char *what, struct sm_error *err)
{
	for (size_t i = 0; i < manifest->count; i++) {
		const char *type = manifest->items[i].media_type, *plus = strrchr(type, '+');
		if (sm_oci_manifest_is_layer(type))
			continue;
		return sm_error_set(err, EOPNOTSUPP, "%s: layers[%zu]: media type %.100s is %s", what, i, type,
		                    plus && !strcmp(plus, "+encrypted") ? "an encrypted layer" : "no layer's");
	}
	return 0;
}

static size_t find_type(const char *media_type)
{
	size_t i = 0;
	while (i < TYPES && strcmp(media_type, types[i].media_type))
		i++;
	return i;
}

bool sm_oci_manifest_type_known(const char *media_type)
{
	return find_type(media_type) < TYPES;
}

static int refuse_schema1(const char *what, struct sm_error *err)
{
	return sm_error_set(err, EOPNOTSUPP, "%s: Docker schema 1 manifests are not supported; push the image again",
	                    what);
}

/* Before anything is parsed: a login page is no broken manifest. */
static int check_announced(const char *media_type, const char *what, struct sm_error *err)
{
	if (!strncmp(media_type, SCHEMA1_PREFIX, strlen(SCHEMA1_PREFIX)))
		return refuse_schema1(what, err);
	if (!is_general(media_type) && !sm_oci_manifest_type_known(media_type))
		return sm_error_set(err, EOPNOTSUPP, "%s: media type %.100s is no image manifest or index", what,
		                    media_type);
	return 0;
}

/* A document read as an index by one program and as a manifest by another is an attack
 * (CVE-2021-41190), so type and members must agree. */
static int find_kind(const cJSON *root, const char *media_type, const char *what, enum sm_oci_manifest_kind *ret,
                     struct sm_error *err)
{
	const cJSON *version = cJSON_GetObjectItemCaseSensitive(root, "schemaVersion");
	if (cJSON_IsNumber(version) && version->valuedouble == 1)
		return refuse_schema1(what, err);
	if (!cJSON_IsNumber(version) || version->valuedouble != 2)
		return sm_error_set(err, EBADMSG, "%s: schemaVersion is not 2", what);

	const char *inside;
	int code = sm_json_string_or(root, "mediaType", what, "", &inside, err);
	if (code < 0)
		return code;
	if (*inside && !is_general(media_type) && strcmp(inside, media_type))
		return sm_error_set(err, EBADMSG, "%s: mediaType %.100s, but it was announced as %.100s", what, inside,
		                    media_type);
	const char *type = *inside ? inside : media_type;
	bool has_manifests = cJSON_HasObjectItem(root, "manifests");
	bool has_layers = cJSON_HasObjectItem(root, "layers") || cJSON_HasObjectItem(root, "config");
	if (has_manifests && has_layers)
		return sm_error_set(err, EBADMSG, "%s: both an index and a manifest", what);

	size_t i = find_type(type);
	if (i < TYPES)
		*ret = types[i].kind;
	else if (!is_general(type))
		return sm_error_set(err, EOPNOTSUPP, "%s: media type %.100s is no image manifest or index", what, type);
	else if (has_manifests || has_layers)
		*ret = has_manifests ? SM_OCI_KIND_INDEX : SM_OCI_KIND_MANIFEST;
	else
		return sm_error_set(err, EBADMSG, "%s: neither an index nor a manifest", what);
	return 0;
}

static void copy_field(const cJSON *object, const char *name, char *out, size_t size)
{
	const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
	snprintf(out, size, "%s", value ? value : "");
}

static int parse_descriptor(const cJSON *object, const char *what, struct sm_oci_descriptor *ret, struct sm_error *err)
{
	const char *digest;
	if (!cJSON_IsObject(object))
		return sm_error_set(err, EBADMSG, "%s: not an object", what);
	int code = sm_json_get_string(object, "mediaType", what, &ret->media_type, err);
	if (code < 0 || (code = sm_json_get_string(object, "digest", what, &digest, err)) < 0 ||
	    (code = sm_json_get_u64(object, "size", what, &ret->size, err)) < 0 ||
	    (code = sm_oci_digest_check(digest, what, err)) < 0)
		return code;
	snprintf(ret->digest, sizeof ret->digest, "%s", digest);

	const cJSON *platform = cJSON_GetObjectItemCaseSensitive(object, "platform");
	if (platform && !cJSON_IsNull(platform)) {
		if (!cJSON_IsObject(platform))
			return sm_error_set(err, EBADMSG, "%s: platform is not an object", what);
		ret->has_platform = true;
		copy_field(platform, "os", ret->platform.os, sizeof ret->platform.os);
		copy_field(platform, "architecture", ret->platform.architecture, sizeof ret->platform.architecture);
		copy_field(platform, "variant", ret->platform.variant, sizeof ret->platform.variant);
	}
	return 0;
}

static int parse_items(struct sm_oci_manifest *manifest, const char *member, size_t max, const char *what,
                       struct sm_error *err)
{
	const cJSON *array;
	int code = sm_json_get_array(manifest->root, member, what, &array, err);
	if (code < 0)
		return code;
	size_t count = (size_t)cJSON_GetArraySize(array);
	if (count > max)
		return sm_error_set(err, EBADMSG, "%s: %zu %s, more than %zu", what, count, member, max);
	manifest->items = calloc(count ? count : 1, sizeof *manifest->items);
	if (!manifest->items)
		return sm_error_set(err, ENOMEM, "%s: out of memory", what);
	const cJSON *item;
	cJSON_ArrayForEach(item, array)
	{
		char name[256];
		snprintf(name, sizeof name, "%.200s: %s[%zu]", what, member, manifest->count);
		if ((code = parse_descriptor(item, name, &manifest->items[manifest->count], err)) < 0)
			return code;
		manifest->count++;
	}
	return 0;
}

static int parse_image(struct sm_oci_manifest *manifest, const char *what, struct sm_error *err)
{
	const cJSON *config;
	char name[256];
	snprintf(name, sizeof name, "%.200s: config", what);
	int code = sm_json_get_object(manifest->root, "config", what, &config, err);
	if (code < 0 || (code = parse_descriptor(config, name, &manifest->config, err)) < 0)
		return code;
	const char *type = manifest->config.media_type;
	if (strcmp(type, CONFIG_TYPE) && strcmp(type, CONFIG_TYPE_DOCKER)) {
		const char *artifact =
		    cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(manifest->root, "artifactType"));
		return sm_error_set(err, EOPNOTSUPP, "%s: an artifact of type %.100s, not an image", what,
		                    artifact ? artifact : type);
	}
	if (manifest->config.size > SM_OCI_CONFIG_MAX_BYTES)
		return sm_error_set(err, EFBIG, "%s: %llu bytes, more than %u", name,
		                    (unsigned long long)manifest->config.size, SM_OCI_CONFIG_MAX_BYTES);
	code = parse_items(manifest, "layers", SM_OCI_LAYERS_MAX, what, err);
	return code < 0 ? code : check_layers(manifest, what, err);
}

int sm_oci_manifest_parse(const void *text, size_t len, const char *media_type, const char *what,
                          struct sm_oci_manifest *ret, struct sm_error *err)
{
	SM_OCI_MANIFEST_CLEANUP struct sm_oci_manifest manifest = { 0 };
	if (len > SM_OCI_MANIFEST_MAX_BYTES)
		return sm_error_set(err, EFBIG, "%s: %zu bytes, more than %u", what, len, SM_OCI_MANIFEST_MAX_BYTES);
	int code = check_announced(media_type, what, err);
	if (code < 0 || (code = sm_json_parse(text, len, what, &manifest.root, err)) < 0)
		return code;
	if (!cJSON_IsObject(manifest.root))
		return sm_error_set(err, EBADMSG, "%s: not an object", what);
	if ((code = find_kind(manifest.root, media_type, what, &manifest.kind, err)) < 0)
		return code;
	if (manifest.kind == SM_OCI_KIND_INDEX)
		code = parse_items(&manifest, "manifests", SM_OCI_INDEX_MAX, what, err);
	else
		code = parse_image(&manifest, what, err);
	if (code < 0)
		return code;
	*ret = manifest;
	manifest = (struct sm_oci_manifest){ 0 };
	return 0;
}

void sm_oci_manifest_done(struct sm_oci_manifest *manifest)
{
	cJSON_Delete(manifest->root);
	free(manifest->items);
	*manifest = (struct sm_oci_manifest){ 0 };
}
