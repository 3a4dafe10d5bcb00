/* The snapshot userdata: core.snapshot_open_begin(path, {verify=, sealed=, prefetch=}), snapshot:restore_begin{count=,
 * transport=, device=}. */
#include "lua/snapshot.h"

#include "base/fd.h"
#include "lua/identity.h"
#include "lua/mounts.h"
#include "lua/plan.h"
#include "lua/vm.h"
#include "lua/volumes.h"
#include "pool/restore.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct snapshot {
	struct sm_lua_handle handle;
	struct sm_snapshot *snapshot;
};

static void snapshot_close(void *payload)
{
	struct snapshot *handle = payload;
	sm_snapshot_unref(handle->snapshot);
}

static void snapshot_describe(lua_State *L, void *payload)
{
	struct snapshot *handle = payload;
	lua_pushfstring(L, "supermachine.snapshot (%s)", sm_snapshot_path(handle->snapshot));
}

static const struct sm_lua_class snapshot_class;

struct sm_snapshot *sm_lua_snapshot_check(lua_State *L, int index)
{
	struct snapshot *handle = sm_lua_check(L, index, &snapshot_class);
	return handle->snapshot;
}

static int snapshot_path(lua_State *L)
{
	lua_pushstring(L, sm_snapshot_path(sm_lua_snapshot_check(L, 1)));
	return 1;
}

static int snapshot_plan(lua_State *L)
{
	sm_lua_plan_push(L, sm_snapshot_plan(sm_lua_snapshot_check(L, 1)));
	return 1;
}

static int snapshot_metadata(lua_State *L)
{
	size_t len;
	const void *metadata = sm_snapshot_metadata(sm_lua_snapshot_check(L, 1), &len);
	lua_pushlstring(L, metadata ? metadata : "", len);
	return 1;
}

static int snapshot_ram_bytes(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)sm_snapshot_ram_bytes(sm_lua_snapshot_check(L, 1)));
	return 1;
}

/* The snapshot that it leans on; nothing when it is whole. */
static int snapshot_parent(lua_State *L)
{
	lua_pushstring(L, sm_snapshot_parent(sm_lua_snapshot_check(L, 1)));
	return 1;
}

static void push_extents(lua_State *L, const struct sm_memory_extents *extents)
{
	lua_createtable(L, (int)extents->count, 0);
	for (size_t i = 0; i < extents->count; i++) {
		lua_createtable(L, 0, 2);
		lua_pushinteger(L, (lua_Integer)extents->list[i].offset);
		lua_setfield(L, -2, "offset");
		lua_pushinteger(L, (lua_Integer)extents->list[i].bytes);
		lua_setfield(L, -2, "bytes");
		lua_seti(L, -2, (lua_Integer)i + 1);
	}
}

/* A list of { offset =, bytes = } in the RAM file, and in its field `written` those that were written to; nil and why
 * there is none. */
static int snapshot_working_set(lua_State *L)
{
	const struct sm_memory_touched *touched;
	struct sm_error err = { 0 };
	int code = sm_snapshot_working_set(sm_lua_snapshot_check(L, 1), &touched, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	push_extents(L, &touched->all);
	push_extents(L, &touched->written);
	lua_setfield(L, -2, "written");
	return 1;
}

/* ---- restore ------------------------------------------------------------------------------------------------ */

struct restore {
	struct sm_snapshot *snapshot;
	enum sm_control_transport transport;
	char *device;
	bool resume, watched;
	struct sm_lua_identity identity;
	struct sm_mounts_wish mounts;
	struct sm_volume_wishes volumes;
	unsigned count;
	struct sm_control **controls;
	struct sm_lua_vm_parts parts[]; /* `count` of them */
};

static void restore_free(void *arg)
{
	struct restore *restore = arg;
	for (unsigned i = 0; i < restore->count; i++)
		sm_lua_vm_parts_done(&restore->parts[i]);
	sm_lua_identity_done(&restore->identity);
	sm_mounts_wish_done(&restore->mounts);
	sm_volume_wishes_done(&restore->volumes);
	sm_snapshot_unref(restore->snapshot);
	free(restore->controls);
	free(restore->device);
	free(restore);
}

static int restore_all(struct restore *restore, const struct sm_restore_options *options, const atomic_bool *cancel,
                       struct sm_error *err)
{
	restore->controls = calloc(restore->count, sizeof(struct sm_control *));
	if (!restore->controls)
		return sm_error_set(err, ENOMEM, "%u machines: out of memory", restore->count);
	return sm_restore_many(restore->snapshot, options, restore->count, cancel, restore->controls, err);
}

static int copy_sources(const struct restore *restore, struct sm_sources *to, struct sm_error *err)
{
	int code = sm_sources_copy_disks(sm_snapshot_sources(restore->snapshot), to, err);
	if (code >= 0)
		code = sm_source_mounts_copy(&restore->mounts.bound, &to->mounts, err);
	return code < 0 ? code : sm_source_mounts_copy(&restore->mounts.added, &to->mounts, err);
}

static int restore_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct restore *restore = arg;
	int hv_fd SM_FD_CLEANUP = sm_sources_open_hv(restore->device, err);
	if (hv_fd < 0)
		return hv_fd;
	const struct sm_restore_options options = {
		.transport = restore->transport,
		.hv_fd = hv_fd,
		.paused = !restore->resume,
		.watched = restore->watched,
		.mounts = &restore->mounts,
		.volumes = &restore->volumes,
		.identity = restore->identity.options,
	};
	struct sm_lua_vm_parts *parts = restore->parts;
	int code = restore->count == 1 ? sm_restore(restore->snapshot, &options, &parts->control, err)
	                               : restore_all(restore, &options, sm_op_cancel_flag(op), err);
	for (unsigned i = 0; i < restore->count && code >= 0; i++) {
		if (restore->controls)
			parts[i].control = restore->controls[i];
		parts[i].origin = sm_snapshot_ref(restore->snapshot);
	}
	for (unsigned i = 0; i < restore->count && code >= 0; i++)
		code = copy_sources(restore, &parts[i].sources, err);
	sm_lua_identity_done(&restore->identity);
	return code;
}

static int restore_push(lua_State *L, void *arg)
{
	struct restore *restore = arg;
	lua_createtable(L, (int)restore->count, 0);
	for (unsigned i = 0; i < restore->count; i++) {
		sm_lua_vm_push(L, &restore->parts[i], 0);
		lua_seti(L, -2, (lua_Integer)i + 1);
	}
	return 1;
}

/* restore_begin{count = 1, transport=, device=, resume=, learn=, and lua/identity.h's} -> a list of vms: without resume
 * they are paused and have no new identity yet. */
static int snapshot_restore_begin(lua_State *L)
{
	static const char *const known[] = { "count", "transport", "device",  "resume",
		                             "learn", "mounts",    "volumes", SM_LUA_IDENTITY_OPTIONS,
		                             NULL };
	struct sm_snapshot *snapshot = sm_lua_snapshot_check(L, 1);
	sm_lua_options_check(L, 2, known);
	lua_Integer count = sm_lua_option_integer(L, 2, "count", 1);
	luaL_argcheck(L, count >= 1 && count <= SM_RESTORE_MANY_MAX, 2, "from 1 to 4096 machines");
	enum sm_control_transport transport = sm_lua_vm_transport(L, 2);
	const char *device = sm_lua_option_string(L, 2, "device", NULL);
	bool resume = sm_lua_option_boolean(L, 2, "resume", false);
	bool watched = sm_lua_option_boolean(L, 2, "learn", false);
	unsigned nmounts;
	const struct sm_source_mount *mounts = sm_lua_mounts_read(L, 2, "mounts", &nmounts);
	sm_lua_volumes_check(L, 2, "volumes");
	struct sm_lua_identity identity;
	int code = sm_lua_identity_read(L, 2, &identity);
	if (code < 0)
		return sm_lua_fail(L, code, NULL);

	struct restore *restore = calloc(1, sizeof *restore + (size_t)count * sizeof *restore->parts);
	if (!restore) {
		sm_lua_identity_done(&identity);
		return sm_lua_fail(L, ENOMEM, NULL);
	}
	restore->snapshot = sm_snapshot_ref(snapshot);
	restore->transport = transport;
	restore->resume = resume;
	restore->watched = watched;
	restore->identity = identity;
	restore->count = (unsigned)count;
	for (unsigned i = 0; i < restore->count; i++)
		restore->parts[i].ready_fd = -1;
	restore->device = device ? strdup(device) : NULL;
	struct sm_error err = { 0 };
	code = device && !restore->device ? sm_error_set(&err, ENOMEM, "out of memory") : 0;
	if (code >= 0)
		code = sm_mounts_wish(&sm_snapshot_sources(snapshot)->mounts, mounts, nmounts, &restore->mounts, &err);
	if (code >= 0)
		code = sm_lua_volumes_copy(L, 2, "volumes", &restore->volumes, &err);
	if (code < 0) {
		restore_free(restore);
		return sm_lua_fail(L, code, &err);
	}
	return sm_lua_op(L, restore_run, restore, restore_free, restore_push, 1);
}

/* ---- flatten ------------------------------------------------------------------------------------------------ */

struct flatten {
	struct sm_snapshot *snapshot;
	char *path;
	struct sm_snapshot_times times;
};

static void flatten_free(void *arg)
{
	struct flatten *flatten = arg;
	sm_snapshot_unref(flatten->snapshot);
	free(flatten->path);
	free(flatten);
}

static int flatten_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	(void)op;
	struct flatten *flatten = arg;
	return sm_snapshot_flatten(flatten->snapshot, flatten->path, &flatten->times, err);
}

static int flatten_push(lua_State *L, void *arg)
{
	const struct flatten *flatten = arg;
	return sm_lua_vm_push_saved(L, &flatten->times);
}

static int snapshot_flatten_begin(lua_State *L)
{
	struct sm_snapshot *snapshot = sm_lua_snapshot_check(L, 1);
	const char *path = luaL_checkstring(L, 2);
	struct flatten *flatten = calloc(1, sizeof *flatten);
	if (!flatten)
		return sm_lua_fail(L, ENOMEM, NULL);
	flatten->snapshot = sm_snapshot_ref(snapshot);
	flatten->path = strdup(path);
	if (!flatten->path) {
		flatten_free(flatten);
		return sm_lua_fail(L, ENOMEM, NULL);
	}
	return sm_lua_op(L, flatten_run, flatten, flatten_free, flatten_push, 1);
}

/* ---- open --------------------------------------------------------------------------------------------------- */

struct opening {
	char *path;
	struct sm_snapshot_open how;
	struct sm_snapshot *snapshot;
};

static void opening_free(void *arg)
{
	struct opening *opening = arg;
	sm_snapshot_unref(opening->snapshot);
	free(opening->path);
	free(opening);
}

static int opening_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	(void)op;
	struct opening *opening = arg;
	return sm_snapshot_open(opening->path, &opening->how, &opening->snapshot, err);
}

static int opening_push(lua_State *L, void *arg)
{
	struct opening *opening = arg;
	struct snapshot *handle = sm_lua_new(L, &snapshot_class);
	handle->snapshot = opening->snapshot;
	opening->snapshot = NULL;
	handle->handle.open = true;
	return 1;
}

static int snapshot_open_begin(lua_State *L)
{
	static const char *const known[] = { "verify", "sealed", "prefetch", NULL };
	const char *path = luaL_checkstring(L, 1);
	sm_lua_options_check(L, 2, known);
	const struct sm_snapshot_open how = {
		.verify = sm_lua_option_boolean(L, 2, "verify", false),
		.sealed = sm_lua_option_boolean(L, 2, "sealed", false),
		.prefetch = sm_lua_option_boolean(L, 2, "prefetch", true),
	};
	struct opening *opening = calloc(1, sizeof *opening);
	if (!opening)
		return sm_lua_fail(L, ENOMEM, NULL);
	opening->how = how;
	opening->path = strdup(path);
	if (!opening->path) {
		opening_free(opening);
		return sm_lua_fail(L, ENOMEM, NULL);
	}
	return sm_lua_op(L, opening_run, opening, opening_free, opening_push, 0);
}

static const luaL_Reg methods[] = {
	{ "path", snapshot_path },
	{ "plan", snapshot_plan },
	{ "metadata_text", snapshot_metadata },
	{ "ram_bytes", snapshot_ram_bytes },
	{ "parent", snapshot_parent },
	{ "working_set", snapshot_working_set },
	{ "restore_begin", snapshot_restore_begin },
	{ "flatten_begin", snapshot_flatten_begin },
	{ NULL, NULL },
};
static const struct sm_lua_class snapshot_class = {
	.name = "supermachine.snapshot",
	.size = sizeof(struct snapshot),
	.methods = methods,
	.close = snapshot_close,
	.describe = snapshot_describe,
};

void sm_lua_snapshot_open(lua_State *L);

void sm_lua_snapshot_open(lua_State *L)
{
	sm_lua_class_register(L, &snapshot_class);
	lua_pushcfunction(L, snapshot_open_begin);
	lua_setfield(L, -2, "snapshot_open_begin");
}
