/* skopeo's `dir:` as a source: manifest.json, version, blobs named by their hex digits, and of an index each manifest
 * as HEX.manifest.json (containers-transports(5); containers/image, directory/directory_transport.go). */
#include "oci/files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION "Directory Transport Version: "

struct dir {
	struct sm_oci_source source;
	struct sm_oci_files *files;
};

static struct dir *dir_of(struct sm_oci_source *source)
{
	return (struct dir *)source;
}

static int dir_manifest(struct sm_oci_source *source, const char *digest, struct sm_buf *ret,
                        char ret_media_type[SM_OCI_MEDIA_TYPE_SIZE], struct sm_error *err)
{
	char name[SM_OCI_DIGEST_SIZE + 16] = "manifest.json";
	/* The folder does not say what it is; the document must. */
	ret_media_type[0] = 0;
	if (digest) {
		int code = sm_oci_digest_check(digest, "manifest", err);
		if (code < 0)
			return code;
		snprintf(name, sizeof name, "%s.manifest.json", sm_oci_digest_hex(digest));
	}
	return sm_oci_files_read_small(dir_of(source)->files, name, ret, err);
}

static int dir_blob(struct sm_oci_source *source, const char *digest, sm_oci_sink sink, void *arg, struct sm_error *err)
{
	int code = sm_oci_digest_check(digest, "blob", err);
	return code < 0 ? code : sm_oci_files_read(dir_of(source)->files, sm_oci_digest_hex(digest), sink, arg, err);
}

static void dir_free(struct sm_oci_source *source)
{
	sm_oci_files_free(dir_of(source)->files);
	free(source);
}

static const struct sm_oci_source_ops dir_ops = {
	.manifest = dir_manifest,
	.blob = dir_blob,
	.free = dir_free,
};

/* Before version 1 blobs had other names. */
static int check_version(struct dir *dir, struct sm_error *err)
{
	SM_BUF_CLEANUP struct sm_buf text;
	sm_buf_init(&text, 256);
	int code = sm_oci_files_read_small(dir->files, "version", &text, err);
	if (code < 0)
		return sm_error_context(err, "no folder of the dir transport");
	const char *version = sm_buf_str(&text);
	size_t len = strlen(VERSION);
	if (!version || strncmp(version, VERSION, len))
		return sm_error_set(err, EBADMSG, "'%s/version' does not begin with '" VERSION "'", dir->files->path);
	if (strncmp(version + len, "1.", 2))
		return sm_error_set(err, EOPNOTSUPP, "'%s/version': %.*s is not supported, only 1", dir->files->path,
		                    (int)strcspn(version + len, "\r\n"), version + len);
	return 0;
}

int sm_oci_dir_open(const struct sm_oci_reference *reference, const struct sm_oci_source_options *options,
                    struct sm_oci_source **ret, struct sm_error *err)
{
	struct dir *dir = calloc(1, sizeof *dir);
	if (!dir)
		return sm_error_sys(err, ENOMEM, "open '%s'", reference->path);
	dir->source.ops = &dir_ops;
	int code = sm_oci_files_open_folder(reference->path, options->cancel, &dir->files, err);
	if (code < 0 || (code = check_version(dir, err)) < 0) {
		dir_free(&dir->source);
		return code;
	}
	*ret = &dir->source;
	return 0;
}
