/* Guest RAM as a userdata: for specs and tools, apart from any machine. */
#ifndef SM_LUA_MEMORY_H
#define SM_LUA_MEMORY_H

#include "lua/support.h"
#include "memory/memory.h"
#include "plan/plan.h"

struct sm_lua_memory {
	struct sm_lua_handle handle;
	struct sm_plan plan;
	struct sm_memory *memory;
};

/* Raises for another type and for a closed one. */
struct sm_lua_memory *sm_lua_memory_check(lua_State *L, int index);

#endif
