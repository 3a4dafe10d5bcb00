/* The pool userdata: core.pool_new(snapshot, options), pool:acquire_ready(), pool:acquire_begin(timeout_ms),
 * pool:drain_begin(timeout_ms). */
#include "pool/pool.h"

#include "base/fd.h"
#include "lua/identity.h"
#include "lua/mounts.h"
#include "lua/snapshot.h"
#include "lua/vm.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct pool {
	struct sm_lua_handle handle;
	struct sm_pool *pool;
	struct sm_snapshot *snapshot;
};

static void pool_close(void *payload)
{
	struct pool *handle = payload;
	sm_pool_close(handle->pool);
	sm_snapshot_unref(handle->snapshot);
}

static void pool_describe(lua_State *L, void *payload)
{
	struct pool *handle = payload;
	struct sm_pool_stats stats;
	sm_pool_stats(handle->pool, &stats);
	lua_pushfstring(L, "supermachine.pool (%d ready, %d in use)", (int)stats.ready, (int)stats.in_use);
}

static const struct sm_lua_class pool_class;

static int pool_stats(lua_State *L)
{
	struct pool *handle = sm_lua_check(L, 1, &pool_class);
	struct sm_pool_stats stats;
	sm_pool_stats(handle->pool, &stats);
	const struct {
		const char *name;
		uint64_t value;
	} rows[] = {
		{ "ready", stats.ready },
		{ "in_use", stats.in_use },
		{ "recycling", stats.recycling },
		{ "waiting", stats.waiting },
		{ "restored", stats.restored },
		{ "recycled", stats.recycled },
		{ "handed_out", stats.handed_out },
		{ "failed", stats.failed },
		{ "restore_us", stats.restore_us },
		{ "reset_p50_us", stats.reset_p50_us },
		{ "reset_p99_us", stats.reset_p99_us },
		{ "recycle_p50_us", stats.recycle_p50_us },
		{ "recycle_p99_us", stats.recycle_p99_us },
	};
	lua_createtable(L, 0, sizeof rows / sizeof *rows);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		lua_pushinteger(L, (lua_Integer)rows[i].value);
		lua_setfield(L, -2, rows[i].name);
	}
	return 1;
}

/* ---- acquire ------------------------------------------------------------------------------------------------ */

struct acquire {
	struct sm_pool *pool;
	struct sm_snapshot *snapshot;
	int timeout_ms;
	struct sm_lua_vm_parts parts;
};

static void acquire_free(void *arg)
{
	struct acquire *acquire = arg;
	sm_lua_vm_parts_done(&acquire->parts);
	sm_snapshot_unref(acquire->snapshot);
	sm_pool_unref(acquire->pool);
	free(acquire);
}

static int copy_sources(const struct sm_snapshot *snapshot, const struct sm_pool *pool, struct sm_sources *to,
                        struct sm_error *err)
{
	const struct sm_mounts_wish *mounts = sm_pool_mounts(pool);
	int code = sm_sources_copy_disks(sm_snapshot_sources(snapshot), to, err);
	if (code >= 0)
		code = sm_source_mounts_copy(&mounts->bound, &to->mounts, err);
	return code < 0 ? code : sm_source_mounts_copy(&mounts->added, &to->mounts, err);
}

static int acquire_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct acquire *acquire = arg;
	struct sm_lua_vm_parts *parts = &acquire->parts;
	int code = sm_pool_acquire(acquire->pool, acquire->timeout_ms, sm_op_cancel_fd(op), &parts->control, err);
	if (code < 0)
		return code;
	parts->pool = acquire->pool;
	parts->origin = sm_snapshot_ref(acquire->snapshot);
	return copy_sources(acquire->snapshot, acquire->pool, &parts->sources, err);
}

static int acquire_push(lua_State *L, void *arg)
{
	struct acquire *acquire = arg;
	return sm_lua_vm_push(L, &acquire->parts, 0);
}

/* A machine that is ready, at once; nil: none is. */
static int pool_acquire_ready(lua_State *L)
{
	struct pool *handle = sm_lua_check(L, 1, &pool_class);
	struct sm_lua_vm_parts parts = { .ready_fd = -1 };
	struct sm_error err = { 0 };
	if (sm_pool_try_acquire(handle->pool, &parts.control) < 0)
		return 0;
	/* From here on it goes back by itself. */
	parts.pool = handle->pool;
	parts.origin = sm_snapshot_ref(handle->snapshot);
	int code = copy_sources(handle->snapshot, handle->pool, &parts.sources, &err);
	if (code < 0) {
		sm_lua_vm_parts_done(&parts);
		return sm_lua_fail(L, code, &err);
	}
	return sm_lua_vm_push(L, &parts, 0);
}

static int check_timeout(lua_State *L, int index)
{
	lua_Integer timeout_ms = luaL_optinteger(L, index, -1);
	return timeout_ms < 0 ? -1 : timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms;
}

static int pool_acquire_begin(lua_State *L)
{
	struct pool *handle = sm_lua_check(L, 1, &pool_class);
	int timeout_ms = check_timeout(L, 2);
	struct acquire *acquire = calloc(1, sizeof *acquire);
	if (!acquire)
		return sm_lua_fail(L, ENOMEM, NULL);
	acquire->pool = sm_pool_ref(handle->pool);
	acquire->snapshot = sm_snapshot_ref(handle->snapshot);
	acquire->timeout_ms = timeout_ms;
	acquire->parts.ready_fd = -1;
	return sm_lua_op(L, acquire_run, acquire, acquire_free, acquire_push, 1);
}

/* ---- drain -------------------------------------------------------------------------------------------------- */

struct drain {
	struct sm_pool *pool;
	int timeout_ms;
};

static void drain_free(void *arg)
{
	struct drain *drain = arg;
	sm_pool_unref(drain->pool);
	free(drain);
}

static int drain_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct drain *drain = arg;
	return sm_pool_drain(drain->pool, drain->timeout_ms, sm_op_cancel_fd(op), err);
}

static int drain_push(lua_State *L, void *arg)
{
	(void)arg;
	lua_pushboolean(L, true);
	return 1;
}

static int pool_drain_begin(lua_State *L)
{
	struct pool *handle = sm_lua_check(L, 1, &pool_class);
	int timeout_ms = check_timeout(L, 2);
	struct drain *drain = calloc(1, sizeof *drain);
	if (!drain)
		return sm_lua_fail(L, ENOMEM, NULL);
	drain->pool = sm_pool_ref(handle->pool);
	drain->timeout_ms = timeout_ms;
	return sm_lua_op(L, drain_run, drain, drain_free, drain_push, 1);
}

/* ---- new ---------------------------------------------------------------------------------------------------- */

static unsigned count(lua_Integer value)
{
	return value < 0 || value > UINT_MAX ? UINT_MAX : (unsigned)value;
}

static enum sm_pool_reset check_reset(lua_State *L, int index)
{
	static const char *const names[] = {
		[SM_POOL_RESET_ALWAYS] = "always",
		[SM_POOL_RESET_NEVER] = "never",
		[SM_POOL_RESET_CLOSE] = "close",
	};
	const char *name = sm_lua_option_string(L, index, "reset", "always");
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (!strcmp(name, names[i]))
			return (enum sm_pool_reset)i;
	return (enum sm_pool_reset)luaL_error(L, "option 'reset': always, never or close expected, got '%s'", name);
}

/* pool_new(snapshot, {min=, max=, transport=, reset=, idle_ms=, device=, agent=, timeout_ms=, on_restore=}): never
 * blocks; the machines are made in the background. */
static int pool_new(lua_State *L)
{
	static const char *const known[] = { "min",   "max",        "transport",  "reset",  "idle_ms", "device",
		                             "agent", "timeout_ms", "on_restore", "mounts", NULL };
	struct sm_snapshot *snapshot = sm_lua_snapshot_check(L, 1);
	sm_lua_options_check(L, 2, known);
	const lua_Integer min = sm_lua_option_integer(L, 2, "min", 1);
	const lua_Integer idle_ms = sm_lua_option_integer(L, 2, "idle_ms", 60000);
	struct sm_pool_options options = {
		.min = count(min),
		.max = count(sm_lua_option_integer(L, 2, "max", min > 16 ? min : 16)),
		.transport = sm_lua_vm_transport(L, 2),
		.reset = check_reset(L, 2),
		.idle_ms = idle_ms < 0 || idle_ms > INT_MAX ? -1 : (int)idle_ms,
	};
	const char *device = sm_lua_option_string(L, 2, "device", NULL);

	unsigned nmounts;
	const struct sm_source_mount *mounts = sm_lua_mounts_read(L, 2, "mounts", &nmounts);
	struct pool *handle = sm_lua_new(L, &pool_class);
	struct sm_lua_identity identity;
	struct sm_mounts_wish wish = { 0 };
	struct sm_error err = { 0 };
	int code = sm_lua_identity_read(L, 2, &identity);
	if (code < 0)
		return sm_lua_fail(L, code, NULL);
	options.identity = identity.options;
	int hv_fd = sm_sources_open_hv(device, &err);
	code = hv_fd;
	if (code >= 0)
		code = sm_mounts_wish(&sm_snapshot_sources(snapshot)->mounts, mounts, nmounts, &wish, &err);
	options.mounts = &wish;
	if (code >= 0)
		code = sm_pool_new(snapshot, hv_fd, &options, &handle->pool, &err);
	sm_lua_identity_done(&identity);
	sm_mounts_wish_done(&wish);
	sm_fd_close(&hv_fd);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	handle->snapshot = sm_snapshot_ref(snapshot);
	handle->handle.open = true;
	return 1;
}

static const luaL_Reg methods[] = {
	{ "stats", pool_stats },
	{ "acquire_ready", pool_acquire_ready },
	{ "acquire_begin", pool_acquire_begin },
	{ "drain_begin", pool_drain_begin },
	{ NULL, NULL },
};
static const struct sm_lua_class pool_class = {
	.name = "supermachine.pool",
	.size = sizeof(struct pool),
	.methods = methods,
	.close = pool_close,
	.describe = pool_describe,
};

void sm_lua_pool_open(lua_State *L);

void sm_lua_pool_open(lua_State *L)
{
	sm_lua_class_register(L, &pool_class);
	lua_pushcfunction(L, pool_new);
	lua_setfield(L, -2, "pool_new");
}
