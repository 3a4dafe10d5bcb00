#include "base/json.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SAFE_INTEGER_MAX 9007199254740992.0 /* 2^53: a double is exact up to here */

/* What cJSON would let through: nesting (before its recursion sees it), and strings that hold a NUL,
 * which would end early and then compare equal to another name. */
static const char *scan(const char *text, size_t len)
{
	bool in_string = false;
	unsigned depth = 0;
	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		if (c == 0)
			return "holds a NUL byte";
		if (in_string) {
			if (c == '\\') {
				if (len - i >= 6 && !memcmp(text + i, "\\u0000", 6))
					return "holds a NUL character";
				i++;
			} else if (c == '"') {
				in_string = false;
			} else if ((unsigned char)c < ' ') {
				return "holds a control character in a string";
			}
		} else if (c == '"') {
			in_string = true;
		} else if (c == '{' || c == '[') {
			if (++depth > SM_JSON_MAX_DEPTH)
				return "is nested too deeply";
		} else if ((c == '}' || c == ']') && depth) {
			depth--;
		}
	}
	return NULL;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* 0, -ENOMEM, or -EBADMSG with the name that is there twice.  Sorted: a stranger may send half a million names. */
static int check_names(const cJSON *object, const char **ret_name)
{
	size_t count = 0;
	for (const cJSON *child = object->child; child; child = child->next)
		count++;
	if (count < 2)
		return 0;
	const char **names = malloc(count * sizeof *names);
	if (!names)
		return -ENOMEM;
	size_t i = 0;
	for (const cJSON *child = object->child; child; child = child->next)
		names[i++] = child->string;
	qsort(names, count, sizeof *names, compare_names);
	int code = 0;
	for (i = 1; i < count && !code; i++)
		if (!strcmp(names[i - 1], names[i])) {
			*ret_name = names[i];
			code = -EBADMSG;
		}
	free(names);
	return code;
}

/* Recursion is bounded: scan has refused what is too deep. */
static int check_tree(const cJSON *value, const char **ret_name)
{
	int code = cJSON_IsObject(value) ? check_names(value, ret_name) : 0;
	for (const cJSON *child = value->child; child && !code; child = child->next)
		code = check_tree(child, ret_name);
	return code;
}

static bool only_space(const char *at, const char *end)
{
	while (at < end && strchr(" \t\r\n", *at))
		at++;
	return at == end;
}

int sm_json_parse(const char *text, size_t len, const char *what, cJSON **ret_root, struct sm_error *err)
{
	*ret_root = NULL;
	if (len > SM_JSON_MAX_BYTES)
		return sm_error_set(err, EBADMSG, "%s: JSON of %zu bytes, the limit is %u", what, len,
		                    SM_JSON_MAX_BYTES);
	const char *fault = scan(text, len);
	if (fault)
		return sm_error_set(err, EBADMSG, "%s: JSON %s", what, fault);
	const char *end = text;
	SM_JSON_CLEANUP cJSON *root = cJSON_ParseWithLengthOpts(text, len, &end, 0);
	if (!root)
		return sm_error_set(err, EBADMSG, "%s: not JSON, at byte %zu", what, (size_t)(end - text));
	if (!only_space(end, text + len))
		return sm_error_set(err, EBADMSG, "%s: JSON ends at byte %zu, but %zu follow", what,
		                    (size_t)(end - text), len - (size_t)(end - text));
	const char *name = NULL;
	int code = check_tree(root, &name);
	if (code == -EBADMSG)
		return sm_error_set(err, EBADMSG, "%s: JSON has '%s' twice in one object", what, name);
	if (code < 0)
		return sm_error_sys(err, code, "%s", what);
	*ret_root = root;
	root = NULL;
	return 0;
}

static const cJSON *member(const cJSON *object, const char *name)
{
	return cJSON_IsObject(object) ? cJSON_GetObjectItemCaseSensitive(object, name) : NULL;
}

static int refuse(const cJSON *value, const char *name, const char *what, const char *expected, struct sm_error *err)
{
	if (!value)
		return sm_error_set(err, EBADMSG, "%s: '%s' is missing", what, name);
	return sm_error_set(err, EBADMSG, "%s: '%s' is not %s", what, name, expected);
}

int sm_json_get_string(const cJSON *object, const char *name, const char *what, const char **ret, struct sm_error *err)
{
	const cJSON *value = member(object, name);
	*ret = NULL;
	if (!cJSON_IsString(value))
		return refuse(value, name, what, "a string", err);
	*ret = value->valuestring;
	return 0;
}

int sm_json_get_u64(const cJSON *object, const char *name, const char *what, uint64_t *ret, struct sm_error *err)
{
	const cJSON *value = member(object, name);
	*ret = 0;
	if (!cJSON_IsNumber(value))
		return refuse(value, name, what, "a number", err);
	double number = value->valuedouble;
	if (!(number >= 0 && number <= SAFE_INTEGER_MAX) || (double)(uint64_t)number != number)
		return refuse(value, name, what, "an integer from 0 to 2^53", err);
	*ret = (uint64_t)number;
	return 0;
}

int sm_json_get_object(const cJSON *object, const char *name, const char *what, const cJSON **ret, struct sm_error *err)
{
	const cJSON *value = member(object, name);
	*ret = NULL;
	if (!cJSON_IsObject(value))
		return refuse(value, name, what, "an object", err);
	*ret = value;
	return 0;
}

int sm_json_get_array(const cJSON *object, const char *name, const char *what, const cJSON **ret, struct sm_error *err)
{
	const cJSON *value = member(object, name);
	*ret = NULL;
	if (!cJSON_IsArray(value))
		return refuse(value, name, what, "an array", err);
	*ret = value;
	return 0;
}

int sm_json_string_or(const cJSON *object, const char *name, const char *what, const char *fallback, const char **ret,
                      struct sm_error *err)
{
	if (member(object, name))
		return sm_json_get_string(object, name, what, ret, err);
	*ret = fallback;
	return 0;
}

void sm_json_cleanup(cJSON **root)
{
	cJSON_Delete(*root);
	*root = NULL;
}
