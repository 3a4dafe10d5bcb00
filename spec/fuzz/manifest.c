/* Manifests, indexes and image configs: one input is read as each. */
#include "oci/manifest.h"
#include "oci/image.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const char digest[] = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/* A sound manifest with two layers, for the input as its config. */
static const char around[] =
    "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"size\":2,\"digest\":"
    "\"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"},\"layers\":[{\"mediaType\":"
    "\"application/vnd.oci.image.layer.v1.tar\",\"size\":1,\"digest\":"
    "\"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"},{\"mediaType\":"
    "\"application/vnd.oci.image.layer.v1.tar+gzip\",\"size\":1,\"digest\":"
    "\"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}]}";

static void as_manifest(const void *data, size_t len, const char *media_type)
{
	SM_OCI_MANIFEST_CLEANUP struct sm_oci_manifest manifest = { 0 };
	(void)sm_oci_manifest_parse(data, len, media_type, "input", &manifest, NULL);
}

static void as_config(const void *data, size_t len)
{
	SM_OCI_MANIFEST_CLEANUP struct sm_oci_manifest manifest = { 0 };
	if (sm_oci_manifest_parse(around, sizeof around - 1, SM_OCI_TYPE_MANIFEST, "manifest", &manifest, NULL) < 0)
		abort();
	struct sm_oci_store store = { .path = "/nowhere" };
	struct sm_oci_platform platform = { .os = "linux", .architecture = "amd64" };
	struct sm_oci_image *image = NULL;
	if (sm_oci_image_new(&store, "input", &platform, digest, &manifest, data, len, &image, NULL) < 0)
		return;
	size_t layers;
	sm_oci_image_get_layers(image, &layers);
	if (layers != 2)
		abort();
	sm_oci_image_unref(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	as_manifest(data, len, "");
	as_manifest(data, len, SM_OCI_TYPE_DOCKER_MANIFEST);
	as_config(data, len);
	return 0;
}
