/* Volumes from an options table, as lua/supermachine/volumes.lua has checked them. */
#ifndef SM_LUA_VOLUMES_H
#define SM_LUA_VOLUMES_H

#include "lua/support.h"
#include "pool/volumes.h"

/* The list in option `key`: { { host =, guest = or nil, bytes =, readonly =, format =, overlay = }, ... }.  Raises for
 * wrong types; returns their number. */
unsigned sm_lua_volumes_check(lua_State *L, int index, const char *key);
/* A copy of the same list; raises nothing. */
int sm_lua_volumes_copy(lua_State *L, int index, const char *key, struct sm_volume_wishes *ret, struct sm_error *err);

#endif
