/* References made and forgotten. */
#include "oci/image.h"
#include "oci/reference.h"
#include "oci/store_lock.h"
#include "oci/store_name.h"
#include "oci/store_report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int describe(cJSON *to, const char *reference, const char *platform, const char *digest, struct sm_error *err)
{
	if (cJSON_AddStringToObject(to, "reference", reference) && cJSON_AddStringToObject(to, "platform", platform) &&
	    cJSON_AddStringToObject(to, "digest", digest))
		return 0;
	return sm_error_sys(err, ENOMEM, "image store");
}

/* A name that can be given: a registry's, without digest. */
static int check_new_name(const char *text, struct sm_error *err)
{
	struct sm_oci_reference *reference = calloc(1, sizeof *reference);
	if (!reference)
		return sm_error_sys(err, ENOMEM, "image store");
	int code = sm_oci_reference_parse(text, reference, err);
	if (code == 0 && (reference->path[0] || reference->digest[0]))
		code = sm_error_set(err, EINVAL,
		                    "'%.200s': a name like HOST/NAME:TAG is expected, no path and no digest", text);
	free(reference);
	return code;
}

static int tag(const struct sm_oci_store *store, const struct sm_oci_name *name, const char *new_name, cJSON *report,
               struct sm_error *err)
{
	SM_OCI_CENSUS_CLEANUP struct sm_oci_census census = { 0 };
	struct sm_oci_found found;
	struct sm_oci_platform platform = { 0 };
	char text[SM_OCI_PLATFORM_TEXT];
	struct sm_oci_image *image;
	int code = sm_oci_census_take(store, NULL, &census, err);
	if (code < 0 || (code = sm_oci_name_find(name, &census, &found, err)) < 0 ||
	    (code = sm_oci_image_load(store, new_name, &platform, found.digest, &image, err)) < 0)
		return code;
	if (!*found.platform)
		sm_oci_name_platform(sm_oci_image_get_config(image), found.platform);
	sm_oci_image_unref(image);
	if ((code = sm_oci_platform_parse(found.platform, &platform, err)) < 0)
		return code;
	sm_oci_platform_format(&platform, text);
	code = sm_oci_store_ref_set(store, new_name, &platform, found.digest, "", err);
	return code < 0 ? code : describe(report, new_name, text, found.digest, err);
}

int sm_oci_store_tag(const struct sm_oci_store *store, const char *name, const char *platform, const char *new_name,
                     const atomic_bool *cancel, cJSON **ret, struct sm_error *err)
{
	SM_OCI_NAME_CLEANUP struct sm_oci_name old = { 0 }, new = { 0 };
	SM_JSON_CLEANUP cJSON *report = cJSON_CreateObject();
	struct sm_oci_store_lock lock;
	int code = report ? check_new_name(new_name, err) : sm_error_sys(err, ENOMEM, "image store");
	if (code < 0 || (code = sm_oci_name_read(name, platform, &old, err)) < 0 ||
	    (code = sm_oci_name_read(new_name, NULL, &new, err)) < 0 ||
	    (code = sm_oci_store_lock(store, SM_OCI_LOCK_SHARED, cancel, &lock, err)) < 0)
		return code;
	code = tag(store, &old, new.spelled, report, err);
	sm_oci_store_unlock(&lock);
	if (code < 0)
		return sm_error_context(err, "tag '%.200s'", name);
	*ret = report;
	report = NULL;
	return 0;
}

/* May it be the beginning of a digest? */
static bool is_short(const struct sm_oci_name *name)
{
	return !name->given[strspn(name->given, "0123456789abcdef")];
}

int sm_oci_store_remove(const struct sm_oci_store *store, const char *name, const char *platform, cJSON **ret,
                        struct sm_error *err)
{
	char path[PATH_MAX];
	const char *first = NULL;
	SM_OCI_CENSUS_CLEANUP struct sm_oci_census census = { 0 };
	SM_OCI_NAME_CLEANUP struct sm_oci_name wanted = { 0 };
	SM_JSON_CLEANUP cJSON *list = cJSON_CreateArray();
	int code = list ? sm_oci_name_read(name, platform, &wanted, err) : sm_error_sys(err, ENOMEM, "image store");
	if (code < 0 || (code = sm_oci_census_take(store, NULL, &census, err)) < 0)
		return code;
	for (size_t i = 0; i < census.nrefs; i++) {
		const struct sm_oci_ref *ref = &census.refs[i];
		if (!sm_oci_name_matches(&wanted, ref))
			continue;
		if (is_short(&wanted) && first && strcmp(first, ref->digest))
			return sm_error_set(err, EINVAL, "'%.200s' is the beginning of several digests", name);
		first = ref->digest;
	}
	for (size_t i = 0; i < census.nrefs; i++) {
		const struct sm_oci_ref *ref = &census.refs[i];
		if (!sm_oci_name_matches(&wanted, ref))
			continue;
		if ((code = sm_path_format(path, err, "%s/%s", census.refs_folder.path, ref->entry->name)) < 0)
			return code;
		if (unlink(path) < 0 && errno != ENOENT)
			return sm_error_sys(err, errno, "remove '%s'", path);
		cJSON *item = cJSON_CreateObject();
		if (!cJSON_AddItemToArray(list, item))
			return sm_error_sys(err, ENOMEM, "image store");
		if ((code = describe(item, ref->reference, ref->platform, ref->digest, err)) < 0)
			return code;
	}
	if (!cJSON_GetArraySize(list))
		return sm_error_set(err, ENOENT, "'%.200s'%s%s is not in the image store '%s'", name,
		                    *wanted.platform ? " for " : "", wanted.platform, store->path);
	if ((code = sm_path_sync_dir(census.refs_folder.path, err)) < 0)
		return code;
	*ret = list;
	list = NULL;
	return 0;
}
