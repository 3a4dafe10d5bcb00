#include "oci/store.h"

#include "base/fd.h"
#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REF_MAX_BYTES (64u << 10)

int sm_oci_store_init(struct sm_oci_store *store, const char *path, struct sm_error *err)
{
	char sub[PATH_MAX];
	int code = path ? sm_path_format(store->path, err, "%s", path) : sm_path_data_home(store->path, err);
	/* Images may hold secrets: the folder is the user's own. */
	if (code < 0 || (code = sm_path_make_dirs(store->path, 0700, err)) < 0 ||
	    (code = sm_path_format(sub, err, "%s/blobs/sha256", store->path)) < 0 ||
	    (code = sm_path_make_dirs(sub, 0755, err)) < 0 ||
	    (code = sm_path_format(sub, err, "%s/refs", store->path)) < 0 ||
	    (code = sm_path_make_dirs(sub, 0755, err)) < 0 || (code = sm_oci_store_partial_path(store, sub, err)) < 0 ||
	    (code = sm_path_make_dirs(sub, 0755, err)) < 0)
		return sm_error_context(err, "image store");
	return 0;
}

int sm_oci_store_blob_path(const struct sm_oci_store *store, const char *digest, char out[PATH_MAX],
                           struct sm_error *err)
{
	int code = sm_oci_digest_check(digest, "blob", err);
	if (code < 0)
		return code;
	return sm_path_format(out, err, "%s/blobs/sha256/%s", store->path, sm_oci_digest_hex(digest));
}

int sm_oci_store_open_blob(const struct sm_oci_store *store, const char *digest, uint64_t *ret_size,
                           struct sm_error *err)
{
	char path[PATH_MAX];
	struct stat status;
	int code = sm_oci_store_blob_path(store, digest, path, err);
	if (code < 0)
		return code;
	SM_FD_CLEANUP int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return sm_error_sys(err, errno, "image store: open '%s'", path);
	if (fstat(fd, &status) < 0)
		return sm_error_sys(err, errno, "image store: '%s'", path);
	if (!S_ISREG(status.st_mode))
		return sm_error_set(err, EBADMSG, "image store: '%s' is not a regular file", path);
	if (ret_size)
		*ret_size = (uint64_t)status.st_size;
	return sm_fd_take(&fd);
}

bool sm_oci_store_has(const struct sm_oci_store *store, const char *digest, uint64_t size)
{
	uint64_t found;
	SM_FD_CLEANUP int fd = sm_oci_store_open_blob(store, digest, &found, NULL);
	return fd >= 0 && found == size;
}

int sm_oci_store_read(const struct sm_oci_store *store, const char *digest, struct sm_buf *ret, struct sm_error *err)
{
	uint64_t size;
	char found[SM_OCI_DIGEST_SIZE];
	SM_FD_CLEANUP int fd = sm_oci_store_open_blob(store, digest, &size, err);
	if (fd < 0)
		return fd;
	void *data = size <= ret->max ? sm_buf_extend(ret, (size_t)size) : NULL;
	if (!data)
		return sm_error_set(err, EFBIG, "image store: %s: %llu bytes are too many", digest,
		                    (unsigned long long)size);
	int code = sm_fd_read_full(fd, data, (size_t)size);
	if (code < 0)
		return sm_error_sys(err, code, "image store: read %s", digest);
	if ((code = sm_oci_digest_of(data, (size_t)size, found)) < 0)
		return sm_error_sys(err, code, "image store: %s", digest);
	if (strcmp(found, digest))
		return sm_error_set(err, EBADMSG, "image store: %s: the file has digest %s", digest, found);
	return 0;
}

/* A small file that is at `path` whole or not at all. */
static int put_file(const struct sm_oci_store *store, const char *path, const void *data, size_t len,
                    struct sm_error *err)
{
	char folder[PATH_MAX];
	struct sm_oci_partial file;
	sm_oci_partial_init(&file);
	int code = sm_oci_store_partial_path(store, folder, err);
	if (code == 0)
		code = sm_oci_partial_lock(&file, folder, NULL, err);
	if (code == 0 && (code = sm_fd_write_full(file.fd, data, len)) < 0)
		sm_error_sys(err, code, "write '%s'", file.path);
	else if (code == 0)
		code = sm_oci_partial_commit(&file, path, err);
	sm_oci_partial_discard(&file);
	return code;
}

int sm_oci_store_put(const struct sm_oci_store *store, const char *digest, const void *data, size_t len,
                     struct sm_error *err)
{
	char path[PATH_MAX];
	int code = sm_oci_store_blob_path(store, digest, path, err);
	if (code < 0)
		return code;
	code = put_file(store, path, data, len, err);
	return code < 0 ? sm_error_context(err, "store blob %s", digest) : 0;
}

int sm_oci_store_partial_path(const struct sm_oci_store *store, char out[PATH_MAX], struct sm_error *err)
{
	return sm_path_format(out, err, "%s/partial", store->path);
}

static int ref_path(const struct sm_oci_store *store, const char *reference, const char *platform, char out[PATH_MAX],
                    struct sm_error *err)
{
	char hex[SM_SHA256_HEX + 1];
	SM_BUF_CLEANUP struct sm_buf key;
	sm_buf_init(&key, REF_MAX_BYTES);
	sm_buf_printf(&key, "%s %s", platform, reference);
	if (sm_buf_failed(&key) || sm_sha256_hex(key.data, key.len, hex) < 0)
		return sm_error_sys(err, ENOMEM, "image store: reference '%.100s'", reference);
	return sm_path_format(out, err, "%s/refs/%s", store->path, hex);
}

int sm_oci_store_ref_get(const struct sm_oci_store *store, const char *reference,
                         const struct sm_oci_platform *platform, char ret_digest[SM_OCI_DIGEST_SIZE],
                         char ret_root[SM_OCI_DIGEST_SIZE], struct sm_error *err)
{
	char path[PATH_MAX], platform_text[SM_OCI_PLATFORM_TEXT], *text = NULL;
	const char *digest, *root_digest;
	size_t len;
	sm_oci_platform_format(platform, platform_text);
	int code = ref_path(store, reference, platform_text, path, err);
	if (code < 0)
		return code;
	if ((code = sm_path_read(path, REF_MAX_BYTES, &text, &len, err)) < 0) {
		if (code == -ENOENT)
			sm_error_set(err, ENOENT, "'%.300s' for %s is not in the image store '%s'", reference,
			             platform_text, store->path);
		return code;
	}
	SM_JSON_CLEANUP cJSON *root = NULL;
	code = sm_json_parse(text, len, path, &root, err);
	free(text);
	if (code < 0 || (code = sm_json_get_string(root, "manifest", path, &digest, err)) < 0 ||
	    (code = sm_oci_digest_check(digest, path, err)) < 0 ||
	    (code = sm_json_string_or(root, "root", path, "", &root_digest, err)) < 0)
		return code;
	snprintf(ret_digest, SM_OCI_DIGEST_SIZE, "%s", digest);
	if (ret_root)
		snprintf(ret_root, SM_OCI_DIGEST_SIZE, "%s", root_digest);
	return 0;
}

int sm_oci_store_ref_set(const struct sm_oci_store *store, const char *reference,
                         const struct sm_oci_platform *platform, const char *digest, const char *root_digest,
                         struct sm_error *err)
{
	char path[PATH_MAX], platform_text[SM_OCI_PLATFORM_TEXT];
	sm_oci_platform_format(platform, platform_text);
	int code = ref_path(store, reference, platform_text, path, err);
	if (code < 0)
		return code;
	SM_JSON_CLEANUP cJSON *root = cJSON_CreateObject();
	if (!cJSON_AddStringToObject(root, "reference", reference) ||
	    !cJSON_AddStringToObject(root, "platform", platform_text) ||
	    !cJSON_AddStringToObject(root, "manifest", digest) ||
	    (*root_digest && !cJSON_AddStringToObject(root, "root", root_digest)))
		return sm_error_sys(err, ENOMEM, "image store: reference '%.100s'", reference);
	char *text = cJSON_PrintUnformatted(root);
	if (!text)
		return sm_error_sys(err, ENOMEM, "image store: reference '%.100s'", reference);
	code = put_file(store, path, text, strlen(text), err);
	free(text);
	return code < 0 ? sm_error_context(err, "image store") : 0;
}
