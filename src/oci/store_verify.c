#include "oci/store_verify.h"

#include "base/fd.h"
#include "oci/store_lock.h"
#include "oci/store_name.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_BYTES (1u << 20)

struct verify {
	const struct sm_oci_verify_options *options;
	sm_oci_erofs_check check;
	struct sm_oci_census census;
	uint8_t *chunk;
	struct sm_sha256 *hash;
	uint64_t bytes;
	cJSON *problems;
	char only[SM_OCI_DIGEST_SIZE]; /* the one image, whose entries are stamped; "": all */
	struct sm_oci_store_lock lock; /* from the first removal on */
};

static bool is_cancelled(const struct verify *verify)
{
	return verify->options->cancel && atomic_load(verify->options->cancel);
}

static int note(struct verify *verify, const char *kind, const char *name, const char *problem, bool removed,
                struct sm_error *err)
{
	cJSON *item = cJSON_CreateObject();
	if (cJSON_AddStringToObject(item, "kind", kind) && cJSON_AddStringToObject(item, "name", name) &&
	    cJSON_AddStringToObject(item, "problem", problem) && cJSON_AddBoolToObject(item, "removed", removed) &&
	    cJSON_AddItemToArray(verify->problems, item))
		return 0;
	cJSON_Delete(item);
	return sm_error_sys(err, ENOMEM, "image store");
}

/* A look at an open file: 0 when it is sound, -EBADMSG with words, or another error. */
typedef int (*look)(struct verify *verify, int fd, const char *name, struct sm_error *problem);

static int look_at_blob(struct verify *verify, int fd, const char *name, struct sm_error *problem)
{
	char hex[SM_SHA256_HEX + 1];
	for (uint64_t at = 0;;) {
		ssize_t got = pread(fd, verify->chunk, CHUNK_BYTES, (off_t)at);
		if (got < 0 && errno == EINTR)
			continue;
		if (is_cancelled(verify))
			return -ECANCELED;
		if (got < 0)
			return sm_error_sys(problem, errno == EIO ? EBADMSG : errno, "cannot be read");
		if (got == 0)
			break;
		sm_sha256_update(verify->hash, verify->chunk, (size_t)got);
		verify->bytes += (uint64_t)got;
		at += (uint64_t)got;
	}
	sm_sha256_final(verify->hash, hex);
	return strcmp(hex, name) ? sm_error_set(problem, EBADMSG, "its bytes have digest sha256:%s", hex) : 0;
}

static int look_at_erofs(struct verify *verify, int fd, const char *name, struct sm_error *problem)
{
	char diff_id[SM_OCI_DIGEST_SIZE];
	size_t tail = SM_SHA256_HEX + strlen(".erofs");
	snprintf(diff_id, sizeof diff_id, "sha256:%.*s", SM_SHA256_HEX, name + strlen(name) - tail);
	return verify->check(fd, diff_id) < 0 ? sm_error_set(problem, EBADMSG, "not a whole EROFS image of its layer")
	                                      : 0;
}

/* Open and look.  -ENOENT: it went meanwhile.  Our own want of descriptors or memory is no damage. */
static int examine(struct verify *verify, const char *path, const char *name, look look_at, int *ret_fd,
                   struct sm_error *problem)
{
	struct stat status;
	*ret_fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (*ret_fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
		return sm_error_sys(problem, errno, "open");
	if (*ret_fd < 0)
		return errno == ENOENT ? -ENOENT : sm_error_sys(problem, EBADMSG, "cannot be opened");
	if (fstat(*ret_fd, &status) < 0 || !S_ISREG(status.st_mode))
		return sm_error_set(problem, EBADMSG, "not a regular file");
	return look_at(verify, *ret_fd, name, problem);
}

static int lock_once(struct verify *verify, struct sm_error *err)
{
	if (verify->lock.fd >= 0)
		return 0;
	return sm_oci_store_lock(verify->census.store, SM_OCI_LOCK_EXCLUSIVE, verify->options->cancel, &verify->lock,
	                         err);
}

/* Look again, now that nobody writes: what is damaged still stays so. */
static int remove_damaged(struct verify *verify, const char *path, const char *name, look look_at, bool *ret_removed,
                          struct sm_error *err)
{
	SM_FD_CLEANUP int fd = -1;
	struct sm_error problem = { 0 };
	int code = lock_once(verify, err);
	if (code < 0)
		return code;
	if (examine(verify, path, name, look_at, &fd, &problem) != -EBADMSG || (fd >= 0 && sm_oci_is_held(fd)))
		return 0;
	code = sm_path_remove_tree(path, err);
	*ret_removed = code == 0;
	return code;
}

static void stamp(void *arg, struct sm_oci_entry *entry, bool is_blob)
{
	(void)arg;
	(void)is_blob;
	entry->stamp = 1;
}

/* To what one image needs.  Where that cannot be made out, its reference will say so. */
static int narrow(struct verify *verify, struct sm_error *err)
{
	SM_OCI_NAME_CLEANUP struct sm_oci_name wanted = { 0 };
	struct sm_oci_found found;
	int code = sm_oci_name_read(verify->options->name, verify->options->platform, &wanted, err);
	if (code < 0 || (code = sm_oci_name_find(&wanted, &verify->census, &found, err)) < 0)
		return code;
	memcpy(verify->only, found.digest, sizeof verify->only);
	sm_oci_census_walk(&verify->census, found.digest, stamp, NULL, NULL, NULL);
	return 0;
}

static int verify_folder(struct verify *verify, const struct sm_oci_folder *folder, const char *kind, look look_at,
                         cJSON *count_in, const char *count, struct sm_error *err)
{
	char path[PATH_MAX], name[PATH_MAX + 8];
	unsigned seen = 0;
	for (size_t i = 0; i < folder->count; i++) {
		const char *file = folder->list[i].name;
		struct sm_error problem = { 0 };
		if (folder->list[i].temporary || (*verify->only && !folder->list[i].stamp))
			continue;
		int code = sm_path_format(path, err, "%s/%s", folder->path, file);
		if (code < 0)
			return code;
		SM_FD_CLEANUP int fd = -1;
		code = is_cancelled(verify) ? -ECANCELED : examine(verify, path, file, look_at, &fd, &problem);
		seen += code != -ENOENT;
		if (code == 0 || code == -ENOENT)
			continue;
		if (code != -EBADMSG)
			return problem.code ? sm_error_set(err, problem.code, "'%s': %s", path, problem.message)
			                    : sm_error_sys(err, code, "'%s'", path);
		bool removed = false;
		if (verify->options->remove && (code = remove_damaged(verify, path, file, look_at, &removed, err)) < 0)
			return code;
		snprintf(name, sizeof name, "%s%s", folder == &verify->census.blobs ? "sha256:" : "",
		         folder == &verify->census.blobs ? file : path);
		if ((code = note(verify, kind, name, problem.message, removed, err)) < 0)
			return code;
	}
	return cJSON_AddNumberToObject(count_in, count, seen) ? 0 : sm_error_sys(err, ENOMEM, "image store");
}

/* A pull may have mended it meanwhile. */
static int remove_ref(struct verify *verify, const struct sm_oci_ref *ref, const char *path, bool *ret_removed,
                      struct sm_error *err)
{
	struct sm_oci_ref again;
	int code = lock_once(verify, err);
	if (code < 0)
		return code;
	*ret_removed =
	    sm_oci_ref_read(&verify->census.refs_folder, ref->entry, &again) == -EBADMSG && unlink(path) == 0;
	sm_oci_ref_done(&again);
	return 0;
}

static void ignore(void *arg, struct sm_oci_entry *entry, bool is_blob)
{
	(void)arg;
	(void)entry;
	(void)is_blob;
}

/* A reference whose file is damaged is removed; one that leads to what is missing or damaged is left: it says what to
 * pull again. */
static int verify_ref(struct verify *verify, const struct sm_oci_ref *ref, struct sm_error *err)
{
	char path[PATH_MAX] = "";
	struct sm_error problem = ref->error;
	unsigned missing = 0;
	bool removed = false;
	int code = 0;
	if (ref->reference && sm_oci_census_walk(&verify->census, ref->digest, ignore, NULL, &missing, &problem) == 0 &&
	    !missing)
		return 0;
	if (!ref->reference)
		code = sm_path_format(path, err, "%s/%s", verify->census.refs_folder.path, ref->entry->name);
	if (code == 0 && !ref->reference && verify->options->remove)
		code = remove_ref(verify, ref, path, &removed, err);
	if (code < 0)
		return code;
	if (!problem.code)
		sm_error_set(&problem, ENOENT, "leads to %s, of which %u blobs are missing", ref->digest, missing);
	return note(verify, "reference", ref->reference ? ref->reference : path, problem.message, removed, err);
}

static int verify_refs(struct verify *verify, cJSON *report, struct sm_error *err)
{
	unsigned seen = 0;
	int code = 0;
	for (size_t i = 0; i < verify->census.nrefs && code == 0; i++) {
		if (*verify->only && strcmp(verify->only, verify->census.refs[i].digest))
			continue;
		seen++;
		code = verify_ref(verify, &verify->census.refs[i], err);
	}
	/* An image that has its digest alone. */
	if (code == 0 && *verify->only && !seen) {
		struct sm_oci_ref ref = { .reference = verify->only };
		memcpy(ref.digest, verify->only, sizeof ref.digest);
		code = verify_ref(verify, &ref, err);
	}
	if (code == 0 && !cJSON_AddNumberToObject(report, "references", seen))
		code = sm_error_sys(err, ENOMEM, "image store");
	return code;
}

static int run(struct verify *verify, const struct sm_oci_store *store, cJSON *report, struct sm_error *err)
{
	struct sm_oci_census *census = &verify->census;
	int code = sm_oci_census_take(store, NULL, census, err);
	if (code == 0 && verify->options->name)
		code = narrow(verify, err);
	if (code == 0)
		code = verify_folder(verify, &census->blobs, "blob", look_at_blob, report, "blobs", err);
	if (code == 0)
		code = verify_folder(verify, &census->erofs, "erofs", look_at_erofs, report, "erofs", err);
	if (code == 0)
		code = verify_refs(verify, report, err);
	if (code == 0 && !cJSON_AddNumberToObject(report, "bytes", (double)verify->bytes))
		code = sm_error_sys(err, ENOMEM, "image store");
	return code;
}

int sm_oci_store_verify(const struct sm_oci_store *store, sm_oci_erofs_check check,
                        const struct sm_oci_verify_options *options, cJSON **ret_report, struct sm_error *err)
{
	struct verify verify = { .options = options, .check = check, .lock = { -1 } };
	int code = 0;
	SM_JSON_CLEANUP cJSON *report = cJSON_CreateObject();
	verify.problems = cJSON_AddArrayToObject(report, "problems");
	verify.chunk = malloc(CHUNK_BYTES);
	verify.hash = sm_sha256_new();
	if (!verify.problems || !verify.chunk || !verify.hash)
		code = sm_error_sys(err, ENOMEM, "image store");
	if (code == 0)
		code = run(&verify, store, report, err);
	sm_oci_census_done(&verify.census);
	sm_oci_store_unlock(&verify.lock);
	sm_sha256_free(verify.hash);
	free(verify.chunk);
	if (code < 0)
		return sm_error_context(err, "verify");
	*ret_report = report;
	report = NULL;
	return 0;
}
