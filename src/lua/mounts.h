/* Mounts from an options table, as lua/supermachine/mounts.lua has checked them. */
#ifndef SM_LUA_MOUNTS_H
#define SM_LUA_MOUNTS_H

#include "lua/support.h"
#include "snapshot/mounts.h"

/* The list in option `key`: { { host =, guest =, tag =, readonly =, writeback =, host_locks =, dax =, symlinks =, cache
 * =, owners = (numbers of plan/mount.h's), ranges = { guest, host, count, ... }, xattrs = }, ... }.  Raises for wrong
 * types. It is Lua's memory, in one value that is pushed; strings are borrowed from the table. */
const struct sm_source_mount *sm_lua_mounts_read(lua_State *L, int index, const char *key, unsigned *ret_count);

#endif
