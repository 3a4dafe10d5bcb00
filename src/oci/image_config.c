#include "oci/image_config.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

/* Absent and null are the same: Go writes null for an empty list. */
static const cJSON *member(const cJSON *object, const char *name)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);
	return cJSON_IsNull(value) ? NULL : value;
}

static int no_memory(const char *what, struct sm_error *err)
{
	return sm_error_sys(err, ENOMEM, "%s", what);
}

static int read_list(const cJSON *from, const char *name, const char *what, cJSON *to, const char *as,
                     struct sm_error *err)
{
	const cJSON *array = member(from, name), *item;
	if (array && !cJSON_IsArray(array))
		return sm_error_set(err, EBADMSG, "%s: '%s' is not an array", what, name);
	cJSON *list = cJSON_AddArrayToObject(to, as);
	if (!list)
		return no_memory(what, err);
	size_t i = 0;
	cJSON_ArrayForEach(item, array)
	{
		if (!cJSON_IsString(item))
			return sm_error_set(err, EBADMSG, "%s: %s[%zu] is not a string", what, name, i);
		if (!cJSON_AddItemToArray(list, cJSON_CreateString(item->valuestring)))
			return no_memory(what, err);
		i++;
	}
	return 0;
}

static int read_string(const cJSON *from, const char *name, const char *what, cJSON *to, const char *as,
                       struct sm_error *err)
{
	const cJSON *value = member(from, name);
	if (value && !cJSON_IsString(value))
		return sm_error_set(err, EBADMSG, "%s: '%s' is not a string", what, name);
	return cJSON_AddStringToObject(to, as, value ? value->valuestring : "") ? 0 : no_memory(what, err);
}

/* A Go set: an object whose values say nothing. */
static int read_names(const cJSON *from, const char *name, const char *what, cJSON *to, const char *as,
                      struct sm_error *err)
{
	const cJSON *set = member(from, name), *item;
	if (set && !cJSON_IsObject(set))
		return sm_error_set(err, EBADMSG, "%s: '%s' is not an object", what, name);
	cJSON *list = cJSON_AddArrayToObject(to, as);
	if (!list)
		return no_memory(what, err);
	cJSON_ArrayForEach(
	    item, set) if (!cJSON_AddItemToArray(list, cJSON_CreateString(item->string))) return no_memory(what, err);
	return 0;
}

static int read_labels(const cJSON *from, const char *name, const char *what, cJSON *to, const char *as,
                       struct sm_error *err)
{
	const cJSON *labels = member(from, name), *item;
	if (labels && !cJSON_IsObject(labels))
		return sm_error_set(err, EBADMSG, "%s: '%s' is not an object", what, name);
	cJSON *copy = cJSON_AddObjectToObject(to, as);
	if (!copy)
		return no_memory(what, err);
	cJSON_ArrayForEach(item, labels)
	{
		if (!cJSON_IsString(item))
			return sm_error_set(err, EBADMSG, "%s: %s['%.100s'] is not a string", what, name, item->string);
		if (!cJSON_AddStringToObject(copy, item->string, item->valuestring))
			return no_memory(what, err);
	}
	return 0;
}

static int read_healthcheck(const cJSON *from, const char *name, const char *what, cJSON *to, const char *as,
                            struct sm_error *err)
{
	static const struct {
		const char *name, *as;
		double per_unit; /* nanoseconds of the document in one of ours */
	} numbers[] = {
		{ "Interval", "interval_ms", 1e6 },
		{ "Timeout", "timeout_ms", 1e6 },
		{ "StartPeriod", "start_period_ms", 1e6 },
		{ "StartInterval", "start_interval_ms", 1e6 },
		{ "Retries", "retries", 1 },
	};
	const cJSON *check = member(from, name);
	if (!check)
		return 0;
	if (!cJSON_IsObject(check))
		return sm_error_set(err, EBADMSG, "%s: '%s' is not an object", what, name);
	cJSON *copy = cJSON_AddObjectToObject(to, as);
	if (!copy)
		return no_memory(what, err);
	int code = read_list(check, "Test", what, copy, "test", err);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers && code == 0; i++) {
		const cJSON *number = member(check, numbers[i].name);
		if (!number)
			continue;
		double value = cJSON_IsNumber(number) ? number->valuedouble : -1;
		if (!(value >= 0 && value <= 9007199254740992.0 && floor(value) == value))
			return sm_error_set(err, EBADMSG, "%s: %s.%s is not a whole number", what, name,
			                    numbers[i].name);
		if (!cJSON_AddNumberToObject(copy, numbers[i].as, value / numbers[i].per_unit))
			return no_memory(what, err);
	}
	return code;
}

typedef int (*reader)(const cJSON *from, const char *name, const char *what, cJSON *to, const char *as,
                      struct sm_error *err);

static const struct {
	const char *name, *as;
	reader read;
} members[] = {
	{ "Entrypoint", "entrypoint", read_list },
	{ "Cmd", "cmd", read_list },
	{ "Env", "env", read_list },
	{ "WorkingDir", "workdir", read_string },
	{ "User", "user", read_string },
	{ "StopSignal", "stop_signal", read_string },
	{ "Volumes", "volumes", read_names },
	{ "ExposedPorts", "exposed_ports", read_names },
	{ "Labels", "labels", read_labels },
	{ "Healthcheck", "healthcheck", read_healthcheck },
};

static int check_env(const cJSON *env, const char *what, struct sm_error *err)
{
	const cJSON *item;
	size_t i = 0;
	cJSON_ArrayForEach(item, env)
	{
		const char *equals = strchr(item->valuestring, '=');
		if (!equals || equals == item->valuestring)
			return sm_error_set(err, EBADMSG, "%s: Env[%zu] is not NAME=VALUE", what, i);
		i++;
	}
	return 0;
}

int sm_oci_image_config_read(const cJSON *document, const char *what, cJSON **ret_process, struct sm_error *err)
{
	const cJSON *run = member(document, "config");
	if (run && !cJSON_IsObject(run))
		return sm_error_set(err, EBADMSG, "%s: 'config' is not an object", what);
	SM_JSON_CLEANUP cJSON *process = cJSON_CreateObject();
	int code = process ? 0 : no_memory(what, err);
	for (size_t i = 0; i < sizeof members / sizeof *members && code == 0; i++)
		code = members[i].read(run, members[i].name, what, process, members[i].as, err);
	if (code == 0)
		code = check_env(cJSON_GetObjectItemCaseSensitive(process, "env"), what, err);
	if (code < 0)
		return code;
	*ret_process = process;
	process = NULL;
	return 0;
}
