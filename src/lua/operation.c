/* The operation userdata: one blocking core call under way. */
#include "lua/support.h"

#include "base/fd.h"

#include <poll.h>

struct operation {
	struct sm_lua_handle handle;
	struct sm_op *op;
	sm_lua_push push;
	sm_lua_push push_progress; /* NULL: it tells nothing before its end */
	int progress_fd;
	bool finished;
};

static void operation_close(void *payload)
{
	struct operation *operation = payload;
	sm_op_free(operation->op);
}

static int operation_fd(lua_State *L);
static int operation_done(lua_State *L);
static int operation_finish(lua_State *L);
static int operation_cancel(lua_State *L);
static int operation_progress_fd(lua_State *L);
static int operation_progress(lua_State *L);

static const luaL_Reg methods[] = {
	{ "fd", operation_fd },
	{ "done", operation_done },
	{ "finish", operation_finish },
	{ "cancel", operation_cancel },
	{ "progress_fd", operation_progress_fd },
	{ "progress", operation_progress },
	{ NULL, NULL },
};
static const struct sm_lua_class operation_class = {
	.name = "supermachine.operation",
	.size = sizeof(struct operation),
	.methods = methods,
	.close = operation_close,
};

static int operation_fd(lua_State *L)
{
	struct operation *operation = sm_lua_check(L, 1, &operation_class);
	lua_pushinteger(L, sm_op_fd(operation->op));
	return 1;
}

/* Whether finish would return at once. */
static int operation_done(lua_State *L)
{
	struct operation *operation = sm_lua_check(L, 1, &operation_class);
	lua_pushboolean(L, sm_fd_wait(sm_op_fd(operation->op), POLLIN, 0) > 0);
	return 1;
}

/* Waits for the end and pushes the call's results; a second time is misuse. */
static int operation_finish(lua_State *L)
{
	struct operation *operation = sm_lua_check(L, 1, &operation_class);
	if (operation->finished)
		return luaL_error(L, "operation is finished");
	operation->finished = true;
	struct sm_error err = { 0 };
	int code = sm_op_finish(operation->op, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	return operation->push(L, sm_op_arg(operation->op));
}

static int operation_cancel(lua_State *L)
{
	struct operation *operation = sm_lua_check(L, 1, &operation_class);
	sm_op_cancel(operation->op);
	return 0;
}

/* Readable when there is progress to be taken; nil for an operation that tells of none. */
static int operation_progress_fd(lua_State *L)
{
	struct operation *operation = sm_lua_check(L, 1, &operation_class);
	if (operation->push_progress)
		lua_pushinteger(L, operation->progress_fd);
	else
		lua_pushnil(L);
	return 1;
}

/* What has happened since the last call, as the operation has it. */
static int operation_progress(lua_State *L)
{
	struct operation *operation = sm_lua_check(L, 1, &operation_class);
	return operation->push_progress ? operation->push_progress(L, sm_op_arg(operation->op)) : 0;
}

void sm_lua_op_progress(lua_State *L, int index, int fd, sm_lua_push push)
{
	struct operation *operation = sm_lua_check(L, index, &operation_class);
	operation->progress_fd = fd;
	operation->push_progress = push;
}

int sm_lua_op(lua_State *L, sm_op_run run, void *arg, void (*free_arg)(void *arg), sm_lua_push push, int parent)
{
	if (parent)
		parent = lua_absindex(L, parent);
	struct operation *operation = sm_lua_new(L, &operation_class);
	if (parent)
		sm_lua_keep(L, -1, parent);
	struct sm_error err = { 0 };
	int code = sm_op_begin(run, arg, free_arg, &operation->op, &err);
	if (code < 0) {
		if (free_arg)
			free_arg(arg);
		return sm_lua_fail(L, code, &err);
	}
	operation->push = push;
	operation->handle.open = true;
	return 1;
}

/* core.methods(name): the method table of a userdata type, so that methods written in Lua stand beside those in C. */
static int class_methods(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	luaL_argcheck(L, luaL_getmetatable(L, name) == LUA_TTABLE, 1, "no such type");
	lua_getfield(L, -1, "__index");
	return 1;
}

void sm_lua_operation_open(lua_State *L)
{
	sm_lua_class_register(L, &operation_class);
	lua_pushcfunction(L, class_methods);
	lua_setfield(L, -2, "methods");
}
