#include "oci/challenge.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define TCHARS  LETTERS "0123456789!#$%&'*+-.^_`|~"

static bool is_word(const char *at, size_t len, const char *word)
{
	return len == strlen(word) && !strncasecmp(at, word, len);
}

/* A token or quoted string, unquoted into out (NULL: nowhere).  Returns where it ends, or NULL when it does not fit. */
static const char *parse_value(const char *at, char *out, size_t size)
{
	bool quoted = *at == '"';
	size_t len = 0;
	at += quoted;
	while (*at && (quoted ? *at != '"' : !strchr(" \t,", *at))) {
		at += quoted && *at == '\\' && at[1];
		if (out && len + 1 >= size)
			return NULL;
		if (out)
			out[len++] = *at;
		at++;
	}
	if (out)
		out[len] = 0;
	return at + (quoted && *at == '"');
}

int sm_oci_challenge_parse(const char *text, struct sm_oci_challenge *ret, struct sm_error *err)
{
	const struct {
		const char *name;
		char *out;
		size_t size;
	} parameters[] = {
		{ "realm", ret->realm, sizeof ret->realm },
		{ "service", ret->service, sizeof ret->service },
		{ "scope", ret->scope, sizeof ret->scope },
	};
	memset(ret, 0, sizeof *ret);
	bool ours = false; /* inside the first Bearer */
	for (const char *at = text; *(at += strspn(at, " \t,"));) {
		size_t len = strspn(at, TCHARS);
		const char *after = at + len + strspn(at + len, " \t");
		if (*after != '=') {
			ours = is_word(at, len, "Bearer") && !ret->bearer;
			ret->bearer |= ours;
			ret->basic |= is_word(at, len, "Basic");
			at += len ? len : 1;
			continue;
		}
		after += 1 + strspn(after + 1, " \t");
		char *out = NULL;
		size_t size = 0;
		for (size_t i = 0; ours && i < sizeof parameters / sizeof parameters[0]; i++)
			if (is_word(at, len, parameters[i].name) && !*parameters[i].out) {
				out = parameters[i].out;
				size = parameters[i].size;
			}
		if (!(at = parse_value(after, out, size)))
			return sm_error_set(err, EPROTO, "the registry asks for a login in more words than are taken");
	}
	return 0;
}
