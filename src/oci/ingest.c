/* A blob on its way into the store (oci/store.h). */
#include "base/fd.h"
#include "oci/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK      (256u << 10)
#define WRITE_BACK (8u << 20) /* so much may be left for the last fsync */

void sm_oci_ingest_init(struct sm_oci_ingest *ingest)
{
	memset(ingest, 0, sizeof *ingest);
	sm_oci_partial_init(&ingest->file);
}

static int reset(struct sm_oci_ingest *ingest, struct sm_error *err)
{
	char hex[SM_SHA256_HEX + 1];
	if (ftruncate(ingest->file.fd, 0) < 0)
		return sm_error_sys(err, errno, "store blob %s: '%s'", ingest->digest, ingest->file.path);
	sm_sha256_final(ingest->hash, hex);
	ingest->written = ingest->synced = 0;
	return 0;
}

/* Hash what an earlier writer left. */
static int go_on(struct sm_oci_ingest *ingest, const atomic_bool *cancel, struct sm_error *err)
{
	struct stat status;
	int fd = ingest->file.fd;
	if (fstat(fd, &status) < 0)
		return sm_error_sys(err, errno, "store blob %s: '%s'", ingest->digest, ingest->file.path);
	if (!S_ISREG(status.st_mode))
		return sm_error_set(err, EBADMSG, "store blob %s: '%s' is not a regular file", ingest->digest,
		                    ingest->file.path);
	if (!status.st_size)
		return 0;
	if ((uint64_t)status.st_size > ingest->expected)
		return reset(ingest, err);
	char *chunk = malloc(CHUNK);
	int code = chunk ? 0 : -ENOMEM;
	for (uint64_t left = (uint64_t)status.st_size; left && !code;) {
		size_t len = left < CHUNK ? (size_t)left : CHUNK;
		if (cancel && atomic_load(cancel))
			code = -ECANCELED;
		else if ((code = sm_fd_pread_full(fd, chunk, len, ingest->written)) == 0) {
			sm_sha256_update(ingest->hash, chunk, len);
			ingest->written += len;
			left -= len;
		}
	}
	free(chunk);
	ingest->synced = ingest->written;
	return code < 0 ? sm_error_sys(err, code, "store blob %s: read '%s'", ingest->digest, ingest->file.path) : 0;
}

int sm_oci_ingest_begin(struct sm_oci_ingest *ingest, const struct sm_oci_store *store, const char *digest,
                        uint64_t size, const atomic_bool *cancel, struct sm_error *err)
{
	char folder[PATH_MAX];
	int code = sm_oci_store_blob_path(store, digest, ingest->path, err);
	if (code < 0 || (code = sm_oci_store_partial_path(store, folder, err)) < 0)
		return code;
	snprintf(ingest->digest, sizeof ingest->digest, "%s", digest);
	ingest->expected = size;
	ingest->err = err;
	struct sm_error own = { 0 };
	code = sm_oci_partial_lock(&ingest->file, folder, sm_oci_digest_hex(digest), &own);
	if (code < 0)
		return own.code ? sm_error_set(err, own.code, "store blob %s: %s", digest, own.message) : code;
	ingest->hash = sm_sha256_new();
	code = ingest->hash ? go_on(ingest, cancel, err) : sm_error_sys(err, ENOMEM, "store blob %s", digest);
	if (code == -ECANCELED)
		sm_oci_ingest_keep(ingest);
	else if (code < 0)
		sm_oci_ingest_discard(ingest);
	return code;
}

int sm_oci_ingest_restart(void *arg)
{
	struct sm_oci_ingest *ingest = arg;
	return ingest->written ? reset(ingest, ingest->err) : 0;
}

int sm_oci_ingest_write(void *arg, const void *data, size_t len)
{
	struct sm_oci_ingest *ingest = arg;
	int fd = ingest->file.fd;
	if (len > ingest->expected - ingest->written)
		return sm_error_set(ingest->err, EBADMSG, "blob %s: more than its %llu bytes", ingest->digest,
		                    (unsigned long long)ingest->expected);
	int code = sm_fd_pwrite_full(fd, data, len, ingest->written);
	if (code < 0)
		return sm_error_sys(ingest->err, code, "store blob %s: write '%s'", ingest->digest, ingest->file.path);
	sm_sha256_update(ingest->hash, data, len);
	ingest->written += len;
	/* The disk begins early.  What comes of it shows at the fsync. */
	if (ingest->written - ingest->synced >= WRITE_BACK) {
		(void)sync_file_range(fd, (off_t)ingest->synced, (off_t)(ingest->written - ingest->synced),
		                      SYNC_FILE_RANGE_WRITE);
		ingest->synced = ingest->written;
	}
	return 0;
}

int sm_oci_ingest_commit(struct sm_oci_ingest *ingest, struct sm_error *err)
{
	char hex[SM_SHA256_HEX + 1];
	if (ingest->written != ingest->expected)
		return sm_error_set(err, EBADMSG, "blob %s: ends after %llu of %llu bytes", ingest->digest,
		                    (unsigned long long)ingest->written, (unsigned long long)ingest->expected);
	sm_sha256_final(ingest->hash, hex);
	if (strcmp(hex, sm_oci_digest_hex(ingest->digest)))
		return sm_error_set(err, EBADMSG, "blob %s: its bytes have digest sha256:%s", ingest->digest, hex);
	if (sm_oci_partial_commit(&ingest->file, ingest->path, err) < 0)
		return sm_error_context(err, "store blob %s", ingest->digest);
	return 0;
}

static void done(struct sm_oci_ingest *ingest)
{
	sm_sha256_free(ingest->hash);
	ingest->hash = NULL;
}

/* An empty file is worth nothing to the next. */
void sm_oci_ingest_keep(struct sm_oci_ingest *ingest)
{
	if (ingest->written)
		sm_oci_partial_keep(&ingest->file);
	else
		sm_oci_partial_discard(&ingest->file);
	done(ingest);
}

void sm_oci_ingest_discard(struct sm_oci_ingest *ingest)
{
	sm_oci_partial_discard(&ingest->file);
	done(ingest);
}
