#include "lua/support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int sm_lua_fail(lua_State *L, int code, const struct sm_error *err)
{
	int number = err && err->code ? err->code : (code < 0 ? -code : code);
	luaL_pushfail(L);
	lua_pushstring(L, err && err->message[0] ? err->message : strerror(number));
	lua_pushstring(L, sm_error_name(number));
	return 3;
}

/* The metatable's "class" field leads from a userdata back to its class. */
static const struct sm_lua_class *class_of(lua_State *L, int index)
{
	const struct sm_lua_class *class = NULL;
	if (luaL_getmetafield(L, index, "class") != LUA_TNIL) {
		class = lua_touserdata(L, -1);
		lua_pop(L, 1);
	}
	return class;
}

static int handle_close(lua_State *L)
{
	const struct sm_lua_class *class = lua_touserdata(L, lua_upvalueindex(1));
	struct sm_lua_handle *handle = luaL_checkudata(L, 1, class->name);
	if (handle->open) {
		handle->open = false;
		class->close(handle);
	}
	return 0;
}

static int handle_tostring(lua_State *L)
{
	const struct sm_lua_class *class = class_of(L, 1);
	struct sm_lua_handle *handle = lua_touserdata(L, 1);
	if (!class || !handle)
		return luaL_argerror(L, 1, "supermachine handle expected");
	if (!handle->open)
		lua_pushfstring(L, "%s (closed)", class->name);
	else if (class->describe)
		class->describe(L, handle);
	else
		lua_pushfstring(L, "%s: %p", class->name, (void *)handle);
	return 1;
}

void sm_lua_class_register(lua_State *L, const struct sm_lua_class *class)
{
	luaL_newmetatable(L, class->name); /* sets __name */
	lua_pushlightuserdata(L, (void *)(uintptr_t) class);
	lua_setfield(L, -2, "class");

	lua_newtable(L);
	luaL_setfuncs(L, class->methods, 0);
	lua_pushlightuserdata(L, (void *)(uintptr_t) class);
	lua_pushcclosure(L, handle_close, 1);
	lua_pushvalue(L, -1);
	lua_setfield(L, -3, "close");
	lua_pushvalue(L, -1);
	lua_setfield(L, -4, "__gc");
	lua_setfield(L, -3, "__close");
	lua_setfield(L, -2, "__index");

	lua_pushcfunction(L, handle_tostring);
	lua_setfield(L, -2, "__tostring");
	lua_pop(L, 1);
}

void *sm_lua_new(lua_State *L, const struct sm_lua_class *class)
{
	void *payload = lua_newuserdatauv(L, class->size, 1);
	memset(payload, 0, class->size);
	luaL_setmetatable(L, class->name);
	return payload;
}

void *sm_lua_test(lua_State *L, int index, const struct sm_lua_class *class)
{
	return luaL_testudata(L, index, class->name);
}

void *sm_lua_check(lua_State *L, int index, const struct sm_lua_class *class)
{
	struct sm_lua_handle *handle = luaL_checkudata(L, index, class->name);
	if (!handle->open)
		luaL_error(L, "%s is closed", class->name);
	return handle;
}

void sm_lua_keep(lua_State *L, int index, int parent)
{
	index = lua_absindex(L, index);
	lua_pushvalue(L, parent);
	lua_setiuservalue(L, index, 1);
}

void sm_lua_options_check(lua_State *L, int index, const char *const *known)
{
	if (lua_isnoneornil(L, index))
		return;
	luaL_checktype(L, index, LUA_TTABLE);
	index = lua_absindex(L, index);
	for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
		if (lua_type(L, -2) != LUA_TSTRING)
			luaL_error(L, "option keys are strings, got a %s", luaL_typename(L, -2));
		const char *key = lua_tostring(L, -2);
		const char *const *name = known;
		while (*name && strcmp(*name, key))
			name++;
		if (!*name)
			luaL_error(L, "unknown option '%s'", key);
	}
}

/* Push the option, or return false (nothing pushed) when it is absent. */
static bool option_push(lua_State *L, int index, const char *key)
{
	if (lua_isnoneornil(L, index))
		return false;
	if (lua_getfield(L, index, key) != LUA_TNIL)
		return true;
	lua_pop(L, 1);
	return false;
}

static void option_type(lua_State *L, bool right, const char *key, const char *expected)
{
	if (!right)
		luaL_error(L, "option '%s': %s expected, got %s", key, expected, luaL_typename(L, -1));
}

lua_Integer sm_lua_option_integer(lua_State *L, int index, const char *key, lua_Integer fallback)
{
	if (!option_push(L, index, key))
		return fallback;
	int is_integer = 0;
	lua_Integer value = lua_tointegerx(L, -1, &is_integer);
	option_type(L, lua_type(L, -1) == LUA_TNUMBER && is_integer, key, "integer");
	lua_pop(L, 1);
	return value;
}

bool sm_lua_option_boolean(lua_State *L, int index, const char *key, bool fallback)
{
	if (!option_push(L, index, key))
		return fallback;
	option_type(L, lua_isboolean(L, -1), key, "boolean");
	bool value = lua_toboolean(L, -1);
	lua_pop(L, 1);
	return value;
}

const char *sm_lua_option_string(lua_State *L, int index, const char *key, const char *fallback)
{
	if (!option_push(L, index, key))
		return fallback;
	option_type(L, lua_type(L, -1) == LUA_TSTRING, key, "string");
	const char *value = lua_tostring(L, -1);
	lua_pop(L, 1);
	return value;
}

char **sm_lua_strings(lua_State *L, int index, const char *what)
{
	luaL_checktype(L, index, LUA_TTABLE);
	lua_Integer count = luaL_len(L, index);
	for (lua_Integer i = 1; i <= count; i++) {
		if (lua_geti(L, index, i) != LUA_TSTRING)
			luaL_error(L, "%s[%d]: string expected, got %s", what, (int)i, luaL_typename(L, -1));
		size_t len;
		const char *text = lua_tolstring(L, -1, &len);
		if (strlen(text) != len)
			luaL_error(L, "%s[%d]: string holds a NUL byte", what, (int)i);
		lua_pop(L, 1);
	}
	char **strings = calloc((size_t)count + 1, sizeof *strings);
	for (lua_Integer i = 0; strings && i < count; i++) {
		lua_rawgeti(L, index, i + 1);
		strings[i] = strdup(lua_tostring(L, -1));
		lua_pop(L, 1);
		if (!strings[i]) {
			sm_lua_strings_free(strings);
			return NULL;
		}
	}
	return strings;
}

void sm_lua_strings_free(char **strings)
{
	for (char **each = strings; each && *each; each++)
		free(*each);
	free(strings);
}

void *sm_lua_room(lua_State *L, size_t max, struct sm_buf *ret_buf)
{
	void *room = lua_newuserdatauv(L, max, 0);
	sm_buf_init(ret_buf, max);
	return room;
}

int sm_lua_built(lua_State *L, void *room, struct sm_buf *buf, int code, const struct sm_error *err)
{
	size_t len = buf->len;
	if (code >= 0 && len)
		memcpy(room, buf->data, len);
	sm_buf_done(buf);
	if (code < 0)
		return sm_lua_fail(L, code, err);
	lua_pushlstring(L, room, len);
	return 1;
}
