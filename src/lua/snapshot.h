/* The snapshot userdata, for the binding files that need one as an argument. */
#ifndef SM_LUA_SNAPSHOT_H
#define SM_LUA_SNAPSHOT_H

#include "lua/support.h"
#include "snapshot/snapshot.h"

/* Borrowed while the userdata is open; what outlives the call takes a reference.  Raises for anything else. */
struct sm_snapshot *sm_lua_snapshot_check(lua_State *L, int index);

#endif
