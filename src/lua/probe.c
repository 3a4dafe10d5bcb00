/* What this host's KVM is worth, for Lua. */
#include "hv_kvm/probe.h"
#include "lua/support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct probe {
	char *path;
	struct sm_kvm_probe result;
};

static void probe_free(void *arg)
{
	struct probe *probe = arg;
	if (probe)
		free(probe->path);
	free(probe);
}

static struct probe *probe_new(const char *path)
{
	struct probe *probe = calloc(1, sizeof *probe);
	if (probe && !(probe->path = strdup(path))) {
		free(probe);
		probe = NULL;
	}
	return probe;
}

static int probe_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	(void)op;
	(void)err;
	struct probe *probe = arg;
	sm_kvm_probe(probe->path, &probe->result);
	return 0;
}

static int probe_push(lua_State *L, void *arg)
{
	const struct sm_kvm_probe *result = &((struct probe *)arg)->result;
	lua_createtable(L, 0, 9);
	lua_pushboolean(L, result->usable);
	lua_setfield(L, -2, "usable");
	lua_pushboolean(L, result->fit);
	lua_setfield(L, -2, "fit");
	lua_pushboolean(L, result->user_mode);
	lua_setfield(L, -2, "user_mode");
	lua_pushinteger(L, (lua_Integer)result->instructions_per_second);
	lua_setfield(L, -2, "instructions_per_second");
	lua_pushnumber(L, (lua_Number)result->exit_ns / 1000);
	lua_setfield(L, -2, "exit_us");
	lua_pushinteger(L, result->max_vcpus);
	lua_setfield(L, -2, "max_vcpus");
	lua_pushinteger(L, result->gpa_bits);
	lua_setfield(L, -2, "gpa_bits");
	lua_createtable(L, (int)result->nreasons, 0);
	for (unsigned i = 0; i < result->nreasons; i++) {
		lua_pushstring(L, result->reasons[i]);
		lua_rawseti(L, -2, i + 1);
	}
	lua_setfield(L, -2, "reasons");
	lua_createtable(L, 0, (int)result->ncapabilities);
	for (unsigned i = 0; i < result->ncapabilities; i++) {
		lua_pushinteger(L, result->capabilities[i].value);
		lua_setfield(L, -2, result->capabilities[i].name);
	}
	lua_setfield(L, -2, "capabilities");
	return 1;
}

/* core.kvm_probe_begin(path): finishes with {usable=, fit=, user_mode=, instructions_per_second=, exit_us=, max_vcpus=,
 * gpa_bits=, reasons={...}, capabilities={NAME=value}} */
static int core_kvm_probe_begin(lua_State *L)
{
	struct probe *probe = probe_new(luaL_checkstring(L, 1));
	if (!probe)
		return sm_lua_fail(L, ENOMEM, NULL);
	return sm_lua_op(L, probe_run, probe, probe_free, probe_push, 0);
}

/* core.kvm_probe(path): begin and finish. */
static int core_kvm_probe(lua_State *L)
{
	if (core_kvm_probe_begin(L) != 1)
		return 3;
	lua_getfield(L, -1, "finish");
	lua_insert(L, -2);
	lua_call(L, 1, 1);
	return 1;
}

void sm_lua_probe_open(lua_State *L);

void sm_lua_probe_open(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "kvm_probe_begin", core_kvm_probe_begin },
		{ "kvm_probe", core_kvm_probe },
		{ NULL, NULL },
	};
	luaL_setfuncs(L, functions, 0);
}
