#include "lua/identity.h"

#include "lua/process.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define LETTERS_AND_MORE "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"

static const char *check_hostname(lua_State *L, int index)
{
	const char *name = sm_lua_option_string(L, index, "hostname", NULL);
	if (!name)
		return NULL;
	lua_getfield(L, index, "hostname");
	size_t len = lua_rawlen(L, -1);
	lua_pop(L, 1);
	if (len == 0 || len > SM_AGENT_HOSTNAME_MAX || strspn(name, LETTERS_AND_MORE) != len)
		luaL_error(L, "option 'hostname': 1 to %d letters, digits, '-', '.' and '_' expected",
		           SM_AGENT_HOSTNAME_MAX);
	return name;
}

/* How many there are, with the table left on the stack (nil where there is none). */
static size_t check_secrets(lua_State *L, int index)
{
	size_t count = 0;
	if (lua_isnoneornil(L, index)) {
		lua_pushnil(L);
		return 0;
	}
	int type = lua_getfield(L, index, "secrets");
	if (type == LUA_TNIL)
		return 0;
	luaL_checktype(L, -1, LUA_TTABLE);
	for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1), count++) {
		size_t len;
		const char *path = lua_type(L, -2) == LUA_TSTRING ? lua_tolstring(L, -2, &len) : NULL;
		if (!path || path[0] != '/' || strlen(path) != len || len >= PATH_MAX)
			luaL_error(L, "option 'secrets': absolute paths expected");
		/* Its type alone: a secret is in no message. */
		if (lua_type(L, -1) != LUA_TSTRING)
			luaL_error(L, "option 'secrets': %s: string expected, got %s", path, luaL_typename(L, -1));
	}
	if (count > SM_AGENT_SECRETS_MAX)
		luaL_error(L, "option 'secrets': at most %d", SM_AGENT_SECRETS_MAX);
	return count;
}

/* From the table on the stack's top. */
static bool copy_secrets(lua_State *L, size_t count, struct sm_lua_identity *ret)
{
	if (!count)
		return true;
	ret->secrets = calloc(count, sizeof *ret->secrets);
	ret->options.secrets = ret->secrets;
	bool fine = ret->secrets;
	/* Keys and values are strings: nothing here raises. */
	for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
		if (!fine)
			continue;
		struct sm_agent_secret *secret = &ret->secrets[ret->options.nsecrets++];
		const char *value = lua_tolstring(L, -1, &secret->len);
		secret->path = strdup(lua_tostring(L, -2));
		secret->value = malloc(secret->len ? secret->len : 1);
		fine = secret->path && secret->value;
		if (fine)
			memcpy(secret->value, value, secret->len);
	}
	return fine;
}

/* The first allocation, after all that can raise. */
static int read_hook(lua_State *L, int index, struct sm_agent_hook *ret)
{
	struct sm_buf body;
	if (lua_isnoneornil(L, index) || lua_getfield(L, index, "on_restore") == LUA_TNIL)
		return 0;
	const char *name = sm_lua_process_body(L, lua_gettop(L), &body);
	if (sm_buf_failed(&body)) {
		int code = body.failed;
		sm_buf_done(&body);
		return code;
	}
	ret->body = body.data;
	ret->len = body.len;
	ret->name = strdup(name);
	return ret->name ? 0 : -ENOMEM;
}

int sm_lua_identity_read(lua_State *L, int index, struct sm_lua_identity *ret)
{
	int top = lua_gettop(L);
	*ret = (struct sm_lua_identity){ 0 };
	const lua_Integer timeout_ms = sm_lua_option_integer(L, index, "timeout_ms", 30000);
	const char *hostname = check_hostname(L, index);
	ret->options.agent = sm_lua_option_boolean(L, index, "agent", false);
	ret->options.timeout_ms = timeout_ms < 0 || timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms;
	size_t count = check_secrets(L, index);
	int secrets = lua_gettop(L);
	int code = read_hook(L, index, &ret->options.hook);
	lua_settop(L, secrets);
	if (code >= 0 && hostname) {
		ret->options.hostname = ret->hostname = strdup(hostname);
		code = ret->hostname ? 0 : -ENOMEM;
	}
	if (code >= 0 && !copy_secrets(L, count, ret))
		code = -ENOMEM;
	lua_settop(L, top);
	if (code < 0)
		sm_lua_identity_done(ret);
	return code;
}

void sm_lua_identity_done(struct sm_lua_identity *identity)
{
	for (size_t i = 0; i < identity->options.nsecrets; i++) {
		struct sm_agent_secret *secret = &identity->secrets[i];
		if (secret->value)
			explicit_bzero(secret->value, secret->len);
		free(secret->value);
		free(secret->path);
	}
	free(identity->secrets);
	free(identity->hostname);
	free(identity->options.hook.name);
	free(identity->options.hook.body);
	*identity = (struct sm_lua_identity){ 0 };
}
