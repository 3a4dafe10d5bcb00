/* vm:volumes_mount_begin{volumes=, timeout_ms=}: those that the machine was made with; vm:volumes_give_begin{volumes=,
 * agent=, timeout_ms=}: others, behind slots that have nothing.  core.volumes_stamp_begin{volumes=}: what they hold. */
#include "lua/volumes.h"

#include "lua/vm.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* From the table on the stack's top; strings are borrowed from it. */
static void read_wish(lua_State *L, struct sm_volume_wish *ret)
{
	static const char *const known[] = { "host", "guest", "bytes", "readonly", "format", "overlay", NULL };
	int index = lua_gettop(L);
	sm_lua_options_check(L, index, known);
	const char *host = sm_lua_option_string(L, index, "host", NULL);
	lua_Integer bytes = sm_lua_option_integer(L, index, "bytes", 0);
	if (!host || bytes < 0)
		luaL_error(L, "volume: a host path and a size are expected");
	*ret = (struct sm_volume_wish){
		.source = {
			.path = (char *)(uintptr_t)host,
			.bytes = (uint64_t)bytes,
			.readonly = sm_lua_option_boolean(L, index, "readonly", false),
			.format = sm_lua_option_boolean(L, index, "format", true),
			.overlay = sm_lua_option_boolean(L, index, "overlay", false),
		},
		.guest = (char *)(uintptr_t)sm_lua_option_string(L, index, "guest", NULL),
	};
}

unsigned sm_lua_volumes_check(lua_State *L, int index, const char *key)
{
	lua_Integer count = 0;
	if (lua_isnoneornil(L, index))
		return 0;
	if (lua_getfield(L, index, key) != LUA_TNIL) {
		luaL_checktype(L, -1, LUA_TTABLE);
		count = luaL_len(L, -1);
		if (count > SM_VOLUMES_MAX)
			luaL_error(L, "option '%s': at most %d", key, SM_VOLUMES_MAX);
		for (lua_Integer i = 1; i <= count; i++) {
			struct sm_volume_wish unused;
			lua_geti(L, -1, i);
			luaL_checktype(L, -1, LUA_TTABLE);
			read_wish(L, &unused);
			lua_pop(L, 1);
		}
	}
	lua_pop(L, 1);
	return (unsigned)count;
}

int sm_lua_volumes_copy(lua_State *L, int index, const char *key, struct sm_volume_wishes *ret, struct sm_error *err)
{
	int code = 0;
	if (lua_isnoneornil(L, index))
		return 0;
	if (lua_getfield(L, index, key) == LUA_TTABLE) {
		lua_Integer count = (lua_Integer)lua_rawlen(L, -1);
		for (lua_Integer i = 1; i <= count && code == 0; i++) {
			struct sm_volume_wish wish;
			lua_rawgeti(L, -1, i);
			read_wish(L, &wish);
			code = sm_volume_wishes_add(ret, &wish, err);
			lua_pop(L, 1);
		}
	}
	lua_pop(L, 1);
	return code;
}

/* ---- into a machine that is there --------------------------------------------------------------------------- */

struct give {
	struct sm_control *control; /* a reference */
	bool give, agent;
	int timeout_ms;
	struct sm_volume_wishes wishes;
};

static void give_free(void *arg)
{
	struct give *give = arg;
	sm_control_close(give->control);
	sm_volume_wishes_done(&give->wishes);
	free(give);
}

static int give_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct give *give = arg;
	const struct sm_agent_wait wait = { .timeout_ms = give->timeout_ms, .cancel = sm_op_cancel_flag(op) };
	return give->give ? sm_volume_wishes_give(give->control, &give->wishes, give->agent, &wait, err)
	                  : sm_volume_wishes_mount(give->control, &give->wishes, &wait, err);
}

static int push_true(lua_State *L, void *arg)
{
	(void)arg;
	lua_pushboolean(L, true);
	return 1;
}

static int begin(lua_State *L, bool new)
{
	static const char *const known[] = { "volumes", "agent", "timeout_ms", NULL };
	const struct sm_lua_vm_parts *parts = sm_lua_vm_check(L, 1);
	sm_lua_options_check(L, 2, known);
	sm_lua_volumes_check(L, 2, "volumes");
	bool agent = sm_lua_option_boolean(L, 2, "agent", false);
	lua_Integer timeout_ms = sm_lua_option_integer(L, 2, "timeout_ms", -1);
	struct give *give = calloc(1, sizeof *give);
	if (!give)
		return sm_lua_fail(L, ENOMEM, NULL);
	give->control = sm_control_ref(parts->control);
	give->give = new;
	give->agent = agent;
	give->timeout_ms = timeout_ms < 0 || timeout_ms > INT_MAX ? -1 : (int)timeout_ms;
	struct sm_error err = { 0 };
	int code = sm_lua_volumes_copy(L, 2, "volumes", &give->wishes, &err);
	if (code < 0) {
		give_free(give);
		return sm_lua_fail(L, code, &err);
	}
	return sm_lua_op(L, give_run, give, give_free, push_true, 1);
}

static int volumes_mount_begin(lua_State *L)
{
	return begin(L, false);
}

static int volumes_give_begin(lua_State *L)
{
	return begin(L, true);
}

/* ---- what they hold ----------------------------------------------------------------------------------------- */

struct stamp {
	struct sm_volume_wishes wishes;
	struct stat st[SM_VOLUMES_MAX];
};

static void stamp_free(void *arg)
{
	struct stamp *stamp = arg;
	sm_volume_wishes_done(&stamp->wishes);
	free(stamp);
}

static int stamp_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	(void)op;
	struct stamp *stamp = arg;
	struct sm_volume *volumes;
	int code = sm_volume_wishes_open(&stamp->wishes, &volumes, err);
	if (code < 0)
		return code;
	for (unsigned i = 0; i < stamp->wishes.count && code >= 0; i++)
		if (fstat(volumes[i].fd, &stamp->st[i]) < 0)
			code = sm_error_sys(err, errno, "volume %s", stamp->wishes.list[i].source.path);
	sm_volume_wishes_close(volumes, stamp->wishes.count);
	return code;
}

static int stamp_push(lua_State *L, void *arg)
{
	const struct stamp *stamp = arg;
	lua_createtable(L, (int)stamp->wishes.count, 0);
	for (unsigned i = 0; i < stamp->wishes.count; i++) {
		const struct stat *st = &stamp->st[i];
		const struct sm_volume_wish *wish = &stamp->wishes.list[i];
		luaL_Buffer out;
		char text[128];
		luaL_buffinit(L, &out);
		snprintf(text, sizeof text, "%llu %llu %lld %lld.%09ld %lld.%09ld %d %d ",
		         (unsigned long long)st->st_dev, (unsigned long long)st->st_ino, (long long)st->st_size,
		         (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, (long long)st->st_ctim.tv_sec,
		         st->st_ctim.tv_nsec, wish->source.readonly, wish->source.format);
		luaL_addstring(&out, text);
		luaL_addstring(&out, wish->guest ? wish->guest : "");
		luaL_pushresult(&out);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	return 1;
}

/* volumes_stamp_begin{volumes=}: each is there afterwards; a list of strings that change with what is in them. */
static int volumes_stamp_begin(lua_State *L)
{
	sm_lua_volumes_check(L, 1, "volumes");
	struct stamp *stamp = calloc(1, sizeof *stamp);
	if (!stamp)
		return sm_lua_fail(L, ENOMEM, NULL);
	struct sm_error err = { 0 };
	int code = sm_lua_volumes_copy(L, 1, "volumes", &stamp->wishes, &err);
	if (code < 0) {
		stamp_free(stamp);
		return sm_lua_fail(L, code, &err);
	}
	return sm_lua_op(L, stamp_run, stamp, stamp_free, stamp_push, 0);
}

void sm_lua_volumes_open(lua_State *L);

void sm_lua_volumes_open(lua_State *L)
{
	lua_pushcfunction(L, volumes_stamp_begin);
	lua_setfield(L, -2, "volumes_stamp_begin");
}

const luaL_Reg sm_lua_vm_volumes_methods[] = {
	{ "volumes_mount_begin", volumes_mount_begin },
	{ "volumes_give_begin", volumes_give_begin },
	{ NULL, NULL },
};
