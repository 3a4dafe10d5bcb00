/* JSON documents as Lua values and back. */
#ifndef SM_LUA_JSON_H
#define SM_LUA_JSON_H

#include <cjson/cJSON.h>
#include <lua.h>

/* Pushes one value: objects and arrays as tables, whole numbers as integers, null as nil (a hole in its table). */
void sm_lua_json_push(lua_State *L, const cJSON *value);

#endif
