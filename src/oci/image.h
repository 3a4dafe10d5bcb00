/* A pulled image: what its manifest and config say, and the way to its blobs.
 *
 * Immutable once held, and reference-counted; any thread. */
#ifndef SM_OCI_IMAGE_H
#define SM_OCI_IMAGE_H

#include "base/json.h"
#include "oci/manifest.h"
#include "oci/store.h"

#include <stddef.h>
#include <stdint.h>

struct sm_oci_layer {
	char digest[SM_OCI_DIGEST_SIZE];  /* of the blob as stored */
	char diff_id[SM_OCI_DIGEST_SIZE]; /* of the uncompressed tar; unverified until the layer is unpacked */
	char *media_type;                 /* as the manifest has it */
	uint64_t size;                    /* of the blob, bytes */
};

struct sm_oci_image;

/* The image with this manifest digest, from the store alone.  Manifest and config are verified again, of the layers
 * the presence and size.  `reference` is kept as its name.  -ENOENT when a part is missing. */
int sm_oci_image_load(const struct sm_oci_store *store, const char *reference, const struct sm_oci_platform *platform,
                      const char *manifest_digest, struct sm_oci_image **ret_image, struct sm_error *err);
/* The same from verified bytes; looks at no blob. */
int sm_oci_image_new(const struct sm_oci_store *store, const char *reference, const struct sm_oci_platform *platform,
                     const char *manifest_digest, const struct sm_oci_manifest *manifest, const void *config,
                     size_t config_len, struct sm_oci_image **ret_image, struct sm_error *err);
struct sm_oci_image *sm_oci_image_ref(struct sm_oci_image *image);
void sm_oci_image_unref(struct sm_oci_image *image); /* NULL is fine */

/* Borrowed, never NULL unless said. */
const char *sm_oci_image_get_reference(const struct sm_oci_image *image);
const char *sm_oci_image_get_manifest_digest(const struct sm_oci_image *image);
const char *sm_oci_image_get_config_digest(const struct sm_oci_image *image);
const struct sm_oci_platform *sm_oci_image_get_platform(const struct sm_oci_image *image);
/* Lowest first, in the order of the manifest. */
const struct sm_oci_layer *sm_oci_image_get_layers(const struct sm_oci_image *image, size_t *ret_count);

/* The config document as it is, and parsed (OCI image-spec, config.md). */
const char *sm_oci_image_get_config_text(const struct sm_oci_image *image, size_t *ret_len);
const cJSON *sm_oci_image_get_config(const struct sm_oci_image *image);
/* How the image wants to be run: see oci/image_config.h. */
const cJSON *sm_oci_image_get_process(const struct sm_oci_image *image);

/* Keep the image's blobs and EROFS files from gc until the last unref.  Called once, under the store's lock, when the
 * manifest is stored (oci/store_lock.h). */
int sm_oci_image_hold(struct sm_oci_image *image, struct sm_error *err);

const char *sm_oci_image_get_store_path(const struct sm_oci_image *image);
/* A read-only descriptor, owned by the caller, of one of the image's blobs (or any in the same store). */
int sm_oci_image_open_blob(const struct sm_oci_image *image, const char *digest, struct sm_error *err);

#endif
