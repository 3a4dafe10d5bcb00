#include "oci/registries.h"

#include "base/json.h"
#include "base/path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX_BYTES (1u << 20)
#define WHAT_SIZE      (PATH_MAX + 512) /* "FILE: registries["HOST"]" */

/* The grammar of hosts and names is that of references. */
static int parse_mirror(const char *text, struct sm_oci_mirror *ret, struct sm_error *err)
{
	static const char name[] = "/x/x"; /* two parts: one alone means another name at docker.io */
	struct sm_oci_reference *reference = malloc(sizeof *reference);
	char full[600];
	int len = snprintf(full, sizeof full, "%s%s%s", strstr(text, "://") ? "" : "https://", text, name);
	int code = !reference ? -ENOMEM : -EINVAL;
	if (reference && len < (int)sizeof full && strncmp(full, "docker:", 7) &&
	    sm_oci_reference_parse(full, reference, NULL) == 0 && reference->kind == SM_OCI_REFERENCE_REGISTRY) {
		size_t whole = strlen(reference->repository);
		size_t prefix = whole > strlen(name) ? whole - strlen(name) : 0;
		code = 0;
		memset(ret, 0, sizeof *ret);
		ret->plain = reference->plain_http;
		snprintf(ret->host, sizeof ret->host, "%s", reference->host);
		memcpy(ret->prefix, reference->repository, prefix);
		ret->prefix[prefix] = 0;
	}
	free(reference);
	return code < 0 ? sm_error_set(err, code, "is not [http://|https://]HOST[:PORT][/PREFIX]") : 0;
}

static int check_flag(const cJSON *entry, const char *name, const char *what, bool *ret, struct sm_error *err)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(entry, name);
	*ret = cJSON_IsTrue(value);
	if (value && !cJSON_IsBool(value))
		return sm_error_set(err, EBADMSG, "%s.%s is not true or false", what, name);
	return 0;
}

static int check_mirrors(const cJSON *entry, const char *what, struct sm_oci_registry_rules *rules,
                         struct sm_error *err)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(entry, "mirrors");
	const cJSON *item;
	if (list && !cJSON_IsArray(list))
		return sm_error_set(err, EBADMSG, "%s.mirrors is not a list", what);
	if (cJSON_GetArraySize(list) > SM_OCI_MIRRORS_MAX)
		return sm_error_set(err, EBADMSG, "%s.mirrors has more than %d entries", what, SM_OCI_MIRRORS_MAX);
	rules->count = 0;
	cJSON_ArrayForEach(item, list)
	{
		struct sm_error own = { 0 };
		if (!cJSON_IsString(item))
			return sm_error_set(err, EBADMSG, "%s.mirrors[%zu] is not a string", what, rules->count);
		int code = parse_mirror(item->valuestring, &rules->mirrors[rules->count], &own);
		if (code < 0)
			return sm_error_set(err, code == -ENOMEM ? code : EBADMSG, "%s.mirrors[%zu] %s", what,
			                    rules->count, own.message);
		rules->count++;
	}
	return 0;
}

static int check_entry(const cJSON *entry, const char *file, struct sm_oci_registry_rules *rules, struct sm_error *err)
{
	char what[WHAT_SIZE];
	struct sm_oci_mirror host;
	snprintf(what, sizeof what, "%s: registries[\"%.300s\"]", file, entry->string);
	if (strstr(entry->string, "://") || parse_mirror(entry->string, &host, NULL) < 0 || host.prefix[0] ||
	    strcmp(host.host, entry->string))
		return sm_error_set(err, EBADMSG, "%s: the name is not HOST[:PORT] as references have it", what);
	if (!cJSON_IsObject(entry))
		return sm_error_set(err, EBADMSG, "%s is not an object", what);
	for (const cJSON *field = entry->child; field; field = field->next)
		if (strcmp(field->string, "mirrors") && strcmp(field->string, "insecure") &&
		    strcmp(field->string, "blocked"))
			return sm_error_set(err, EBADMSG, "%s.%.100s: mirrors, insecure or blocked expected", what,
			                    field->string);
	int code = check_flag(entry, "insecure", what, &rules->insecure, err);
	if (!code)
		code = check_flag(entry, "blocked", what, &rules->blocked, err);
	return code < 0 ? code : check_mirrors(entry, what, rules, err);
}

static bool flag_of(const cJSON *registries, const char *host, const char *name)
{
	const cJSON *entry = cJSON_GetObjectItemCaseSensitive(registries, host);
	return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(entry, name));
}

static int read_table(const cJSON *root, const char *file, const char *host, struct sm_oci_registry_rules *ret,
                      struct sm_error *err)
{
	const cJSON *registries = NULL;
	if (!cJSON_IsObject(root))
		return sm_error_set(err, EBADMSG, "%s: not an object", file);
	for (const cJSON *field = root->child; field; field = field->next) {
		if (strcmp(field->string, "registries"))
			return sm_error_set(err, EBADMSG, "%s: %.100s: registries expected", file, field->string);
		if (!cJSON_IsObject(registries = field))
			return sm_error_set(err, EBADMSG, "%s: registries is not an object", file);
	}
	/* All of it, so that a mistake is seen before the day it matters. */
	struct sm_oci_registry_rules *rules = calloc(1, sizeof *rules);
	if (!rules)
		return sm_error_sys(err, ENOMEM, "%s", file);
	int code = 0;
	for (const cJSON *entry = registries ? registries->child : NULL; entry && !code; entry = entry->next) {
		if ((code = check_entry(entry, file, rules, err)) < 0 || strcmp(entry->string, host))
			continue;
		ret->insecure = rules->insecure;
		ret->blocked = rules->blocked;
		for (size_t i = 0; i < rules->count; i++) {
			struct sm_oci_mirror *mirror = &ret->mirrors[ret->count];
			if (flag_of(registries, rules->mirrors[i].host, "blocked"))
				continue;
			*mirror = rules->mirrors[i];
			mirror->insecure = flag_of(registries, mirror->host, "insecure");
			ret->count++;
		}
	}
	free(rules);
	return code;
}

int sm_oci_registries_find(const char *file, const char *host, struct sm_oci_registry_rules *ret, struct sm_error *err)
{
	char folder[PATH_MAX];
	char *text;
	size_t len;
	struct sm_error own = { 0 };
	SM_JSON_CLEANUP cJSON *root = NULL;
	memset(ret, 0, sizeof *ret);
	if (!file && sm_path_config_home("supermachine", folder, NULL) < 0)
		return 0; /* no home, no settings */
	int code = file ? sm_path_format(ret->file, err, "%s", file)
	                : sm_path_format(ret->file, err, "%s/config.json", folder);
	if (code < 0)
		return code;
	if ((code = sm_path_read(ret->file, FILE_MAX_BYTES, &text, &len, &own)) < 0)
		return !file && (own.code == ENOENT || own.code == ENOTDIR)
		           ? 0
		           : sm_error_set(err, own.code, "%s", own.message);
	code = sm_json_parse(text, len, ret->file, &root, err);
	free(text);
	return code < 0 ? code : read_table(root, ret->file, host, ret, err);
}
