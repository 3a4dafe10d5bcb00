/* Mounts of a machine: vm:mounts_tell_begin(timeout_ms), vm:mount_begin{mounts =, agent =, timeout_ms =},
 * vm:mounts(), vm:mounts_forget(). */
#include "lua/mounts.h"
#include "lua/vm.h"
#include "pool/mounts.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct request {
	struct sm_control *control; /* a reference: the vm may be closed meanwhile */
	struct sm_lua_vm_parts *parts;
	struct sm_source_mounts mounts;
	bool add, agent;
	int timeout_ms;
};

static void request_free(void *arg)
{
	struct request *request = arg;
	sm_control_close(request->control);
	sm_source_mounts_done(&request->mounts);
	free(request);
}

static int request_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct request *request = arg;
	const struct sm_agent_wait wait = { .timeout_ms = request->timeout_ms, .cancel = sm_op_cancel_flag(op) };
	return request->add ? sm_mounts_add(request->control, &request->mounts, request->agent, &wait, err)
	                    : sm_mounts_tell(request->control, &request->mounts, &wait, err);
}

/* A later snapshot has them, too.  The operation keeps the vm alive, but not open. */
static int request_push(lua_State *L, void *arg)
{
	struct request *request = arg;
	struct sm_error err = { 0 };
	if (request->add && request->parts->control &&
	    sm_source_mounts_copy(&request->mounts, &request->parts->sources.mounts, &err) < 0)
		return sm_lua_fail(L, err.code, &err);
	lua_pushboolean(L, true);
	return 1;
}

static int timeout_of(lua_Integer timeout_ms)
{
	return timeout_ms < 0 ? -1 : timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms;
}

static struct request *request_new(struct sm_lua_vm_parts *parts, lua_Integer timeout_ms)
{
	struct request *request = calloc(1, sizeof *request);
	if (!request)
		return NULL;
	request->control = sm_control_ref(parts->control);
	request->parts = parts;
	request->timeout_ms = timeout_of(timeout_ms);
	return request;
}

/* Have the guest of a booted machine mount what it was booted with. */
static int vm_mounts_tell_begin(lua_State *L)
{
	struct sm_lua_vm_parts *parts = sm_lua_vm_check(L, 1);
	lua_Integer timeout_ms = luaL_optinteger(L, 2, -1);
	struct request *request = request_new(parts, timeout_ms);
	struct sm_error err = { 0 };
	if (!request)
		return sm_lua_fail(L, ENOMEM, NULL);
	int code = sm_source_mounts_copy(&parts->sources.mounts, &request->mounts, &err);
	if (code < 0) {
		request_free(request);
		return sm_lua_fail(L, code, &err);
	}
	return sm_lua_op(L, request_run, request, request_free, request_push, 1);
}

static int add_wish(const struct sm_lua_vm_parts *parts, struct request *request, const struct sm_source_mount *wish,
                    struct sm_error *err)
{
	unsigned index = parts->sources.mounts.count + request->mounts.count;
	const struct sm_source_mount mount = sm_mounts_for_slot(wish, index);
	return sm_source_mounts_add(&request->mounts, &mount, err);
}

/* Put folders behind slots that have nothing. */
static int vm_mount_begin(lua_State *L)
{
	static const char *const known[] = { "mounts", "agent", "timeout_ms", NULL };
	struct sm_lua_vm_parts *parts = sm_lua_vm_check(L, 1);
	sm_lua_options_check(L, 2, known);
	bool agent = sm_lua_option_boolean(L, 2, "agent", false);
	lua_Integer timeout_ms = sm_lua_option_integer(L, 2, "timeout_ms", 30000);
	unsigned count;
	const struct sm_source_mount *wishes = sm_lua_mounts_read(L, 2, "mounts", &count);
	struct request *request = request_new(parts, timeout_ms);
	struct sm_error err = { 0 };
	int code = 0;
	if (!request)
		return sm_lua_fail(L, ENOMEM, NULL);
	for (unsigned i = 0; i < count && code == 0; i++) {
		if (sm_source_mounts_find(&parts->sources.mounts, wishes[i].guest))
			code = sm_error_set(&err, EEXIST, "mount %s: there is one", wishes[i].guest);
		else
			code = add_wish(parts, request, &wishes[i], &err);
	}
	if (code < 0) {
		request_free(request);
		return sm_lua_fail(L, code, &err);
	}
	request->add = true;
	request->agent = agent;
	return sm_lua_op(L, request_run, request, request_free, request_push, 1);
}

/* A list of { host =, guest =, tag =, readonly = }, in the order of the slots. */
static int vm_mounts(lua_State *L)
{
	const struct sm_source_mounts *mounts = &sm_lua_vm_check(L, 1)->sources.mounts;
	lua_createtable(L, (int)mounts->count, 0);
	for (unsigned i = 0; i < mounts->count; i++) {
		const struct sm_source_mount *mount = &mounts->list[i];
		lua_createtable(L, 0, 4);
		lua_pushstring(L, mount->host);
		lua_setfield(L, -2, "host");
		lua_pushstring(L, mount->guest);
		lua_setfield(L, -2, "guest");
		lua_pushstring(L, mount->tag);
		lua_setfield(L, -2, "tag");
		lua_pushboolean(L, mount->options.readonly);
		lua_setfield(L, -2, "readonly");
		lua_seti(L, -2, (lua_Integer)i + 1);
	}
	return 1;
}

/* After a reset: what was put behind slots later is gone. */
static int vm_mounts_forget(lua_State *L)
{
	struct sm_lua_vm_parts *parts = sm_lua_vm_check(L, 1);
	if (parts->origin)
		sm_source_mounts_cut(&parts->sources.mounts, sm_snapshot_sources(parts->origin)->mounts.count);
	return 0;
}

const luaL_Reg sm_lua_vm_mounts_methods[] = {
	{ "mounts_tell_begin", vm_mounts_tell_begin },
	{ "mount_begin", vm_mount_begin },
	{ "mounts", vm_mounts },
	{ "mounts_forget", vm_mounts_forget },
	{ NULL, NULL },
};
