#include "lua/mounts.h"

#include <string.h>

static unsigned choice(lua_State *L, int index, const char *key, unsigned last)
{
	lua_Integer value = sm_lua_option_integer(L, index, key, 0);
	if (value < 0 || value > (lua_Integer)last)
		luaL_error(L, "option '%s': %d", key, (int)value);
	return (unsigned)value;
}

static uint32_t range_number(lua_State *L, int index, lua_Integer at)
{
	int is_integer;
	lua_geti(L, index, at);
	lua_Integer value = lua_tointegerx(L, -1, &is_integer);
	if (!is_integer || value < 0 || value > UINT32_MAX)
		luaL_error(L, "option 'ranges': numbers from 0 to 4294967295 expected");
	lua_pop(L, 1);
	return (uint32_t)value;
}

static void read_ranges(lua_State *L, int index, struct sm_mount *options)
{
	if (lua_getfield(L, index, "ranges") != LUA_TNIL) {
		luaL_checktype(L, -1, LUA_TTABLE);
		lua_Integer count = luaL_len(L, -1);
		if (count % 3 || count > 3 * SM_MOUNT_RANGES_MAX)
			luaL_error(L, "option 'ranges': at most %d of three numbers", SM_MOUNT_RANGES_MAX);
		options->nranges = (unsigned)(count / 3);
		int ranges = lua_gettop(L);
		for (unsigned i = 0; i < options->nranges; i++)
			options->ranges[i] = (struct sm_mount_range){
				.guest = range_number(L, ranges, 3 * (lua_Integer)i + 1),
				.host = range_number(L, ranges, 3 * (lua_Integer)i + 2),
				.count = range_number(L, ranges, 3 * (lua_Integer)i + 3),
			};
	}
	lua_pop(L, 1);
}

/* From the table on the stack's top. */
static void read_mount(lua_State *L, struct sm_source_mount *ret)
{
	static const char *const known[] = { "host",       "guest",  "tag",      "readonly", "writeback",
		                             "host_locks", "dax",    "symlinks", "cache",    "owners",
		                             "ranges",     "xattrs", NULL };
	int index = lua_gettop(L);
	sm_lua_options_check(L, index, known);
	const char *host = sm_lua_option_string(L, index, "host", NULL);
	const char *guest = sm_lua_option_string(L, index, "guest", NULL);
	const char *tag = sm_lua_option_string(L, index, "tag", "");
	if (!host || !guest || strlen(tag) > SM_MOUNT_TAG_MAX)
		luaL_error(L, "mount: host, guest and a tag of at most %d bytes expected", SM_MOUNT_TAG_MAX);
	*ret = (struct sm_source_mount){
		.host = (char *)(uintptr_t)host,
		.guest = (char *)(uintptr_t)guest,
		.xattrs = (char *)(uintptr_t)sm_lua_option_string(L, index, "xattrs", NULL),
		.options = {
			.root_fd = -1,
			.readonly = sm_lua_option_boolean(L, index, "readonly", false),
			.writeback = sm_lua_option_boolean(L, index, "writeback", false),
			.host_locks = sm_lua_option_boolean(L, index, "host_locks", false),
			.dax = sm_lua_option_boolean(L, index, "dax", true),
			.symlinks = choice(L, index, "symlinks", SM_MOUNT_SYMLINKS_FOLLOW),
			.cache = choice(L, index, "cache", SM_MOUNT_CACHE_ALWAYS),
			.owners = choice(L, index, "owners", SM_MOUNT_OWNERS_PASSTHROUGH),
		},
	};
	memcpy(ret->tag, tag, strlen(tag) + 1);
	read_ranges(L, index, &ret->options);
}

const struct sm_source_mount *sm_lua_mounts_read(lua_State *L, int index, const char *key, unsigned *ret_count)
{
	*ret_count = 0;
	if (lua_isnoneornil(L, index))
		lua_pushnil(L);
	else
		lua_getfield(L, index, key);
	if (lua_isnil(L, -1))
		return NULL;
	luaL_checktype(L, -1, LUA_TTABLE);
	lua_Integer count = luaL_len(L, -1);
	if (count > SM_MOUNTS_MAX)
		luaL_error(L, "option '%s': at most %d", key, SM_MOUNTS_MAX);
	struct sm_source_mount *mounts = lua_newuserdatauv(L, (size_t)count * sizeof *mounts + 1, 0);
	for (lua_Integer i = 1; i <= count; i++) {
		lua_geti(L, -2, i);
		luaL_checktype(L, -1, LUA_TTABLE);
		read_mount(L, &mounts[i - 1]);
		lua_pop(L, 1);
	}
	lua_remove(L, -2);
	*ret_count = (unsigned)count;
	return mounts;
}
