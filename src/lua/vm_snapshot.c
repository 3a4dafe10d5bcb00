/* To a snapshot and back to one: vm:snapshot_begin(path, metadata), vm:learn_begin(), vm:reset_begin{resume=, ...},
 * vm:identity_begin{...}. */
#include "lua/identity.h"
#include "lua/vm.h"
#include "snapshot/snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void set_integer(lua_State *L, const char *name, uint64_t value)
{
	lua_pushinteger(L, (lua_Integer)value);
	lua_setfield(L, -2, name);
}

/* ---- snapshot ----------------------------------------------------------------------------------------------- */

struct save {
	struct sm_control *control; /* a reference, and a copy of the list: the vm may be closed meanwhile */
	struct sm_sources sources;
	struct sm_snapshot *parent; /* NULL: all of it is stored */
	char *path, *metadata;
	size_t metadata_len;
	struct sm_snapshot_times times;
};

static void save_free(void *arg)
{
	struct save *save = arg;
	sm_control_close(save->control);
	sm_sources_done(&save->sources);
	sm_snapshot_unref(save->parent);
	free(save->path);
	free(save->metadata);
	free(save);
}

static int save_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	(void)op;
	struct save *save = arg;
	return sm_snapshot_save(save->control, &save->sources, save->parent, save->metadata, save->metadata_len,
	                        save->path, &save->times, err);
}

int sm_lua_vm_push_saved(lua_State *L, const struct sm_snapshot_times *times)
{
	lua_createtable(L, 0, 8);
	set_integer(L, "capture_us", times->capture_us);
	set_integer(L, "hash_us", times->hash_us);
	set_integer(L, "sync_us", times->sync_us);
	set_integer(L, "total_us", times->total_us);
	set_integer(L, "ram_bytes", times->ram_bytes);
	set_integer(L, "pause_us", times->pause_us);
	set_integer(L, "volumes_us", times->volumes_us);
	set_integer(L, "written_bytes", times->written_bytes);
	set_integer(L, "rounds", times->rounds);
	return 1;
}

static int save_push(lua_State *L, void *arg)
{
	const struct save *save = arg;
	return sm_lua_vm_push_saved(L, &save->times);
}

/* snapshot_begin(path, metadata, diff): the machine may run; diff: only what differs from what it was restored from. */
static int vm_snapshot_begin(lua_State *L)
{
	const struct sm_lua_vm_parts *parts = sm_lua_vm_check(L, 1);
	const char *path = luaL_checkstring(L, 2);
	size_t len;
	const char *metadata = luaL_optlstring(L, 3, "", &len);
	bool diff = lua_toboolean(L, 4);
	struct save *save = calloc(1, sizeof *save);
	if (!save)
		return sm_lua_fail(L, ENOMEM, NULL);
	save->control = sm_control_ref(parts->control);
	save->path = strdup(path);
	save->metadata = malloc(len + 1);
	save->metadata_len = len;
	struct sm_error err = { 0 };
	int code = 0;
	if (diff && parts->origin)
		save->parent = sm_snapshot_ref(parts->origin);
	else if (diff)
		code = sm_error_set(&err, EINVAL, "snapshot %s: the machine was booted: it differs from no snapshot",
		                    path);
	if (code >= 0)
		code = sm_sources_copy(&parts->sources, &save->sources, &err);
	if (code >= 0 && (!save->path || !save->metadata))
		code = sm_error_set(&err, ENOMEM, "out of memory");
	if (code < 0) {
		save_free(save);
		return sm_lua_fail(L, code, &err);
	}
	memcpy(save->metadata, metadata, len);
	return sm_lua_op(L, save_run, save, save_free, save_push, 1);
}

/* ---- the working set ---------------------------------------------------------------------------------------- */

struct learn {
	struct sm_control *control; /* a reference */
	struct sm_snapshot *snapshot;
};

static void learn_free(void *arg)
{
	struct learn *learn = arg;
	sm_control_close(learn->control);
	sm_snapshot_unref(learn->snapshot);
	free(learn);
}

static int learn_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	(void)op;
	struct learn *learn = arg;
	return sm_snapshot_learn(learn->snapshot, learn->control, err);
}

static int push_true(lua_State *L, void *arg)
{
	(void)arg;
	lua_pushboolean(L, true);
	return 1;
}

static int vm_learn_begin(lua_State *L)
{
	const struct sm_lua_vm_parts *parts = sm_lua_vm_check(L, 1);
	struct sm_error err = { 0 };
	if (!parts->origin) {
		int code = sm_error_set(&err, EINVAL, "working set: the machine was booted: it has no snapshot");
		return sm_lua_fail(L, code, &err);
	}
	struct learn *learn = calloc(1, sizeof *learn);
	if (!learn)
		return sm_lua_fail(L, ENOMEM, NULL);
	learn->control = sm_control_ref(parts->control);
	learn->snapshot = sm_snapshot_ref(parts->origin);
	return sm_lua_op(L, learn_run, learn, learn_free, push_true, 1);
}

/* ---- reset -------------------------------------------------------------------------------------------------- */

struct reset {
	struct sm_control *control; /* a reference */
	bool resume;
	struct sm_lua_identity identity;
	struct sm_control_reset result;
};

static void reset_free(void *arg)
{
	struct reset *reset = arg;
	sm_control_close(reset->control);
	sm_lua_identity_done(&reset->identity);
	free(reset);
}

static int reset_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	(void)op;
	struct reset *reset = arg;
	int code = sm_control_reset(reset->control, &reset->result, err);
	if (code >= 0 && reset->resume)
		code = sm_control_resume(reset->control, err);
	if (code >= 0 && reset->resume)
		code = sm_identity_renew(reset->control, &reset->identity.options, err);
	sm_lua_identity_done(&reset->identity);
	return code;
}

static int reset_push(lua_State *L, void *arg)
{
	const struct reset *reset = arg;
	lua_createtable(L, 0, 4);
	set_integer(L, "copied_bytes", reset->result.copied_bytes);
	set_integer(L, "dropped_bytes", reset->result.dropped_bytes);
	set_integer(L, "stop_us", reset->result.stop_us);
	set_integer(L, "memory_us", reset->result.memory_us);
	set_integer(L, "total_us", reset->result.total_us);
	return 1;
}

/* Everything that resets and the additions to an identity start with. */
static int reset_begin(lua_State *L, const char *const *known, sm_op_run run, sm_lua_push push)
{
	const struct sm_lua_vm_parts *parts = sm_lua_vm_check(L, 1);
	sm_lua_options_check(L, 2, known);
	bool resume = sm_lua_option_boolean(L, 2, "resume", false);
	struct sm_lua_identity identity;
	int code = sm_lua_identity_read(L, 2, &identity);
	if (code < 0)
		return sm_lua_fail(L, code, NULL);
	struct reset *reset = calloc(1, sizeof *reset);
	if (!reset) {
		sm_lua_identity_done(&identity);
		return sm_lua_fail(L, ENOMEM, NULL);
	}
	reset->control = sm_control_ref(parts->control);
	reset->resume = resume;
	reset->identity = identity;
	return sm_lua_op(L, run, reset, reset_free, push, 1);
}

/* Without resume it is left paused, without a new identity. */
static int vm_reset_begin(lua_State *L)
{
	static const char *const known[] = { "resume", SM_LUA_IDENTITY_OPTIONS, NULL };
	return reset_begin(L, known, reset_run, reset_push);
}

static int add_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	(void)op;
	struct reset *reset = arg;
	int code = sm_identity_add(reset->control, &reset->identity.options, err);
	sm_lua_identity_done(&reset->identity);
	return code;
}

/* Host name and secrets for a running machine. */
static int vm_identity_begin(lua_State *L)
{
	static const char *const known[] = { SM_LUA_IDENTITY_OPTIONS, NULL };
	return reset_begin(L, known, add_run, push_true);
}

const luaL_Reg sm_lua_vm_snapshot_methods[] = {
	{ "snapshot_begin", vm_snapshot_begin },
	{ "learn_begin", vm_learn_begin },
	{ "reset_begin", vm_reset_begin },
	{ "identity_begin", vm_identity_begin },
	{ NULL, NULL },
};
