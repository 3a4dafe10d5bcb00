/* Manifests and indexes: the OCI and the Docker spelling of each (OCI image-spec, manifest.md and
 * image-index.md; Docker "Image Manifest Version 2, Schema 2").  Schema 1, artifacts and documents that
 * could be read as either kind are refused by name. */
#ifndef SM_OCI_MANIFEST_H
#define SM_OCI_MANIFEST_H

#include "base/json.h"
#include "oci/digest.h"
#include "oci/platform.h"

#include <stdint.h>

#define SM_OCI_MANIFEST_MAX_BYTES (4u << 20)
#define SM_OCI_CONFIG_MAX_BYTES   (4u << 20)
#define SM_OCI_LAYERS_MAX         500 /* what overlayfs can stack */
#define SM_OCI_INDEX_MAX          4096

#define SM_OCI_TYPE_MANIFEST        "application/vnd.oci.image.manifest.v1+json"
#define SM_OCI_TYPE_INDEX           "application/vnd.oci.image.index.v1+json"
#define SM_OCI_TYPE_DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define SM_OCI_TYPE_DOCKER_LIST     "application/vnd.docker.distribution.manifest.list.v2+json"

struct sm_oci_descriptor {
	char digest[SM_OCI_DIGEST_SIZE];
	uint64_t size;
	const char *media_type; /* borrowed from the manifest */
	bool has_platform;
	struct sm_oci_platform platform; /* cut fields never match */
};

enum sm_oci_manifest_kind {
	SM_OCI_KIND_MANIFEST,
	SM_OCI_KIND_INDEX,
};

struct sm_oci_manifest {
	enum sm_oci_manifest_kind kind;
	cJSON *root;
	struct sm_oci_descriptor config; /* of a manifest */
	struct sm_oci_descriptor *items; /* layers, lowest first, or the entries of an index */
	size_t count;
};

/* media_type is what the source or the descriptor said ("" or a general type: unknown).  -EBADMSG for
 * what is malformed, -EOPNOTSUPP for what is sound but no image; the error names `what`. */
int sm_oci_manifest_parse(const void *text, size_t len, const char *media_type, const char *what,
                          struct sm_oci_manifest *ret, struct sm_error *err);
void sm_oci_manifest_done(struct sm_oci_manifest *manifest); /* safe on a zeroed one and twice */

/* Is it a manifest or index type that sm_oci_manifest_parse takes? */
bool sm_oci_manifest_type_known(const char *media_type);

/* Is it a media type of a file system layer, however packed, or one that says nothing ("application/octet-stream")?
 * Docker's and OCI's, the foreign and non-distributable ones too. */
bool sm_oci_manifest_is_layer(const char *media_type);

#define SM_OCI_MANIFEST_CLEANUP __attribute__((cleanup(sm_oci_manifest_done)))

#endif
