#include "oci/store_name.h"

#include "oci/reference.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHORT_MIN 8 /* hex digits that may stand for a digest */

/* As sm_oci_pull spells it: a folder by its real path, while it is there. */
static int spell(const char *text, char **ret, struct sm_error *err)
{
	char absolute[PATH_MAX];
	*ret = NULL;
	struct sm_oci_reference *reference = calloc(1, sizeof *reference);
	char *spelled = malloc(SM_OCI_REFERENCE_TEXT);
	int code = reference && spelled ? sm_oci_reference_parse(text, reference, err)
	                                : sm_error_sys(err, ENOMEM, "'%.200s'", text);
	if (code == 0) {
		if (reference->path[0] && realpath(reference->path, absolute))
			memcpy(reference->path, absolute, sizeof absolute);
		sm_oci_reference_format(reference, spelled);
		*ret = spelled;
		spelled = NULL;
	}
	free(reference);
	free(spelled);
	return code;
}

int sm_oci_name_read(const char *text, const char *platform, struct sm_oci_name *ret, struct sm_error *err)
{
	struct sm_oci_platform parsed;
	memset(ret, 0, sizeof *ret);
	ret->given = text;
	if (platform) {
		int code = sm_oci_platform_parse(platform, &parsed, err);
		if (code < 0)
			return code;
		sm_oci_platform_format(&parsed, ret->platform);
	}
	int code = spell(text, &ret->spelled, NULL);
	return code == -ENOMEM ? sm_error_sys(err, ENOMEM, "'%.200s'", text) : 0;
}

void sm_oci_name_done(struct sm_oci_name *name)
{
	free(name->spelled);
	name->spelled = NULL;
}

static bool matches_digest(const char *given, const char *digest)
{
	size_t len = strlen(given);
	return !strcmp(given, digest) || (len >= SHORT_MIN && strspn(given, "0123456789abcdef") == len &&
	                                  !strncmp(given, sm_oci_digest_hex(digest), len));
}

bool sm_oci_name_matches(const struct sm_oci_name *name, const struct sm_oci_ref *ref)
{
	if (!ref->reference || (*name->platform && strcmp(name->platform, ref->platform)))
		return false;
	return !strcmp(name->given, ref->reference) || (name->spelled && !strcmp(name->spelled, ref->reference)) ||
	       matches_digest(name->given, ref->digest);
}

static void take(const struct sm_oci_ref *ref, struct sm_oci_found *ret)
{
	snprintf(ret->digest, sizeof ret->digest, "%s", ref->digest);
	snprintf(ret->platform, sizeof ret->platform, "%s", ref->platform);
}

int sm_oci_name_find(const struct sm_oci_name *name, const struct sm_oci_census *census, struct sm_oci_found *ret,
                     struct sm_error *err)
{
	char host_text[SM_OCI_PLATFORM_TEXT];
	struct sm_oci_platform host;
	const struct sm_oci_ref *first = NULL, *here = NULL;
	bool several = false, clash = false;
	int code = sm_oci_platform_parse(NULL, &host, err);
	if (code < 0)
		return code;
	sm_oci_platform_format(&host, host_text);
	for (size_t i = 0; i < census->nrefs; i++) {
		const struct sm_oci_ref *ref = &census->refs[i];
		if (!sm_oci_name_matches(name, ref))
			continue;
		several = several || (first && strcmp(first->digest, ref->digest));
		first = first ? first : ref;
		if (!strcmp(ref->platform, host_text)) {
			clash = clash || (here && strcmp(here->digest, ref->digest));
			here = ref;
		}
	}
	if (first) {
		if (clash || (several && !here))
			return sm_error_set(err, EINVAL,
			                    "'%.200s' means several images: name the platform or the whole digest",
			                    name->given);
		take(here ? here : first, ret);
		return 0;
	}
	if (sm_oci_digest_check(name->given, "name", NULL) == 0 && sm_oci_census_blob(census, name->given)) {
		snprintf(ret->digest, sizeof ret->digest, "%s", name->given);
		snprintf(ret->platform, sizeof ret->platform, "%s", name->platform);
		return 0;
	}
	return sm_error_set(err, ENOENT, "'%.200s'%s%s is not in the image store '%s'", name->given,
	                    *name->platform ? " for " : "", name->platform, census->store->path);
}

void sm_oci_name_platform(const cJSON *config, char out[SM_OCI_PLATFORM_TEXT])
{
	const char *os, *architecture;
	out[0] = 0;
	if (sm_json_get_string(config, "os", "config", &os, NULL) == 0 &&
	    sm_json_get_string(config, "architecture", "config", &architecture, NULL) == 0)
		snprintf(out, SM_OCI_PLATFORM_TEXT, "%.31s/%.31s", os, architecture);
}
