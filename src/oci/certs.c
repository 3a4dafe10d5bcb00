#include "oci/certs.h"

#include "base/path.h"

#include <dirent.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_MAX_BYTES (1u << 20)
#define CA_MAX_BYTES   (4u << 20) /* of a host's authorities together */

static bool ends(const char *name, const char *suffix)
{
	size_t len = strlen(name), suffix_len = strlen(suffix);
	return len > suffix_len && !strcmp(name + len - suffix_len, suffix);
}

/* libcurl names no file when one of several is broken. */
static int check_pem(const char *data, size_t len, const char *path, struct sm_error *err)
{
	int count = 0;
	X509 *certificate;
	BIO *bio = BIO_new_mem_buf(data, (int)len);
	if (!bio)
		return sm_error_sys(err, ENOMEM, "%s", path);
	/* With an empty pass phrase, so that nobody is asked on the terminal. */
	while ((certificate = PEM_read_bio_X509(bio, NULL, NULL, ""))) {
		X509_free(certificate);
		count++;
	}
	/* The end of the file is an error too, of its own kind. */
	bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
	ERR_clear_error();
	BIO_free(bio);
	return count && at_end ? 0 : sm_error_set(err, EBADMSG, "%s: not a list of certificates in PEM", path);
}

static int add_ca(struct sm_oci_certs *certs, const char *path, struct sm_error *err)
{
	char *data;
	size_t len;
	int code = sm_path_read(path, FILE_MAX_BYTES, &data, &len, err);
	if (code < 0)
		return code;
	code = check_pem(data, len, path, err);
	if (!code && (sm_buf_append(&certs->ca, data, len) < 0 || sm_buf_append_str(&certs->ca, "\n") < 0))
		code = sm_error_sys(err, certs->ca.failed, "%s", path);
	free(data);
	return code;
}

/* The other half of NAME.cert or NAME.key. */
static int find_other(char out[PATH_MAX], const char *path, const char *suffix, const char *other, struct sm_error *err)
{
	int code = sm_path_format(out, err, "%.*s%s", (int)(strlen(path) - strlen(suffix)), path, other);
	if (!code && access(out, R_OK) < 0)
		code = sm_error_sys(err, errno, "%s, which belongs to %s", out, path);
	return code;
}

static int add_file(struct sm_oci_certs *certs, const char *folder, const char *name, struct sm_error *err)
{
	char path[PATH_MAX], other[PATH_MAX];
	int code = sm_path_format(path, err, "%s/%s", folder, name);
	if (code < 0)
		return code;
	if (ends(name, ".crt"))
		return add_ca(certs, path, err);
	if (ends(name, ".key"))
		return find_other(other, path, ".key", ".cert", err);
	if (!ends(name, ".cert") || (code = find_other(other, path, ".cert", ".key", err)) < 0 || certs->certificate[0])
		return code;
	memcpy(certs->certificate, path, sizeof path);
	memcpy(certs->key, other, sizeof other);
	return 0;
}

/* 1: the folder is there. */
static int read_folder(struct sm_oci_certs *certs, const char *folder, struct sm_error *err)
{
	struct dirent **entries;
	int count = scandir(folder, &entries, NULL, alphasort);
	if (count < 0 && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (count < 0)
		return sm_error_sys(err, errno, "read folder '%s'", folder);
	int code = 0;
	for (int i = 0; i < count; i++) {
		if (!code)
			code = add_file(certs, folder, entries[i]->d_name, err);
		free(entries[i]);
	}
	free(entries);
	return code < 0 ? code : 1;
}

static int read_folders(struct sm_oci_certs *certs, struct sm_error *err)
{
	char home[PATH_MAX], folder[PATH_MAX];
	const char *bases[] = { home, "/etc/containers", "/etc/docker" };
	int code = 0;
	if (sm_path_config_home("containers", home, NULL) < 0)
		bases[0] = NULL; /* no home, no folder in it */
	for (size_t i = 0; i < sizeof bases / sizeof bases[0] && !code; i++)
		if (bases[i] && !(code = sm_path_format(folder, err, "%s/certs.d/%s", bases[i], certs->host)))
			code = read_folder(certs, folder, err);
	return code < 0 ? code : 0;
}

int sm_oci_certs_load(const char *host, const struct sm_oci_certs *registry, struct sm_oci_certs *ret,
                      struct sm_error *err)
{
	sm_oci_certs_done(ret);
	/* The name comes from a stranger: it may not leave the folder. */
	if (strlen(host) >= sizeof ret->host || strchr(host, '/') || host[0] == '.')
		return sm_error_set(err, EINVAL, "'%.100s' is no host", host);
	sm_buf_init(&ret->ca, CA_MAX_BYTES);
	memcpy(ret->host, host, strlen(host) + 1);
	int code = read_folders(ret, err);
	if (!code && registry && sm_buf_append(&ret->ca, registry->ca.data, registry->ca.len) < 0)
		code = sm_error_sys(err, ret->ca.failed, "certificates for %s", host);
	if (code < 0)
		sm_oci_certs_done(ret);
	return code;
}

void sm_oci_certs_done(struct sm_oci_certs *certs)
{
	sm_buf_done(&certs->ca);
	memset(certs, 0, sizeof *certs);
}
