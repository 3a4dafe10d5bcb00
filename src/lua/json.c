/* core.json_encode(value) and core.json_decode(text). */
#include "lua/json.h"

#include "base/json.h"
#include "lua/support.h"

#include <errno.h>
#include <math.h>

void sm_lua_json_push(lua_State *L, const cJSON *value)
{
	luaL_checkstack(L, 4, "JSON too deep");
	if (cJSON_IsString(value)) {
		lua_pushstring(L, value->valuestring);
	} else if (cJSON_IsNumber(value)) {
		double number = value->valuedouble;
		if (floor(number) == number && fabs(number) <= 9007199254740992.0)
			lua_pushinteger(L, (lua_Integer)number);
		else
			lua_pushnumber(L, number);
	} else if (cJSON_IsBool(value)) {
		lua_pushboolean(L, cJSON_IsTrue(value));
	} else if (cJSON_IsArray(value) || cJSON_IsObject(value)) {
		lua_newtable(L);
		lua_Integer index = 1;
		for (const cJSON *item = value->child; item; item = item->next) {
			sm_lua_json_push(L, item);
			if (cJSON_IsArray(value))
				lua_seti(L, -2, index++);
			else
				lua_setfield(L, -2, item->string);
		}
	} else {
		lua_pushnil(L);
	}
}

/* Returns NULL when out of memory or *ret_wrong is set to what cannot be JSON.  Never raises: the tree is the
 * caller's. */
static cJSON *to_json(lua_State *L, int index, int depth, const char **ret_wrong)
{
	index = lua_absindex(L, index);
	if (depth > SM_JSON_MAX_DEPTH || !lua_checkstack(L, 4)) {
		*ret_wrong = "a table nested too deep";
		return NULL;
	}
	switch (lua_type(L, index)) {
	case LUA_TSTRING:
		return cJSON_CreateString(lua_tostring(L, index));
	case LUA_TNUMBER:
		return cJSON_CreateNumber(lua_tonumber(L, index));
	case LUA_TBOOLEAN:
		return cJSON_CreateBool(lua_toboolean(L, index));
	case LUA_TTABLE:
		break;
	default:
		*ret_wrong = luaL_typename(L, index);
		return NULL;
	}

	lua_Unsigned length = lua_rawlen(L, index);
	cJSON *tree = length > 0 ? cJSON_CreateArray() : cJSON_CreateObject();
	for (lua_Unsigned i = 1; tree && i <= length; i++) {
		lua_rawgeti(L, index, (lua_Integer)i);
		cJSON *item = to_json(L, -1, depth + 1, ret_wrong);
		lua_pop(L, 1);
		if (!item || !cJSON_AddItemToArray(tree, item)) {
			cJSON_Delete(item);
			cJSON_Delete(tree);
			return NULL;
		}
	}
	if (length > 0)
		return tree;
	for (lua_pushnil(L); tree && lua_next(L, index); lua_pop(L, 1)) {
		cJSON *item = NULL;
		if (lua_type(L, -2) == LUA_TSTRING)
			item = to_json(L, -1, depth + 1, ret_wrong);
		else
			*ret_wrong = "a key that is not a string";
		if (!item || !cJSON_AddItemToObject(tree, lua_tostring(L, -2), item)) {
			cJSON_Delete(item);
			cJSON_Delete(tree);
			lua_pop(L, 2);
			return NULL;
		}
	}
	return tree;
}

/* Tables with a length are arrays, others objects.  Keys come in no certain order. */
static int json_encode(lua_State *L)
{
	const char *wrong = NULL;
	luaL_checkany(L, 1);
	cJSON *tree = to_json(L, 1, 0, &wrong);
	char *text = tree ? cJSON_PrintUnformatted(tree) : NULL;
	cJSON_Delete(tree);
	if (wrong)
		return luaL_error(L, "cannot write %s as JSON", wrong);
	if (!text)
		return sm_lua_fail(L, ENOMEM, NULL);
	lua_pushstring(L, text);
	cJSON_free(text);
	return 1;
}

static int json_decode(lua_State *L)
{
	size_t len;
	const char *text = luaL_checklstring(L, 1, &len);
	cJSON *root = NULL;
	struct sm_error err = { 0 };
	int code = sm_json_parse(text, len, "JSON", &root, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	sm_lua_json_push(L, root);
	cJSON_Delete(root);
	return 1;
}

void sm_lua_json_open(lua_State *L);

void sm_lua_json_open(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "json_encode", json_encode },
		{ "json_decode", json_decode },
		{ NULL, NULL },
	};
	luaL_setfuncs(L, functions, 0);
}
