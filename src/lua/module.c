/* require "supermachine.core": one table, filled by one opener a binding file. */
#include "base/version.h"
#include "lua/support.h"
#include "plan/plan.h"

/* Every binding file gives `void sm_lua_<name>_open(lua_State *L)`, called with the core table on the stack top, which
 * adds its functions and classes to it.  One row each, sorted by the walk through the house. */
/* clang-format off */
#define OPENERS(ROW) \
	ROW(base) \
	ROW(paths) \
	ROW(json) \
	ROW(plan) \
	ROW(memory) \
	ROW(hv) \
	ROW(probe) \
	ROW(fuse) \
	ROW(device) \
	ROW(virtio_new) \
	ROW(virtio) \
	ROW(virtio_stream) \
	ROW(virtio_volume) \
	ROW(arch) \
	ROW(x86_64) \
	ROW(aarch64) \
	ROW(image) \
	ROW(store) \
	ROW(rootfs) \
	ROW(image_rootfs) \
	ROW(vm_new) \
	ROW(vm) \
	ROW(volumes) \
	ROW(snapshot) \
	ROW(pool) \
	ROW(stream) \
	ROW(process) \
	ROW(agent)
/* clang-format on */

#define DECLARE(name) void sm_lua_##name##_open(lua_State *L);
OPENERS(DECLARE)

typedef void (*opener)(lua_State *L);

#define ENTRY(name) sm_lua_##name##_open,
static const opener openers[] = { sm_lua_operation_open, OPENERS(ENTRY) };

/* The one symbol that the shared object exports. */
int luaopen_supermachine_core(lua_State *L) __attribute__((visibility("default")));

int luaopen_supermachine_core(lua_State *L)
{
	luaL_checkversion(L);
	lua_newtable(L);
	lua_pushliteral(L, SM_VERSION);
	lua_setfield(L, -2, "version");
	/* Where `make install` puts what is neither Lua nor a shared object: the guest's init. */
	lua_pushliteral(L, SM_PREFIX "/lib/supermachine");
	lua_setfield(L, -2, "libdir");
	lua_pushstring(L, sm_plan_arch_name(sm_plan_arch_host()));
	lua_setfield(L, -2, "arch");
	int top = lua_gettop(L);
	for (size_t i = 0; i < sizeof openers / sizeof *openers; i++) {
		openers[i](L);
		lua_settop(L, top);
	}
	return 1;
}
