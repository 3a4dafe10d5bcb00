/* core.arch_load(memory, kernel_path, initrd_path): what a cold boot puts into RAM, without a machine. */
#include "arch/arch.h"
#include "base/fd.h"
#include "lua/memory.h"

#include <errno.h>
#include <fcntl.h>

/* arch_load(memory, kernel_path, initrd_path or nil) -> {kind, entry, arg, page_table}, or nil, message, code. */
static int arch_load(lua_State *L)
{
	struct sm_lua_memory *self = sm_lua_memory_check(L, 1);
	const char *kernel = luaL_checkstring(L, 2), *initrd = luaL_optstring(L, 3, NULL);
	struct sm_error err = { 0 };
	struct sm_hv_boot boot = { 0 };
	int kernel_fd = open(kernel, O_RDONLY | O_CLOEXEC), initrd_fd = -1;
	int code = kernel_fd < 0 ? sm_error_sys(&err, errno, "%s", kernel) : 0;
	if (code == 0 && initrd && (initrd_fd = open(initrd, O_RDONLY | O_CLOEXEC)) < 0)
		code = sm_error_sys(&err, errno, "%s", initrd);
	if (code == 0)
		code = sm_arch_load(&self->plan, self->memory, kernel_fd, initrd_fd, &boot, &err);
	sm_fd_close(&kernel_fd);
	sm_fd_close(&initrd_fd);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_createtable(L, 0, 4);
	lua_pushstring(L, sm_hv_boot_name(boot.kind));
	lua_setfield(L, -2, "kind");
	lua_pushinteger(L, (lua_Integer)boot.entry);
	lua_setfield(L, -2, "entry");
	lua_pushinteger(L, (lua_Integer)boot.arg);
	lua_setfield(L, -2, "arg");
	lua_pushinteger(L, (lua_Integer)boot.page_table);
	lua_setfield(L, -2, "page_table");
	return 1;
}

void sm_lua_arch_open(lua_State *L);

void sm_lua_arch_open(lua_State *L)
{
	lua_pushcfunction(L, arch_load);
	lua_setfield(L, -2, "arch_load");
}
