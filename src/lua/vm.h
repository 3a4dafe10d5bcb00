/* The vm userdata, for the binding files that make one. */
#ifndef SM_LUA_VM_H
#define SM_LUA_VM_H

#include "lua/support.h"
#include "machine/control.h"
#include "pool/pool.h"
#include "snapshot/snapshot.h"

#include <lua.h>

/* What a vm holds.  Everything passes to the userdata by sm_lua_vm_push. */
struct sm_lua_vm_parts {
	struct sm_control *control;
	struct sm_sources sources;  /* its disks, for a later snapshot */
	struct sm_snapshot *origin; /* what it was restored from; NULL: it was booted */
	struct sm_pool *pool;       /* where it goes back to; NULL: it is closed */
	int ready_fd;               /* the listener for the agent's hello; -1: none */
};

void sm_lua_vm_parts_done(struct sm_lua_vm_parts *parts);

/* What the vm at `index` holds; raises for anything else and for a closed vm.  Borrowed. */
struct sm_lua_vm_parts *sm_lua_vm_check(lua_State *L, int index);

/* The vm's methods that talk to the agent: vm_agent.c. */
extern const luaL_Reg sm_lua_vm_agent_methods[];
/* Those that save it and set it back: vm_snapshot.c. */
extern const luaL_Reg sm_lua_vm_snapshot_methods[];
/* Those that give it volumes: volumes.c. */
extern const luaL_Reg sm_lua_vm_volumes_methods[];
/* Those of its mounts: vm_mounts.c. */
extern const luaL_Reg sm_lua_vm_mounts_methods[];
/* Having another architecture's programs run: vm_interpreter.c. */
extern const luaL_Reg sm_lua_vm_interpreter_methods[];

/* A table of what the saving of a snapshot took. */
int sm_lua_vm_push_saved(lua_State *L, const struct sm_snapshot_times *times);

/* Options shared by the constructors: 'transport', "direct" (the default) or "worker".  Raises for another. */
enum sm_control_transport sm_lua_vm_transport(lua_State *L, int index);

/* Push a vm and take what is in parts.  `parent` (0: none) is kept alive. */
int sm_lua_vm_push(lua_State *L, struct sm_lua_vm_parts *parts, int parent);

#endif
