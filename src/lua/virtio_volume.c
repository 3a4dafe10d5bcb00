/* core.virtio_volume(options): a volume over plain memory; core.virtio_volume_back, _track, _copy, _finish,
 * _untrack, core.virtio_forget: what is done to it from outside. */
#include "base/fd.h"
#include "lua/virtio.h"
#include "lua/volumes.h"

#include <stdio.h>
#include <string.h>

void sm_lua_virtio_volume_open(lua_State *L);

/* The descriptor of an open Lua file in a field, or -1. */
static int field_file(lua_State *L, int index, const char *key)
{
	int fd = -1;
	if (lua_getfield(L, index, key) != LUA_TNIL)
		fd = fileno(((luaL_Stream *)luaL_checkudata(L, -1, LUA_FILEHANDLE))->f);
	lua_pop(L, 1);
	return fd;
}

/* { index =, file =, overlay =, readonly =, bytes = }; false: no file is named. */
static bool read_volume(lua_State *L, int index, struct sm_volume *ret)
{
	static const char *const known[] = { "index", "file",       "overlay", "readonly",
		                             "bytes", "memory_mib", "volumes", NULL };
	sm_lua_options_check(L, index, known);
	*ret = (struct sm_volume){
		.index = (unsigned)sm_lua_option_integer(L, index, "index", 0),
		.fd = field_file(L, index, "file"),
		.overlay_fd = field_file(L, index, "overlay"),
		.readonly = sm_lua_option_boolean(L, index, "readonly", false),
		.bytes = (uint64_t)sm_lua_option_integer(L, index, "bytes", 0),
	};
	return ret->fd >= 0;
}

static int start(struct sm_lua_virtio *device, const struct sm_plan *plan, unsigned index,
                 const struct sm_volume *volume, struct sm_error *err)
{
	int code = sm_lua_virtio_surround(device, plan, err);
	if (code < 0)
		return code;
	const struct sm_virtio_env env = {
		.memory = device->memory,
		.loop = device->loop,
		.line = sm_fd_event_line(device->irq_fd),
	};
	return sm_virtio_volume_new(&env, index, volume, &device->virtio, err);
}

/* The first of `volumes`, opened as for a machine; else what read_volume found. */
static int open_wish(lua_State *L, struct sm_volume *volume, bool *backed, struct sm_volume **ret_opened,
                     struct sm_error *err)
{
	struct sm_volume_wishes wishes = { 0 };
	*ret_opened = NULL;
	int code = sm_lua_volumes_copy(L, 1, "volumes", &wishes, err);
	if (code >= 0 && wishes.count)
		code = sm_volume_wishes_open(&wishes, ret_opened, err);
	if (*ret_opened) {
		*volume = **ret_opened;
		*backed = true;
	}
	sm_volume_wishes_done(&wishes);
	return code;
}

/* virtio_volume({ index =, file = an open file, overlay = likewise, readonly =, bytes =, memory_mib = }), or { volumes
 * = a list of one, as lua/volumes.h has it } */
static int virtio_volume(lua_State *L)
{
	struct sm_volume volume, *opened;
	bool backed = read_volume(L, 1, &volume);
	luaL_argcheck(L, sm_lua_volumes_check(L, 1, "volumes") <= 1, 1, "one volume expected");
	struct sm_plan *plan = lua_newuserdatauv(L, sizeof *plan, 0);
	memset(plan, 0, sizeof *plan);
	plan->nram = 1;
	plan->ram[0].bytes = (uint64_t)sm_lua_option_integer(L, 1, "memory_mib", 16) * SM_MIB;

	struct sm_lua_virtio *device = sm_lua_virtio_new(L);
	struct sm_error err = { 0 };
	int code = open_wish(L, &volume, &backed, &opened, &err);
	if (code >= 0)
		code = start(device, plan, volume.index, backed ? &volume : NULL, &err);
	sm_volume_wishes_close(opened, opened ? 1 : 0);
	if (code < 0) {
		sm_lua_virtio_done(device);
		return sm_lua_fail(L, code, &err);
	}
	device->handle.open = true;
	return 1;
}

static int answer(lua_State *L, int code, const struct sm_error *err)
{
	if (code < 0)
		return sm_lua_fail(L, code, err);
	lua_pushboolean(L, true);
	return 1;
}

/* virtio_volume_back(device, { as above }) */
static int volume_back(lua_State *L)
{
	struct sm_volume volume;
	struct sm_lua_virtio *device = sm_lua_virtio_check(L, 1);
	luaL_argcheck(L, read_volume(L, 2, &volume), 2, "a file is missing");
	struct sm_error err = { 0 };
	return answer(L, sm_virtio_back(device->virtio, &(struct sm_backing){ .volume = &volume }, &err), &err);
}

/* The descriptor of the open file that is the second argument. */
static int check_file(lua_State *L)
{
	return fileno(((luaL_Stream *)luaL_checkudata(L, 2, LUA_FILEHANDLE))->f);
}

/* virtio_volume_track(device), virtio_volume_untrack(device): while it is paused. */
static int volume_track(lua_State *L)
{
	struct sm_error err = { 0 };
	return answer(L, sm_virtio_volume_track(sm_lua_virtio_check(L, 1)->virtio, &err), &err);
}

static int volume_untrack(lua_State *L)
{
	sm_virtio_volume_untrack(sm_lua_virtio_check(L, 1)->virtio);
	return 0;
}

/* virtio_volume_copy(device, open file, offset, most bytes) -> where it has come to */
static int volume_copy(lua_State *L)
{
	struct sm_lua_virtio *device = sm_lua_virtio_check(L, 1);
	int fd = check_file(L);
	uint64_t offset = (uint64_t)luaL_checkinteger(L, 3);
	struct sm_error err = { 0 };
	int code = sm_virtio_volume_copy(device->virtio, fd, &offset, (uint64_t)luaL_checkinteger(L, 4), &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushinteger(L, (lua_Integer)offset);
	return 1;
}

/* virtio_volume_finish(device, open file) -> bytes that had changed */
static int volume_finish(lua_State *L)
{
	struct sm_lua_virtio *device = sm_lua_virtio_check(L, 1);
	uint64_t bytes;
	struct sm_error err = { 0 };
	int code = sm_virtio_volume_finish(device->virtio, check_file(L), &bytes, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushinteger(L, (lua_Integer)bytes);
	return 1;
}

/* virtio_forget(device): while it is paused. */
static int virtio_forget(lua_State *L)
{
	sm_virtio_forget(sm_lua_virtio_check(L, 1)->virtio);
	return 0;
}

void sm_lua_virtio_volume_open(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "virtio_volume", virtio_volume },      { "virtio_volume_back", volume_back },
		{ "virtio_volume_track", volume_track }, { "virtio_volume_untrack", volume_untrack },
		{ "virtio_volume_copy", volume_copy },   { "virtio_volume_finish", volume_finish },
		{ "virtio_forget", virtio_forget },      { NULL, NULL },
	};
	luaL_setfuncs(L, functions, 0);
}
