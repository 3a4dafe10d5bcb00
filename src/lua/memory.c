/* core.memory(config[, ram_path[, page_bytes]]): guest RAM without a machine. */
#include "lua/memory.h"

#include "base/fd.h"
#include "lua/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define READ_MAX (16u << 20)

static void memory_close(void *payload)
{
	struct sm_lua_memory *self = payload;
	sm_memory_free(self->memory);
	self->memory = NULL;
}

static const struct sm_lua_class memory_class;

struct sm_lua_memory *sm_lua_memory_check(lua_State *L, int index)
{
	return sm_lua_check(L, index, &memory_class);
}

/* read(gpa, length) -> string, or nil, message, "EFAULT" */
static int memory_read(lua_State *L)
{
	struct sm_lua_memory *self = sm_lua_memory_check(L, 1);
	uint64_t gpa = (uint64_t)luaL_checkinteger(L, 2);
	lua_Integer len = luaL_checkinteger(L, 3);
	luaL_argcheck(L, len >= 0 && len <= READ_MAX, 3, "from 0 bytes to 16 MiB");
	luaL_Buffer out;
	char *room = luaL_buffinitsize(L, &out, (size_t)len);
	int code = sm_memory_read(self->memory, gpa, room, (size_t)len);
	if (code < 0)
		return sm_lua_fail(L, code, NULL);
	luaL_pushresultsize(&out, (size_t)len);
	return 1;
}

/* write(gpa, string) -> true, or nil, message, "EFAULT" */
static int memory_write(lua_State *L)
{
	struct sm_lua_memory *self = sm_lua_memory_check(L, 1);
	size_t len;
	const char *data = luaL_checklstring(L, 3, &len);
	int code = sm_memory_write(self->memory, (uint64_t)luaL_checkinteger(L, 2), data, len);
	if (code < 0)
		return sm_lua_fail(L, code, NULL);
	lua_pushboolean(L, true);
	return 1;
}

/* zero(gpa, length) -> true, or nil, message, "EFAULT" */
static int memory_zero(lua_State *L)
{
	struct sm_lua_memory *self = sm_lua_memory_check(L, 1);
	int code = sm_memory_zero(self->memory, (uint64_t)luaL_checkinteger(L, 2), (uint64_t)luaL_checkinteger(L, 3));
	if (code < 0)
		return sm_lua_fail(L, code, NULL);
	lua_pushboolean(L, true);
	return 1;
}

/* discard(gpa, length) -> true, or nil, message, "EFAULT" */
static int memory_discard(lua_State *L)
{
	struct sm_lua_memory *self = sm_lua_memory_check(L, 1);
	int code =
	    sm_memory_discard(self->memory, (uint64_t)luaL_checkinteger(L, 2), (uint64_t)luaL_checkinteger(L, 3));
	if (code < 0)
		return sm_lua_fail(L, code, NULL);
	lua_pushboolean(L, true);
	return 1;
}

/* marked(gpa) -> whether host code wrote to that page, or it is known to differ from the file */
static int memory_marked(lua_State *L)
{
	struct sm_lua_memory *self = sm_lua_memory_check(L, 1);
	lua_pushboolean(L, sm_memory_marked(self->memory, (uint64_t)luaL_checkinteger(L, 2)));
	return 1;
}

/* regions() -> {{gpa, bytes, hva, file_offset}..} */
static int memory_regions(lua_State *L)
{
	struct sm_lua_memory *self = sm_lua_memory_check(L, 1);
	const struct sm_memory_region *regions;
	size_t count = sm_memory_regions(self->memory, &regions);
	lua_createtable(L, (int)count, 0);
	for (size_t i = 0; i < count; i++) {
		lua_createtable(L, 0, 4);
		lua_pushinteger(L, (lua_Integer)regions[i].gpa);
		lua_setfield(L, -2, "gpa");
		lua_pushinteger(L, (lua_Integer)regions[i].bytes);
		lua_setfield(L, -2, "bytes");
		lua_pushinteger(L, (lua_Integer)(uintptr_t)regions[i].hva);
		lua_setfield(L, -2, "hva");
		lua_pushinteger(L, (lua_Integer)regions[i].file_offset);
		lua_setfield(L, -2, "file_offset");
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	return 1;
}

/* save(path) -> bytes that were not zero, or nil, message, code.  Truncates what is there. */
static int memory_save(lua_State *L)
{
	struct sm_lua_memory *self = sm_lua_memory_check(L, 1);
	const char *path = luaL_checkstring(L, 2);
	struct sm_error err = { 0 };
	uint64_t bytes = 0;
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	int code = fd < 0 ? sm_error_sys(&err, errno, "%s", path) : sm_memory_save(self->memory, fd, &bytes, &err);
	sm_fd_close(&fd);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushinteger(L, (lua_Integer)bytes);
	return 1;
}

/* In place of a hypervisor: the table at index 2, of the gpas that a guest wrote to. */
static int guest_wrote(void *arg, const struct sm_memory_region *region, uint64_t *bits, struct sm_error *err)
{
	(void)err;
	lua_State *L = arg;
	struct sm_lua_memory *self = sm_lua_memory_check(L, 1);
	uint64_t page = sm_memory_page_bytes(self->memory);
	memset(bits, 0, (region->bytes / page + 63) / 64 * sizeof *bits);
	for (lua_Integer i = 1; lua_rawgeti(L, 2, i) != LUA_TNIL; i++) {
		uint64_t at = ((uint64_t)lua_tointeger(L, -1) - region->gpa) / page;
		if (at < region->bytes / page)
			bits[at / 64] |= UINT64_C(1) << (at % 64);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
	return 0;
}

/* harvest(gpas) -> true, or nil, message, code.  What marked() says is what differs from the file then, after a guest
 * that wrote to the pages of these addresses. */
static int memory_harvest(lua_State *L)
{
	struct sm_lua_memory *self = sm_lua_memory_check(L, 1);
	luaL_checktype(L, 2, LUA_TTABLE);
	struct sm_error err = { 0 };
	int code = sm_memory_harvest(self->memory, guest_wrote, L, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushboolean(L, true);
	return 1;
}

/* rewind(gpas) -> bytes copied, bytes given back; or nil, message, code.  All RAM is what the file says, after a guest
 * that wrote to the pages of these addresses. */
static int memory_rewind(lua_State *L)
{
	struct sm_lua_memory *self = sm_lua_memory_check(L, 1);
	luaL_checktype(L, 2, LUA_TTABLE);
	struct sm_error err = { 0 };
	struct sm_memory_rewound rewound;
	int code = sm_memory_harvest(self->memory, guest_wrote, L, &err);
	if (code == 0)
		code = sm_memory_rewind(self->memory, &rewound, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushinteger(L, (lua_Integer)rewound.copied_bytes);
	lua_pushinteger(L, (lua_Integer)rewound.dropped_bytes);
	return 2;
}

static const luaL_Reg memory_methods[] = {
	{ "read", memory_read },     { "write", memory_write },
	{ "zero", memory_zero },     { "discard", memory_discard },
	{ "marked", memory_marked }, { "regions", memory_regions },
	{ "save", memory_save },     { "harvest", memory_harvest },
	{ "rewind", memory_rewind }, { NULL, NULL },
};

static const struct sm_lua_class memory_class = {
	.name = "supermachine.memory",
	.size = sizeof(struct sm_lua_memory),
	.methods = memory_methods,
	.close = memory_close,
};

/* memory(config[, ram_path[, page_bytes]]) -> the RAM of that plan: zeros, or a copy on write of a file, by the rules
 * of a host with pages of that size; or nil, message, code. */
static int memory_new(lua_State *L)
{
	struct sm_plan_config config;
	sm_lua_plan_config(L, 1, &config);
	const char *path = luaL_optstring(L, 2, NULL);
	lua_Integer page_bytes = luaL_optinteger(L, 3, 0);
	luaL_argcheck(L, page_bytes >= 0, 3, "a page has no negative size");
	struct sm_lua_memory *self = sm_lua_new(L, &memory_class);
	struct sm_error err = { 0 };
	int fd = -1;
	int code = sm_plan_make(&config, &self->plan, &err);
	if (code == 0 && path && (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		code = sm_error_sys(&err, errno, "%s", path);
	struct sm_memory_source source = { .nfiles = 1, .files = { fd } };
	if (code == 0)
		code = sm_memory_new(&self->plan, path ? &source : NULL, (uint64_t)page_bytes, &self->memory, &err);
	sm_fd_close(&fd);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	self->handle.open = true;
	return 1;
}

void sm_lua_memory_open(lua_State *L);

void sm_lua_memory_open(lua_State *L)
{
	sm_lua_class_register(L, &memory_class);
	lua_pushcfunction(L, memory_new);
	lua_setfield(L, -2, "memory");
}
