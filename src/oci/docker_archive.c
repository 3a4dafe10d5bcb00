/* What `docker save`, `podman save` and `skopeo copy docker-archive:` write, as a source: a tar with a manifest.json
 * that lists images (Docker "Image Specification v1.2", "Combined Image JSON + Filesystem Changeset Format").
 *
 * It holds no manifest of the OCI's kind, so one is made up: config and layers as they are in the tar, written in one
 * way, so that the same content has the same digest however and by whomever it was packed. */
#include "base/sha256.h"
#include "oci/archive.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INDEX_NAME  "manifest.json"
#define CONFIG_TYPE "application/vnd.oci.image.config.v1+json"
#define LAYER_TYPE  "application/vnd.oci.image.layer.v1.tar"

struct layer {
	char digest[SM_OCI_DIGEST_SIZE];
	char *name; /* of the member */
};

struct docker_archive {
	struct sm_oci_source source;
	struct sm_oci_files *files;
	char config_digest[SM_OCI_DIGEST_SIZE];
	struct sm_buf config, manifest;
	struct layer *layers;
	size_t count;
};

static struct docker_archive *archive_of(struct sm_oci_source *source)
{
	return (struct docker_archive *)source;
}

/* Go writes an empty list as null. */
static int get_list(const cJSON *object, const char *name, const char *what, const cJSON **ret, struct sm_error *err)
{
	*ret = cJSON_GetObjectItemCaseSensitive(object, name);
	if (*ret && cJSON_IsNull(*ret))
		return 0;
	return sm_json_get_array(object, name, what, ret, err);
}

static bool has_name(const cJSON *image, const struct sm_oci_reference *wanted)
{
	const cJSON *tag;
	cJSON_ArrayForEach(tag, cJSON_GetObjectItemCaseSensitive(image, "RepoTags"))
	{
		struct sm_oci_reference found;
		char text[512];
		int len = snprintf(text, sizeof text, "docker://%s", cJSON_IsString(tag) ? tag->valuestring : "");
		if (len < (int)sizeof text && sm_oci_reference_parse(text, &found, NULL) == 0 && !found.digest[0] &&
		    !strcmp(found.host, wanted->host) && !strcmp(found.repository, wanted->repository) &&
		    !strcmp(found.tag, wanted->tag))
			return true;
	}
	return false;
}

static const char *list_images(const cJSON *images, struct sm_buf *out)
{
	int number = 0;
	const cJSON *image, *tag;
	cJSON_ArrayForEach(image, images)
	{
		sm_buf_printf(out, "%s@%d", number ? ", " : "", number);
		number++;
		cJSON_ArrayForEach(tag, cJSON_GetObjectItemCaseSensitive(image, "RepoTags"))
		    sm_buf_printf(out, " %.100s", cJSON_IsString(tag) ? tag->valuestring : "?");
	}
	const char *text = sm_buf_str(out);
	return text ? text : "(many)";
}

static int choose(const struct sm_oci_reference *wanted, const cJSON *images, const char *what, const cJSON **ret,
                  struct sm_error *err)
{
	SM_BUF_CLEANUP struct sm_buf there;
	sm_buf_init(&there, 4096);
	const cJSON *image;
	int number = 0, fitting = 0;
	cJSON_ArrayForEach(image, images)
	{
		bool fits = wanted->index >= 0 ? number == wanted->index : !wanted->host[0] || has_name(image, wanted);
		if (fits && !fitting++)
			*ret = image;
		number++;
	}
	if (fitting == 1)
		return 0;
	if (!number)
		return sm_error_set(err, ENOENT, "%s: holds no image", what);
	if (fitting)
		return sm_error_set(err, EINVAL, "%s: holds several images%s, name one: %s", what,
		                    wanted->host[0] ? " of this name" : "", list_images(images, &there));
	if (wanted->index >= 0)
		return sm_error_set(err, ENOENT, "%s: no image @%d; there is: %s", what, wanted->index,
		                    list_images(images, &there));
	return sm_error_set(err, ENOENT, "%s: no image '%s/%s:%s'; there is: %s", what, wanted->host,
	                    wanted->repository, wanted->tag, list_images(images, &there));
}

static int hash_sink(void *arg, const void *data, size_t len)
{
	sm_sha256_update(arg, data, len);
	return 0;
}

static int hash_member(struct docker_archive *archive, const char *name, char out[SM_OCI_DIGEST_SIZE],
                       struct sm_error *err)
{
	char hex[SM_SHA256_HEX + 1];
	struct sm_sha256 *hash = sm_sha256_new();
	if (!hash)
		return sm_error_sys(err, ENOMEM, "hash '%s'", name);
	int code = sm_oci_files_read(archive->files, name, hash_sink, hash, err);
	if (code == 0) {
		sm_sha256_final(hash, hex);
		snprintf(out, SM_OCI_DIGEST_SIZE, "sha256:%s", hex);
	}
	sm_sha256_free(hash);
	return code;
}

/* "blobs/sha256/HEX" is as good as a hash: what it says is checked when the blob is taken. */
static bool names_digest(const char *name, char out[SM_OCI_DIGEST_SIZE])
{
	static const char folder[] = "blobs/sha256/";
	if (strncmp(name, folder, sizeof folder - 1) || strlen(name) != sizeof folder - 1 + SM_SHA256_HEX)
		return false;
	snprintf(out, SM_OCI_DIGEST_SIZE, "sha256:%s", name + sizeof folder - 1);
	return sm_oci_digest_check(out, "", NULL) == 0;
}

/* A plain layer's digest is its diff id.  What is packed in another way than the media type can say shows by its
 * magic when the layer is unpacked. */
static int add_layer(struct docker_archive *archive, const char *name, const char *diff_id, struct sm_error *err)
{
	static const struct {
		const char *magic;
		size_t len;
		const char *suffix;
	} packed[] = {
		{ "\x1f\x8b", 2, "+gzip" },
		{ "\x28\xb5\x2f\xfd", 4, "+zstd" },
		{ "BZh", 3, "" },
		{ "\xfd\x37zXZ\0", 6, "" },
	};
	struct layer *layer = &archive->layers[archive->count];
	const struct sm_oci_archive_member *member;
	int code = sm_oci_archive_find(archive->files, name, &member, err);
	if (code < 0)
		return code;
	size_t i = 0;
	while (i < sizeof packed / sizeof packed[0] && memcmp(member->head, packed[i].magic, packed[i].len))
		i++;
	bool plain = i == sizeof packed / sizeof packed[0];
	layer->name = strdup(member->name);
	if (!layer->name)
		return sm_error_sys(err, ENOMEM, "layer '%s'", name);
	archive->count++;
	if (plain)
		snprintf(layer->digest, sizeof layer->digest, "%s", diff_id);
	else if (!names_digest(member->name, layer->digest) &&
	         (code = hash_member(archive, member->name, layer->digest, err)) < 0)
		return code;
	sm_buf_printf(&archive->manifest, "%s{\"mediaType\":\"" LAYER_TYPE "%s\",\"digest\":\"%s\",\"size\":%llu}",
	              archive->count > 1 ? "," : "", plain ? "" : packed[i].suffix, layer->digest,
	              (unsigned long long)member->size);
	return 0;
}

static int add_layers(struct docker_archive *archive, const cJSON *names, const cJSON *diff_ids, const char *what,
                      struct sm_error *err)
{
	int count = cJSON_GetArraySize(names);
	if (count != cJSON_GetArraySize(diff_ids))
		return sm_error_set(err, EBADMSG, "%s: %d Layers, but the config has %d diff_ids", what, count,
		                    cJSON_GetArraySize(diff_ids));
	if (count > SM_OCI_LAYERS_MAX)
		return sm_error_set(err, EBADMSG, "%s: %d Layers, more than %d", what, count, SM_OCI_LAYERS_MAX);
	archive->layers = calloc(count ? (size_t)count : 1, sizeof *archive->layers);
	if (!archive->layers)
		return sm_error_sys(err, ENOMEM, "%s", what);
	const cJSON *diff_id = diff_ids ? diff_ids->child : NULL, *name;
	cJSON_ArrayForEach(name, names)
	{
		char layer[64];
		snprintf(layer, sizeof layer, "Layers[%zu]", archive->count);
		if (!cJSON_IsString(name) || !cJSON_IsString(diff_id))
			return sm_error_set(err, EBADMSG, "%s: %s or its diff_id is not a string", what, layer);
		int code = sm_oci_digest_check(diff_id->valuestring, layer, err);
		if (code < 0 || (code = add_layer(archive, name->valuestring, diff_id->valuestring, err)) < 0)
			return sm_error_context(err, "%s: %s", what, layer);
		diff_id = diff_id->next;
	}
	return 0;
}

static int make_manifest(struct docker_archive *archive, const cJSON *image, const char *what, struct sm_error *err)
{
	const char *config_name;
	const cJSON *names, *rootfs, *diff_ids = NULL;
	int code = sm_json_get_string(image, "Config", what, &config_name, err);
	if (code < 0 || (code = get_list(image, "Layers", what, &names, err)) < 0 ||
	    (code = sm_oci_files_read_small(archive->files, config_name, &archive->config, err)) < 0)
		return code;
	if ((code = sm_oci_digest_of(archive->config.data, archive->config.len, archive->config_digest)) < 0)
		return sm_error_sys(err, code, "%s", what);
	SM_JSON_CLEANUP cJSON *config = NULL;
	code = sm_json_parse((const char *)archive->config.data, archive->config.len, config_name, &config, err);
	if (code < 0 || (code = sm_json_get_object(config, "rootfs", config_name, &rootfs, err)) < 0)
		return code;
	if (cJSON_GetArraySize(names) && (code = get_list(rootfs, "diff_ids", config_name, &diff_ids, err)) < 0)
		return code;
	sm_buf_printf(&archive->manifest,
	              "{\"schemaVersion\":2,\"mediaType\":\"" SM_OCI_TYPE_MANIFEST
	              "\",\"config\":{\"mediaType\":\"" CONFIG_TYPE "\",\"digest\":\"%s\",\"size\":%zu},\"layers\":[",
	              archive->config_digest, archive->config.len);
	if ((code = add_layers(archive, names, diff_ids, what, err)) < 0)
		return code;
	code = sm_buf_append_str(&archive->manifest, "]}");
	return code < 0 ? sm_error_sys(err, code, "%s", what) : 0;
}

static int read_archive(struct docker_archive *archive, const struct sm_oci_reference *reference, struct sm_error *err)
{
	char what[PATH_MAX + sizeof INDEX_NAME + 8];
	const cJSON *image = NULL;
	SM_BUF_CLEANUP struct sm_buf text;
	sm_buf_init(&text, SM_OCI_MANIFEST_MAX_BYTES);
	snprintf(what, sizeof what, "'%s/" INDEX_NAME "'", archive->files->path);
	int code = sm_oci_files_read_small(archive->files, INDEX_NAME, &text, err);
	if (code < 0)
		return sm_error_context(err, "no docker archive");
	SM_JSON_CLEANUP cJSON *images = NULL;
	if ((code = sm_json_parse((const char *)text.data, text.len, what, &images, err)) < 0)
		return code;
	if (!cJSON_IsArray(images))
		return sm_error_set(err, EBADMSG, "%s: not an array", what);
	if ((code = choose(reference, images, what, &image, err)) < 0)
		return code;
	return make_manifest(archive, image, what, err);
}

static int docker_manifest(struct sm_oci_source *source, const char *digest, struct sm_buf *ret,
                           char ret_media_type[SM_OCI_MEDIA_TYPE_SIZE], struct sm_error *err)
{
	struct docker_archive *archive = archive_of(source);
	if (digest)
		return sm_error_set(err, ENOENT, "'%s' has no manifest %s", archive->files->path, digest);
	snprintf(ret_media_type, SM_OCI_MEDIA_TYPE_SIZE, "%s", SM_OCI_TYPE_MANIFEST);
	int code = sm_oci_source_collect(ret, archive->manifest.data, archive->manifest.len);
	return code < 0 ? sm_error_sys(err, code, "'%s'", archive->files->path) : 0;
}

static int docker_blob(struct sm_oci_source *source, const char *digest, sm_oci_sink sink, void *arg,
                       struct sm_error *err)
{
	struct docker_archive *archive = archive_of(source);
	if (!strcmp(digest, archive->config_digest))
		return sink(arg, archive->config.data, archive->config.len);
	for (size_t i = 0; i < archive->count; i++)
		if (!strcmp(digest, archive->layers[i].digest))
			return sm_oci_files_read(archive->files, archive->layers[i].name, sink, arg, err);
	return sm_error_set(err, ENOENT, "'%s' has no blob %s", archive->files->path, digest);
}

static void docker_free(struct sm_oci_source *source)
{
	struct docker_archive *archive = archive_of(source);
	for (size_t i = 0; i < archive->count; i++)
		free(archive->layers[i].name);
	free(archive->layers);
	sm_buf_done(&archive->config);
	sm_buf_done(&archive->manifest);
	sm_oci_files_free(archive->files);
	free(archive);
}

static const struct sm_oci_source_ops docker_ops = {
	.manifest = docker_manifest,
	.blob = docker_blob,
	.free = docker_free,
};

int sm_oci_docker_archive_open(const struct sm_oci_reference *reference, const struct sm_oci_source_options *options,
                               struct sm_oci_source **ret, struct sm_error *err)
{
	struct docker_archive *archive = calloc(1, sizeof *archive);
	if (!archive)
		return sm_error_sys(err, ENOMEM, "open '%s'", reference->path);
	archive->source.ops = &docker_ops;
	sm_buf_init(&archive->config, SM_OCI_CONFIG_MAX_BYTES);
	sm_buf_init(&archive->manifest, SM_OCI_MANIFEST_MAX_BYTES);
	int code = sm_oci_archive_open(reference->path, options->cancel, &archive->files, err);
	if (code < 0 || (code = read_archive(archive, reference, err)) < 0) {
		docker_free(&archive->source);
		return code;
	}
	*ret = &archive->source;
	return 0;
}
