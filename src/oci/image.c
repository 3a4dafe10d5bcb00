#include "oci/image.h"

#include "base/fd.h"
#include "oci/image_config.h"
#include "oci/store_lock.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

struct sm_oci_image {
	atomic_uint references;
	struct sm_oci_store store;
	struct sm_oci_platform platform;
	char *reference;
	char manifest_digest[SM_OCI_DIGEST_SIZE];
	char config_digest[SM_OCI_DIGEST_SIZE];
	char *config_text;
	size_t config_len;
	cJSON *config;
	cJSON *process; /* oci/image_config.h */
	struct sm_oci_layer *layers;
	size_t layer_count;
	int hold_fd; /* the manifest, open; -1: not held */
};

/* Absent and null are the same: Go writes null for an empty list. */
static const cJSON *member(const cJSON *object, const char *name)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);
	return cJSON_IsNull(value) ? NULL : value;
}

static int read_layers(struct sm_oci_image *image, const struct sm_oci_manifest *manifest, const char *what,
                       struct sm_error *err)
{
	const cJSON *rootfs, *diff_ids, *item;
	const char *type;
	int code = sm_json_get_object(image->config, "rootfs", what, &rootfs, err);
	if (code < 0 || (code = sm_json_get_string(rootfs, "type", what, &type, err)) < 0)
		return code;
	if (strcmp(type, "layers"))
		return sm_error_set(err, EOPNOTSUPP, "%s: rootfs type '%.40s' is not supported, only layers", what,
		                    type);
	if (!manifest->count && !member(rootfs, "diff_ids"))
		return 0;
	if ((code = sm_json_get_array(rootfs, "diff_ids", what, &diff_ids, err)) < 0)
		return code;
	size_t count = (size_t)cJSON_GetArraySize(diff_ids);
	if (count != manifest->count)
		return sm_error_set(err, EBADMSG, "%s: %zu diff_ids, but the manifest has %zu layers", what, count,
		                    manifest->count);
	image->layers = calloc(count ? count : 1, sizeof *image->layers);
	if (!image->layers)
		return sm_error_sys(err, ENOMEM, "%s", what);
	cJSON_ArrayForEach(item, diff_ids)
	{
		struct sm_oci_layer *layer = &image->layers[image->layer_count];
		const struct sm_oci_descriptor *descriptor = &manifest->items[image->layer_count];
		const char *diff_id = cJSON_GetStringValue(item);
		if (!diff_id)
			return sm_error_set(err, EBADMSG, "%s: diff_ids[%zu] is not a string", what,
			                    image->layer_count);
		if ((code = sm_oci_digest_check(diff_id, what, err)) < 0)
			return code;
		layer->media_type = strdup(descriptor->media_type);
		if (!layer->media_type)
			return sm_error_sys(err, ENOMEM, "%s", what);
		image->layer_count++;
		memcpy(layer->digest, descriptor->digest, sizeof layer->digest);
		snprintf(layer->diff_id, sizeof layer->diff_id, "%s", diff_id);
		layer->size = descriptor->size;
	}
	return 0;
}

int sm_oci_image_new(const struct sm_oci_store *store, const char *reference, const struct sm_oci_platform *platform,
                     const char *manifest_digest, const struct sm_oci_manifest *manifest, const void *config,
                     size_t config_len, struct sm_oci_image **ret_image, struct sm_error *err)
{
	char what[SM_OCI_DIGEST_SIZE + 16];
	snprintf(what, sizeof what, "config %s", manifest->config.digest);
	struct sm_oci_image *image = calloc(1, sizeof *image);
	if (!image)
		return sm_error_sys(err, ENOMEM, "%s", what);
	atomic_init(&image->references, 1);
	image->hold_fd = -1;
	image->store = *store;
	image->platform = *platform;
	snprintf(image->manifest_digest, sizeof image->manifest_digest, "%s", manifest_digest);
	memcpy(image->config_digest, manifest->config.digest, sizeof image->config_digest);
	image->reference = strdup(reference);
	image->config_text = malloc(config_len + 1);
	int code = 0;
	if (!image->reference || !image->config_text) {
		code = sm_error_sys(err, ENOMEM, "%s", what);
	} else {
		memcpy(image->config_text, config, config_len);
		image->config_text[config_len] = 0;
		image->config_len = config_len;
		code = sm_json_parse(image->config_text, config_len, what, &image->config, err);
	}
	if (code < 0 || (code = sm_oci_image_config_read(image->config, what, &image->process, err)) < 0 ||
	    (code = read_layers(image, manifest, what, err)) < 0) {
		sm_oci_image_unref(image);
		return code;
	}
	*ret_image = image;
	return 0;
}

int sm_oci_image_load(const struct sm_oci_store *store, const char *reference, const struct sm_oci_platform *platform,
                      const char *manifest_digest, struct sm_oci_image **ret_image, struct sm_error *err)
{
	SM_BUF_CLEANUP struct sm_buf text, config;
	SM_OCI_MANIFEST_CLEANUP struct sm_oci_manifest manifest = { 0 };
	sm_buf_init(&text, SM_OCI_MANIFEST_MAX_BYTES);
	sm_buf_init(&config, SM_OCI_CONFIG_MAX_BYTES);
	int code = sm_oci_store_read(store, manifest_digest, &text, err);
	if (code < 0 || (code = sm_oci_manifest_parse(text.data, text.len, "", manifest_digest, &manifest, err)) < 0)
		return code;
	if (manifest.kind != SM_OCI_KIND_MANIFEST)
		return sm_error_set(err, EBADMSG, "%s: an index, not an image's manifest", manifest_digest);
	for (size_t i = 0; i < manifest.count; i++)
		if (!sm_oci_store_has(store, manifest.items[i].digest, manifest.items[i].size))
			return sm_error_set(err, ENOENT, "image store: layer %s is not there",
			                    manifest.items[i].digest);
	if ((code = sm_oci_store_read(store, manifest.config.digest, &config, err)) < 0)
		return code;
	return sm_oci_image_new(store, reference, platform, manifest_digest, &manifest, config.data, config.len,
	                        ret_image, err);
}

struct sm_oci_image *sm_oci_image_ref(struct sm_oci_image *image)
{
	atomic_fetch_add(&image->references, 1);
	return image;
}

void sm_oci_image_unref(struct sm_oci_image *image)
{
	if (!image || atomic_fetch_sub(&image->references, 1) != 1)
		return;
	for (size_t i = 0; i < image->layer_count; i++)
		free(image->layers[i].media_type);
	free(image->layers);
	/* By name: a process that is being forked may have a copy of the descriptor for a moment. */
	if (image->hold_fd >= 0)
		flock(image->hold_fd, LOCK_UN);
	sm_fd_close(&image->hold_fd);
	cJSON_Delete(image->process);
	cJSON_Delete(image->config);
	free(image->config_text);
	free(image->reference);
	free(image);
}

const char *sm_oci_image_get_reference(const struct sm_oci_image *image)
{
	return image->reference;
}

const char *sm_oci_image_get_manifest_digest(const struct sm_oci_image *image)
{
	return image->manifest_digest;
}

const char *sm_oci_image_get_config_digest(const struct sm_oci_image *image)
{
	return image->config_digest;
}

const struct sm_oci_platform *sm_oci_image_get_platform(const struct sm_oci_image *image)
{
	return &image->platform;
}

const struct sm_oci_layer *sm_oci_image_get_layers(const struct sm_oci_image *image, size_t *ret_count)
{
	*ret_count = image->layer_count;
	return image->layers;
}

const char *sm_oci_image_get_config_text(const struct sm_oci_image *image, size_t *ret_len)
{
	if (ret_len)
		*ret_len = image->config_len;
	return image->config_text;
}

const cJSON *sm_oci_image_get_config(const struct sm_oci_image *image)
{
	return image->config;
}

const cJSON *sm_oci_image_get_process(const struct sm_oci_image *image)
{
	return image->process;
}

int sm_oci_image_hold(struct sm_oci_image *image, struct sm_error *err)
{
	SM_FD_CLEANUP int fd = sm_oci_store_open_blob(&image->store, image->manifest_digest, NULL, err);
	if (fd < 0)
		return fd;
	int code = sm_oci_hold(fd);
	if (code < 0)
		return sm_error_sys(err, code, "image store: hold %s", image->manifest_digest);
	image->hold_fd = sm_fd_take(&fd);
	return 0;
}

const char *sm_oci_image_get_store_path(const struct sm_oci_image *image)
{
	return image->store.path;
}

int sm_oci_image_open_blob(const struct sm_oci_image *image, const char *digest, struct sm_error *err)
{
	return sm_oci_store_open_blob(&image->store, digest, NULL, err);
}
