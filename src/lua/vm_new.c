/* core.vm_begin(options): options -> plan and sources -> a paused machine. */
#include "agent/protocol.h"
#include "base/fd.h"
#include "lua/mounts.h"
#include "lua/plan.h"
#include "lua/vm.h"
#include "lua/volumes.h"
#include "plan/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct request {
	struct sm_plan_config config;
	struct sm_plan plan;
	enum sm_control_transport transport;
	char *cmdline, *cpu_disable, *device;
	bool agent;
	struct sm_volume_wishes volumes;
	struct sm_lua_vm_parts parts;
};

static void request_free(void *arg)
{
	struct request *request = arg;
	sm_lua_vm_parts_done(&request->parts);
	sm_volume_wishes_done(&request->volumes);
	free(request->cmdline);
	free(request->cpu_disable);
	free(request->device);
	free(request);
}

static int request_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	(void)op;
	struct request *request = arg;
	struct sm_lua_vm_parts *parts = &request->parts;

	int code = sm_plan_make(&request->config, &request->plan, err);
	if (code < 0)
		return code;
	int hv_fd SM_FD_CLEANUP = sm_sources_open_hv(request->device, err);
	if (hv_fd < 0)
		return hv_fd;
	struct sm_opened opened;
	code = sm_sources_open(&parts->sources, &opened, err);
	struct sm_volume *volumes = NULL;
	if (code >= 0 && (code = sm_volume_wishes_open(&request->volumes, &volumes, err)) < 0)
		sm_opened_done(&opened);
	if (code < 0)
		return code;
	const struct sm_control_build build = {
		.plan = &request->plan,
		.hv_fd = hv_fd,
		.kernel_fd = opened.kernel_fd,
		.initrd_fd = opened.initrd_fd,
		.state_fd = -1,
		.ndisks = opened.ndisks,
		.disks = opened.disks,
		.nvolumes = request->volumes.count,
		.volumes = volumes,
		.nmounts = opened.nmounts,
		.mounts = opened.mounts,
	};
	code = sm_control_open(request->transport, &build, &parts->control, err);
	sm_opened_done(&opened);
	sm_volume_wishes_close(volumes, request->volumes.count);
	if (code >= 0 && request->agent)
		code = sm_control_listen(parts->control, SM_AGENT_READY_PORT, &parts->ready_fd, err);
	return code;
}

static int request_push(lua_State *L, void *arg)
{
	struct request *request = arg;
	return sm_lua_vm_push(L, &request->parts, 0);
}

/* Copy an option's string into *ret; raises nothing. */
static bool copy(const char *text, char **ret)
{
	*ret = text ? strdup(text) : NULL;
	return !text || *ret;
}

/* disks: a list; each a path, or a list of paths of EROFS layers for one composite disk.  Types are checked here,
 * before anything is allocated. */
static unsigned check_disks(lua_State *L, int index)
{
	if (lua_isnoneornil(L, index) || lua_getfield(L, index, "disks") == LUA_TNIL)
		return 0;
	luaL_checktype(L, -1, LUA_TTABLE);
	lua_Integer count = luaL_len(L, -1);
	for (lua_Integer i = 1; i <= count; i++) {
		int type = lua_geti(L, -1, i);
		if (type == LUA_TTABLE) {
			for (lua_Integer j = 1; j <= luaL_len(L, -1); j++) {
				if (lua_geti(L, -1, j) != LUA_TSTRING)
					luaL_error(L, "option 'disks'[%d][%d]: string expected", (int)i, (int)j);
				lua_pop(L, 1);
			}
		} else if (type != LUA_TSTRING) {
			luaL_error(L, "option 'disks'[%d]: path or list of paths expected", (int)i);
		}
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
	return (unsigned)count;
}

static int add_disks(lua_State *L, int index, unsigned count, struct sm_sources *sources, struct sm_error *err)
{
	int code = 0;
	if (count == 0)
		return 0;
	lua_getfield(L, index, "disks");
	for (unsigned i = 1; i <= count && code == 0; i++) {
		bool composite = lua_rawgeti(L, -1, i) == LUA_TTABLE;
		unsigned npaths = composite ? (unsigned)lua_rawlen(L, -1) : 1;
		char **paths = calloc(npaths ? npaths : 1, sizeof *paths);
		if (!paths)
			code = sm_error_set(err, ENOMEM, "disks: out of memory");
		/* Strings stay alive in the options table. */
		for (unsigned j = 0; paths && composite && j < npaths; j++) {
			lua_rawgeti(L, -1, (lua_Integer)j + 1);
			paths[j] = (char *)(uintptr_t)lua_tostring(L, -1);
			lua_pop(L, 1);
		}
		if (paths && !composite)
			paths[0] = (char *)(uintptr_t)lua_tostring(L, -1);
		if (paths)
			code = sm_sources_add_disk(sources, composite, paths, npaths, err);
		free(paths);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
	return code;
}

enum sm_control_transport sm_lua_vm_transport(lua_State *L, int index)
{
	const char *name = sm_lua_option_string(L, index, "transport", "direct");
	if (!strcmp(name, "worker"))
		return SM_CONTROL_WORKER;
	if (strcmp(name, "direct"))
		luaL_error(L, "option 'transport': 'direct' or 'worker' expected, got '%s'", name);
	return SM_CONTROL_DIRECT;
}

static int vm_begin(lua_State *L)
{
	static const char *const known[] = {
		"vcpus",       "memory_mib", "kernel",  "initrd",  "disks",       "volume_slots",
		"mount_slots", "net",        "dax_mib", "cmdline", "cpu_disable", "transport",
		"agent",       "device",     "mounts",  "volumes", NULL,
	};
	lua_settop(L, 1);
	sm_lua_options_check(L, 1, known);
	struct sm_plan_config config;
	sm_lua_plan_read(L, 1, &config);
	enum sm_control_transport transport = sm_lua_vm_transport(L, 1);
	unsigned ndisks = check_disks(L, 1);
	config.blocks = ndisks;
	bool agent = sm_lua_option_boolean(L, 1, "agent", false);
	const char *kernel = sm_lua_option_string(L, 1, "kernel", NULL);
	const char *initrd = sm_lua_option_string(L, 1, "initrd", NULL);
	const char *device = sm_lua_option_string(L, 1, "device", NULL);
	if (!kernel)
		return luaL_error(L, "option 'kernel' is missing");
	unsigned nmounts;
	const struct sm_source_mount *mounts = sm_lua_mounts_read(L, 1, "mounts", &nmounts);
	config.mounts = nmounts;
	config.volumes = sm_lua_volumes_check(L, 1, "volumes");

	struct request *request = calloc(1, sizeof *request);
	if (!request)
		return sm_lua_fail(L, ENOMEM, NULL);
	request->transport = transport;
	request->agent = agent;
	request->parts.ready_fd = -1;
	struct sm_error err = { 0 };
	int code = 0;
	if (!copy(config.cmdline, &request->cmdline) || !copy(config.cpu_disable, &request->cpu_disable) ||
	    !copy(device, &request->device))
		code = sm_error_set(&err, ENOMEM, "out of memory");
	config.cmdline = request->cmdline;
	config.cpu_disable = request->cpu_disable;
	request->config = config;
	if (code >= 0)
		code = sm_sources_set_kernel(&request->parts.sources, kernel, &err);
	if (code >= 0 && initrd)
		code = sm_sources_set_initrd(&request->parts.sources, initrd, &err);
	if (code >= 0)
		code = add_disks(L, 1, ndisks, &request->parts.sources, &err);
	for (unsigned i = 0; i < nmounts && code >= 0; i++)
		code = sm_source_mounts_add(&request->parts.sources.mounts, &mounts[i], &err);
	if (code >= 0)
		code = sm_lua_volumes_copy(L, 1, "volumes", &request->volumes, &err);
	if (code < 0) {
		request_free(request);
		return sm_lua_fail(L, code, &err);
	}
	return sm_lua_op(L, request_run, request, request_free, request_push, 0);
}

void sm_lua_vm_new_open(lua_State *L);

void sm_lua_vm_new_open(lua_State *L)
{
	lua_pushcfunction(L, vm_begin);
	lua_setfield(L, -2, "vm_begin");
}
