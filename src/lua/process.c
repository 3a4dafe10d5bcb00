/* Processes in a guest.  lua/supermachine/process.lua waits between the steps. */
#include "lua/process.h"

#include "agent/process.h"
#include "base/fd.h"
#include "lua/stream.h"
#include "lua/support.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

struct process {
	struct sm_lua_handle handle;
	int fd; /* until core has it */
	struct sm_agent_process *core;
	bool told_start;
};

static void process_close(void *payload)
{
	struct process *process = payload;
	sm_agent_process_free(process->core);
	sm_fd_close(&process->fd);
}

static const struct sm_lua_class process_class;

static struct process *check(lua_State *L)
{
	return sm_lua_check(L, 1, &process_class);
}

/* ---- the request -------------------------------------------------------------------------------------------- */

/* What is decoded points into Lua strings, which the table at `anchor` keeps. */
struct request {
	struct sm_agent_exec exec;
	int table, anchor;
};

static const struct limit_name {
	const char *name;
	enum sm_agent_limit_kind kind;
} limit_names[] = {
	{ "memory_bytes", SM_AGENT_LIMIT_MEMORY }, { "address_space_bytes", SM_AGENT_LIMIT_ADDRESS_SPACE },
	{ "core_bytes", SM_AGENT_LIMIT_CORE },     { "cpu_s", SM_AGENT_LIMIT_CPU },
	{ "data_bytes", SM_AGENT_LIMIT_DATA },     { "file_bytes", SM_AGENT_LIMIT_FILE_SIZE },
	{ "locked_bytes", SM_AGENT_LIMIT_LOCKED }, { "open_files", SM_AGENT_LIMIT_OPEN_FILES },
	{ "processes", SM_AGENT_LIMIT_PROCESSES }, { "stack_bytes", SM_AGENT_LIMIT_STACK },
};

/* The string on the stack top, without NUL bytes; popped and anchored. */
static const char *take_string(lua_State *L, int anchor, const char *what)
{
	size_t len;
	if (lua_type(L, -1) != LUA_TSTRING)
		luaL_error(L, "%s: string expected, got %s", what, luaL_typename(L, -1));
	const char *text = lua_tolstring(L, -1, &len);
	if (strlen(text) != len)
		luaL_error(L, "%s: string holds a NUL byte", what);
	luaL_ref(L, anchor);
	return text;
}

static const char *option_text(lua_State *L, const struct request *request, const char *key)
{
	if (lua_getfield(L, request->table, key) == LUA_TNIL) {
		lua_pop(L, 1);
		return NULL;
	}
	return take_string(L, request->anchor, key);
}

static uint64_t option_number(lua_State *L, int table, const char *key, uint64_t max)
{
	lua_Integer value = sm_lua_option_integer(L, table, key, 0);
	if (value < 0 || (uint64_t)value > max)
		luaL_error(L, "option '%s' is out of range", key);
	return (uint64_t)value;
}

/* A vector in Lua's memory: what follows may raise. */
static const char **new_vector(lua_State *L, int anchor, lua_Integer count)
{
	const char **vector = lua_newuserdatauv(L, ((size_t)count + 1) * sizeof *vector, 0);
	memset(vector, 0, ((size_t)count + 1) * sizeof *vector);
	luaL_ref(L, anchor);
	return vector;
}

static const char *const *decode_argv(lua_State *L, const struct request *request)
{
	if (lua_getfield(L, request->table, "argv") != LUA_TTABLE)
		luaL_error(L, "argv: list of strings expected, got %s", luaL_typename(L, -1));
	lua_Integer count = luaL_len(L, -1);
	if (count < 1)
		luaL_error(L, "argv: empty");
	const char **argv = new_vector(L, request->anchor, count);
	for (lua_Integer i = 0; i < count; i++) {
		lua_geti(L, -1, i + 1);
		argv[i] = take_string(L, request->anchor, "argv");
	}
	if (!argv[0][0])
		luaL_error(L, "argv[1]: empty");
	lua_pop(L, 1);
	return argv;
}

static const char *const *decode_env(lua_State *L, const struct request *request)
{
	int type = lua_getfield(L, request->table, "env");
	if (type == LUA_TNIL) {
		lua_pop(L, 1);
		return NULL;
	}
	if (type != LUA_TTABLE)
		luaL_error(L, "option 'env': table expected, got %s", luaL_typename(L, -1));
	lua_Integer count = 0, i = 0;
	for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
		count++;
	const char **env = new_vector(L, request->anchor, count);
	for (lua_pushnil(L); lua_next(L, -2);) {
		if (lua_type(L, -2) != LUA_TSTRING || strchr(lua_tostring(L, -2), '=') || !lua_tostring(L, -2)[0])
			luaL_error(L, "env: names are strings without '='");
		if (lua_type(L, -1) != LUA_TSTRING)
			luaL_error(L, "env: string expected for %s, got %s", lua_tostring(L, -2), luaL_typename(L, -1));
		lua_pushvalue(L, -2);
		lua_pushliteral(L, "=");
		lua_rotate(L, -3, -1); /* name, name, =, value */
		lua_concat(L, 3);
		env[i++] = take_string(L, request->anchor, "env");
	}
	lua_pop(L, 1);
	return env;
}

/* A number is both limits, a pair is {soft, hard}. */
static void decode_limit(lua_State *L, struct sm_agent_limit *limit, const char *name)
{
	lua_Integer values[2];
	bool pair = lua_istable(L, -1);
	for (int i = 0; i < 2; i++) {
		int fine = 0;
		if (pair)
			lua_geti(L, -1, i + 1);
		values[i] = lua_tointegerx(L, -1, &fine);
		if (!fine || values[i] < 0)
			luaL_error(L, "limits: %s: a number or {soft, hard} expected", name);
		if (pair)
			lua_pop(L, 1);
	}
	if (values[0] > values[1])
		luaL_error(L, "limits: %s: soft is above hard", name);
	limit->soft = (uint64_t)values[0];
	limit->hard = (uint64_t)values[1];
}

static void decode_limits(lua_State *L, struct request *request)
{
	int type = lua_getfield(L, request->table, "limits");
	if (type != LUA_TNIL && type != LUA_TTABLE)
		luaL_error(L, "option 'limits': table expected, got %s", luaL_typename(L, -1));
	struct sm_agent_exec *exec = &request->exec;
	const struct limit_name *end = limit_names + sizeof limit_names / sizeof *limit_names;
	if (type == LUA_TTABLE)
		for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
			const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
			const struct limit_name *row = limit_names;
			while (row < end && strcmp(row->name, name))
				row++;
			if (row == end)
				luaL_error(L, "limits: unknown limit '%s'", name);
			struct sm_agent_limit *limit = &exec->limits[exec->nlimits++];
			limit->kind = row->kind;
			decode_limit(L, limit, name);
		}
	lua_pop(L, 1);
}

_Static_assert(sizeof limit_names / sizeof *limit_names <= SM_AGENT_LIMITS_MAX, "each limit fits once");

/* Leaves the anchor on the stack. */
static void decode(lua_State *L, int table, struct request *request)
{
	static const char *const known[] = {
		"argv",  "env",          "cwd",  "user",       "tty",    "rows", "columns",
		"stdin", "merge_stderr", "keep", "timeout_ms", "limits", NULL,
	};
	luaL_checktype(L, table, LUA_TTABLE);
	sm_lua_options_check(L, table, known);
	lua_newtable(L);
	*request = (struct request){ .table = table, .anchor = lua_gettop(L) };
	struct sm_agent_exec *exec = &request->exec;
	exec->argv = decode_argv(L, request);
	exec->env = decode_env(L, request);
	exec->cwd = option_text(L, request, "cwd");
	exec->user = option_text(L, request, "user");
	exec->tty = sm_lua_option_boolean(L, table, "tty", false);
	exec->rows = (uint16_t)option_number(L, table, "rows", UINT16_MAX);
	exec->columns = (uint16_t)option_number(L, table, "columns", UINT16_MAX);
	exec->takes_stdin = sm_lua_option_boolean(L, table, "stdin", false);
	exec->merge_stderr = sm_lua_option_boolean(L, table, "merge_stderr", false);
	exec->keep = sm_lua_option_boolean(L, table, "keep", false);
	exec->timeout_ms = (uint32_t)option_number(L, table, "timeout_ms", UINT32_MAX);
	decode_limits(L, request);
}

int sm_lua_process_push(lua_State *L, int fd_taken, int request_index, int parent)
{
	request_index = lua_absindex(L, request_index);
	if (parent)
		parent = lua_absindex(L, parent);
	struct process *process = sm_lua_new(L, &process_class);
	int self = lua_gettop(L);
	process->fd = fd_taken;
	process->handle.open = true; /* from here on the collector closes the descriptor, whatever raises */
	if (parent)
		sm_lua_keep(L, self, parent);
	struct request request;
	decode(L, request_index, &request);
	struct sm_error err = { 0 };
	int code = sm_agent_process_new(sm_fd_take(&process->fd), &request.exec, &process->core, &err);
	if (code < 0) {
		process->handle.open = false;
		return sm_lua_fail(L, code, &err);
	}
	lua_settop(L, self);
	return 1;
}

const char *sm_lua_process_body(lua_State *L, int request_index, struct sm_buf *ret_body)
{
	struct request request;
	decode(L, lua_absindex(L, request_index), &request);
	sm_buf_init(ret_body, SM_AGENT_REQUEST_MAX);
	sm_agent_exec_put(ret_body, &request.exec);
	return request.exec.argv[0];
}

/* ---- the process -------------------------------------------------------------------------------------------- */

static int process_fd(lua_State *L)
{
	lua_pushinteger(L, sm_agent_process_fd(check(L)->core));
	return 1;
}

/* "r" or "rw": what to wait for before the next step. */
static int process_events(lua_State *L)
{
	lua_pushstring(L, sm_agent_process_events(check(L)->core) & POLLOUT ? "rw" : "r");
	return 1;
}

static void set_number(lua_State *L, const char *key, double value)
{
	lua_pushnumber(L, value);
	lua_setfield(L, -2, key);
}

static void set_integer(lua_State *L, const char *key, uint64_t value)
{
	lua_pushinteger(L, (lua_Integer)value);
	lua_setfield(L, -2, key);
}

static void set_bytes(lua_State *L, const char *key, const uint8_t *data, size_t len)
{
	if (!len)
		return;
	lua_pushlstring(L, (const char *)data, len);
	lua_setfield(L, -2, key);
}

static void push_exit(lua_State *L, const struct sm_agent_exit *result)
{
	lua_createtable(L, 0, 7);
	if (result->signal)
		set_integer(L, "signal", (uint64_t)result->signal);
	else
		set_integer(L, "code", (uint64_t)result->code);
	set_number(L, "duration_ms", (double)result->duration_us / 1e3);
	set_number(L, "user_ms", (double)result->user_us / 1e3);
	set_number(L, "system_ms", (double)result->system_us / 1e3);
	set_integer(L, "max_rss_bytes", result->max_rss_bytes);
	if (result->timed_out) {
		lua_pushboolean(L, true);
		lua_setfield(L, -2, "timed_out");
	}
}

/* step() -> { stdout = bytes, stderr = bytes, started = pid (once), exit = {code | signal, duration_ms, user_ms,
 * system_ms, max_rss_bytes, timed_out} }, each where there is one; or nil, message, code: it could not be started, or
 * the agent is gone. */
static int process_step(lua_State *L)
{
	struct process *process = check(L);
	struct sm_agent_step step;
	struct sm_error err = { 0 };
	int code = sm_agent_process_step(process->core, &step, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_createtable(L, 0, 2);
	set_bytes(L, "stdout", step.out, step.out_len);
	set_bytes(L, "stderr", step.err, step.err_len);
	if (step.pid && !process->told_start) {
		process->told_start = true;
		set_integer(L, "started", step.pid);
	}
	if (step.exited) {
		push_exit(L, &step.exit);
		lua_setfield(L, -2, "exit");
	}
	return 1;
}

static int done(lua_State *L, int code)
{
	if (code < 0)
		return sm_lua_fail(L, code, NULL);
	lua_pushboolean(L, true);
	return 1;
}

/* write(bytes [, from]) -> how many were taken, from position `from` (1) on; nil, message, "EAGAIN" (after a step
 * there may be room) or "EPIPE". */
static int process_write(lua_State *L)
{
	struct process *process = check(L);
	size_t len;
	const char *data = luaL_checklstring(L, 2, &len);
	lua_Integer from = luaL_optinteger(L, 3, 1);
	luaL_argcheck(L, from >= 1 && (size_t)from <= len + 1, 3, "outside of the bytes");
	ssize_t taken = sm_agent_process_write(process->core, data + from - 1, len - (size_t)(from - 1));
	if (taken < 0)
		return sm_lua_fail(L, (int)taken, NULL);
	lua_pushinteger(L, taken);
	return 1;
}

static int process_close_stdin(lua_State *L)
{
	return done(L, sm_agent_process_close_stdin(check(L)->core));
}

static int process_signal(lua_State *L)
{
	struct process *process = check(L);
	lua_Integer number = luaL_checkinteger(L, 2);
	luaL_argcheck(L, number >= 1 && number <= 64, 2, "signals are 1 to 64");
	return done(L, sm_agent_process_signal(process->core, (int)number));
}

static int process_resize(lua_State *L)
{
	struct process *process = check(L);
	lua_Integer rows = luaL_checkinteger(L, 2), columns = luaL_checkinteger(L, 3);
	luaL_argcheck(L, rows >= 0 && rows <= UINT16_MAX, 2, "out of range");
	luaL_argcheck(L, columns >= 0 && columns <= UINT16_MAX, 3, "out of range");
	return done(L, sm_agent_process_resize(process->core, (uint16_t)rows, (uint16_t)columns));
}

static const luaL_Reg methods[] = {
	{ "fd", process_fd },
	{ "events", process_events },
	{ "step", process_step },
	{ "write", process_write },
	{ "close_stdin", process_close_stdin },
	{ "signal", process_signal },
	{ "resize", process_resize },
	{ NULL, NULL },
};
static const struct sm_lua_class process_class = {
	.name = "supermachine.core.process",
	.size = sizeof(struct process),
	.methods = methods,
	.close = process_close,
};

/* process_over(stream | descriptor | path, request) -> process */
static int process_over(lua_State *L)
{
	sm_lua_stream_target_check(L, 1);
	luaL_checktype(L, 2, LUA_TTABLE);
	int fd = sm_lua_stream_target(L, 1);
	if (fd < 0)
		return sm_lua_fail(L, fd, NULL);
	return sm_lua_process_push(L, fd, 2, 0);
}

void sm_lua_process_open(lua_State *L);

void sm_lua_process_open(lua_State *L)
{
	sm_lua_class_register(L, &process_class);
	lua_pushcfunction(L, process_over);
	lua_setfield(L, -2, "process_over");
}
