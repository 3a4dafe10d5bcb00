/* core.arm64_fdt: the aarch64 folder's pure functions. */
#include "arch/aarch64/fdt.h"
#include "lua/plan.h"

/* arm64_fdt(config, {initrd_start, initrd_bytes, seed}) -> the device tree's blob, or nil, message, code.
 * seed: SM_ARM64_SEED_BYTES bytes. */
static int arm64_fdt(lua_State *L)
{
	static const char *const known[] = { "initrd_start", "initrd_bytes", "seed", NULL };
	struct sm_plan_config config;
	sm_lua_plan_config(L, 1, &config);
	sm_lua_options_check(L, 2, known);
	struct sm_plan_range initrd = {
		.gpa = (uint64_t)sm_lua_option_integer(L, 2, "initrd_start", 0),
		.bytes = (uint64_t)sm_lua_option_integer(L, 2, "initrd_bytes", 0),
	};
	size_t len;
	luaL_checktype(L, 2, LUA_TTABLE);
	lua_getfield(L, 2, "seed");
	const char *seed = luaL_checklstring(L, -1, &len);
	luaL_argcheck(L, len == SM_ARM64_SEED_BYTES, 2, "a seed of another length");
	struct sm_plan plan;
	struct sm_error err = { 0 };
	int code = sm_plan_make(&config, &plan, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	struct sm_buf buf;
	void *room = sm_lua_room(L, SM_ARM64_FDT_MAX, &buf);
	code = sm_arm64_fdt_build(&plan, &initrd, (const uint8_t *)seed, &buf, &err);
	return sm_lua_built(L, room, &buf, code, &err);
}

void sm_lua_aarch64_open(lua_State *L);

void sm_lua_aarch64_open(lua_State *L)
{
	lua_pushcfunction(L, arm64_fdt);
	lua_setfield(L, -2, "arm64_fdt");
}
