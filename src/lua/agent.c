/* The agent's short requests, each an operation.  The first argument is a connection to the agent as
 * sm_lua_stream_target takes it; the last, optional, a table that may hold timeout_ms. */
#include "agent/connect.h"
#include "agent/files.h"
#include "agent/ready.h"
#include "base/fd.h"
#include "lua/identity.h"
#include "lua/stream.h"
#include "lua/support.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX_DEFAULT (64 << 20)
#define FILE_MAX         (INT64_C(1) << 40)

struct request {
	int fd; /* taken by the call */
	int timeout_ms;
	char *text; /* path, address or the ID's 16 bytes; NULL: none */
	uint8_t *data;
	size_t len;
	int64_t number; /* most bytes, mode, port, clock or command */
	int listen_fd, end_fd;
	int ret_fd;
	struct sm_buf content;
	struct sm_agent_file file;
	struct sm_agent_hello hello;
	struct sm_lua_identity identity;
};

static void request_free(void *arg)
{
	struct request *request = arg;
	sm_fd_close(&request->fd);
	sm_fd_close(&request->ret_fd);
	sm_buf_done(&request->content);
	sm_lua_identity_done(&request->identity);
	free(request->text);
	free(request->data);
	free(request);
}

/* Every argument has been checked: from here on nothing raises.  NULL: out of memory. */
static struct request *request_new(const char *text, const char *data, size_t len, int timeout_ms)
{
	struct request *request = calloc(1, sizeof *request);
	if (!request)
		return NULL;
	request->fd = request->ret_fd = request->listen_fd = request->end_fd = -1;
	request->timeout_ms = timeout_ms;
	request->text = text ? strdup(text) : NULL;
	request->data = data ? malloc(len ? len : 1) : NULL;
	request->len = len;
	if ((text && !request->text) || (data && !request->data)) {
		request_free(request);
		return NULL;
	}
	if (data)
		memcpy(request->data, data, len);
	return request;
}

static int timeout_option(lua_State *L, int options)
{
	lua_Integer timeout_ms = sm_lua_option_integer(L, options, "timeout_ms", -1);
	if (timeout_ms > INT_MAX)
		return INT_MAX;
	return timeout_ms < 0 ? -1 : (int)timeout_ms;
}

static const char *check_text(lua_State *L, int index)
{
	size_t len;
	const char *text = luaL_checklstring(L, index, &len);
	luaL_argcheck(L, strlen(text) == len, index, "string holds a NUL byte");
	return text;
}

static int begin(lua_State *L, struct request *request, sm_op_run run, sm_lua_push push)
{
	if (!request)
		return sm_lua_fail(L, ENOMEM, NULL);
	request->fd = sm_lua_stream_target(L, 1);
	if (request->fd < 0) {
		int code = request->fd;
		request->fd = -1;
		request_free(request);
		return sm_lua_fail(L, code, NULL);
	}
	return sm_lua_op(L, run, request, request_free, push, 0);
}

static struct sm_agent_wait wait_of(const struct sm_op *op, const struct request *request)
{
	return (struct sm_agent_wait){ .timeout_ms = request->timeout_ms, .cancel = sm_op_cancel_flag(op) };
}

static int push_true(lua_State *L, void *arg)
{
	(void)arg;
	lua_pushboolean(L, true);
	return 1;
}

/* ---- files -------------------------------------------------------------------------------------------------- */

static int read_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct request *request = arg;
	struct sm_agent_wait wait = wait_of(op, request);
	sm_buf_init(&request->content, (size_t)request->number);
	return sm_agent_read_file(sm_fd_take(&request->fd), request->text, &wait, &request->content, &request->file,
	                          err);
}

static int read_push(lua_State *L, void *arg)
{
	const struct request *request = arg;
	lua_pushlstring(L, request->content.len ? (const char *)request->content.data : "", request->content.len);
	lua_createtable(L, 0, 4);
	lua_pushinteger(L, (lua_Integer)request->file.size);
	lua_setfield(L, -2, "size");
	lua_pushinteger(L, request->file.mode);
	lua_setfield(L, -2, "mode");
	lua_pushinteger(L, request->file.uid);
	lua_setfield(L, -2, "uid");
	lua_pushinteger(L, request->file.gid);
	lua_setfield(L, -2, "gid");
	return 2;
}

/* agent_read_file_begin(target, path, {max_bytes=, timeout_ms=}) => content, {size, mode, uid, gid} */
static int agent_read_file_begin(lua_State *L)
{
	static const char *const known[] = { "max_bytes", "timeout_ms", NULL };
	sm_lua_stream_target_check(L, 1);
	const char *path = check_text(L, 2);
	sm_lua_options_check(L, 3, known);
	lua_Integer max = sm_lua_option_integer(L, 3, "max_bytes", FILE_MAX_DEFAULT);
	luaL_argcheck(L, max >= 0 && max <= FILE_MAX, 3, "max_bytes is out of range");
	int timeout_ms = timeout_option(L, 3);
	struct request *request = request_new(path, NULL, 0, timeout_ms);
	if (request)
		request->number = max;
	return begin(L, request, read_run, read_push);
}

static int write_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct request *request = arg;
	struct sm_agent_wait wait = wait_of(op, request);
	return sm_agent_write_file(sm_fd_take(&request->fd), request->text, (uint32_t)request->number, request->data,
	                           request->len, &wait, err);
}

/* agent_write_file_begin(target, path, content, {mode=, timeout_ms=}) => true */
static int agent_write_file_begin(lua_State *L)
{
	static const char *const known[] = { "mode", "timeout_ms", NULL };
	sm_lua_stream_target_check(L, 1);
	const char *path = check_text(L, 2);
	size_t len;
	const char *data = luaL_checklstring(L, 3, &len);
	sm_lua_options_check(L, 4, known);
	lua_Integer mode = sm_lua_option_integer(L, 4, "mode", 0644);
	luaL_argcheck(L, mode >= 0 && mode <= 07777, 4, "mode is out of range");
	int timeout_ms = timeout_option(L, 4);
	struct request *request = request_new(path, data, len, timeout_ms);
	if (request)
		request->number = mode;
	return begin(L, request, write_run, push_true);
}

/* ---- TCP ---------------------------------------------------------------------------------------------------- */

static int connect_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct request *request = arg;
	struct sm_agent_wait wait = wait_of(op, request);
	return sm_agent_connect(sm_fd_take(&request->fd), request->text, (uint16_t)request->number, &wait,
	                        &request->ret_fd, err);
}

static int connect_push(lua_State *L, void *arg)
{
	struct request *request = arg;
	return sm_lua_stream_push(L, sm_fd_take(&request->ret_fd), 0);
}

/* agent_connect_begin(target, port, {address=, timeout_ms=}) => stream */
static int agent_connect_begin(lua_State *L)
{
	static const char *const known[] = { "address", "timeout_ms", NULL };
	sm_lua_stream_target_check(L, 1);
	lua_Integer port = luaL_checkinteger(L, 2);
	luaL_argcheck(L, port >= 1 && port <= UINT16_MAX, 2, "ports are 1 to 65535");
	sm_lua_options_check(L, 3, known);
	const char *address = sm_lua_option_string(L, 3, "address", NULL);
	int timeout_ms = timeout_option(L, 3);
	struct request *request = request_new(address, NULL, 0, timeout_ms);
	if (request)
		request->number = port;
	return begin(L, request, connect_run, connect_push);
}

/* ---- identity and commands ---------------------------------------------------------------------------------- */

static int identity_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct request *request = arg;
	struct sm_agent_wait wait = wait_of(op, request);
	const struct sm_identity_options *options = &request->identity.options;
	const struct sm_agent_identity identity = {
		.clock_ns = (uint64_t)request->number,
		.hostname = options->hostname,
		.entropy = request->data,
		.entropy_len = request->len,
		.id = (const uint8_t *)request->text,
		.nsecrets = options->nsecrets,
		.secrets = options->secrets,
		.hook = options->hook,
	};
	return sm_agent_identity_send(sm_fd_take(&request->fd), &identity, &wait, err);
}

/* agent_identity_begin(target, {clock_ns=, entropy=, id = 16 bytes other than 0, and lua/identity.h's}) => true */
static int agent_identity_begin(lua_State *L)
{
	static const char *const known[] = { "clock_ns", "entropy", "id", SM_LUA_IDENTITY_OPTIONS, NULL };
	sm_lua_stream_target_check(L, 1);
	sm_lua_options_check(L, 2, known);
	const char *id = sm_lua_option_string(L, 2, "id", NULL);
	const char *entropy = sm_lua_option_string(L, 2, "entropy", NULL);
	lua_Integer clock_ns = sm_lua_option_integer(L, 2, "clock_ns", 0);
	luaL_argcheck(L, clock_ns >= 0, 2, "clock_ns is out of range");
	luaL_argcheck(L, !id || strlen(id) == SM_AGENT_ID_BYTES, 2, "id: 16 bytes expected");
	size_t len = 0;
	if (entropy) {
		lua_getfield(L, 2, "entropy");
		lua_tolstring(L, -1, &len);
		lua_pop(L, 1);
	}
	luaL_argcheck(L, len <= SM_AGENT_ENTROPY_MAX, 2, "entropy is too long");
	struct sm_lua_identity identity;
	int code = sm_lua_identity_read(L, 2, &identity);
	if (code < 0)
		return sm_lua_fail(L, code, NULL);
	struct request *request = request_new(id, entropy, len, identity.options.timeout_ms);
	if (request) {
		request->number = clock_ns;
		request->identity = identity;
	} else {
		sm_lua_identity_done(&identity);
	}
	return begin(L, request, identity_run, push_true);
}

static int command_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct request *request = arg;
	struct sm_agent_wait wait = wait_of(op, request);
	return sm_agent_command(sm_fd_take(&request->fd), (enum sm_agent_kind)request->number, &wait, err);
}

/* agent_command_begin(target, "ping" | "sync" | "shutdown" | "drop_caches", {timeout_ms=}) => true */
static int agent_command_begin(lua_State *L)
{
	static const char *const known[] = { "timeout_ms", NULL };
	static const char *const names[] = { "ping", "sync", "shutdown", "drop_caches", NULL };
	static const enum sm_agent_kind kinds[] = { SM_AGENT_PING, SM_AGENT_SYNC, SM_AGENT_SHUTDOWN,
		                                    SM_AGENT_DROP_CACHES };
	sm_lua_stream_target_check(L, 1);
	enum sm_agent_kind kind = kinds[luaL_checkoption(L, 2, NULL, names)];
	sm_lua_options_check(L, 3, known);
	int timeout_ms = timeout_option(L, 3);
	struct request *request = request_new(NULL, NULL, 0, timeout_ms);
	if (request)
		request->number = kind;
	return begin(L, request, command_run, push_true);
}

/* ---- ready -------------------------------------------------------------------------------------------------- */

static int ready_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct request *request = arg;
	struct sm_agent_wait wait = wait_of(op, request);
	return sm_agent_ready(request->listen_fd, request->end_fd, &wait, &request->hello, err);
}

static int ready_push(lua_State *L, void *arg)
{
	const struct request *request = arg;
	lua_createtable(L, 0, 2);
	lua_pushinteger(L, request->hello.version);
	lua_setfield(L, -2, "version");
	lua_pushstring(L, request->hello.kernel);
	lua_setfield(L, -2, "kernel");
	return 1;
}

static int check_fd(lua_State *L, int index, lua_Integer least)
{
	lua_Integer fd = luaL_checkinteger(L, index);
	luaL_argcheck(L, fd >= least && fd <= INT_MAX, index, "not a descriptor");
	return (int)fd;
}

/* agent_ready_begin(listener descriptor, machine end descriptor or -1, {timeout_ms=}) => {version=, kernel=}.
 * Both descriptors are duplicated. */
static int agent_ready_begin(lua_State *L)
{
	static const char *const known[] = { "timeout_ms", NULL };
	int listen_fd = check_fd(L, 1, 0), end_fd = check_fd(L, 2, -1);
	sm_lua_options_check(L, 3, known);
	int timeout_ms = timeout_option(L, 3);
	struct request *request = request_new(NULL, NULL, 0, timeout_ms);
	if (!request)
		return sm_lua_fail(L, ENOMEM, NULL);
	/* In the fields that request_free closes. */
	request->fd = sm_fd_dup(listen_fd);
	request->ret_fd = end_fd < 0 ? -1 : sm_fd_dup(end_fd);
	if (request->fd < 0 || (end_fd >= 0 && request->ret_fd < 0)) {
		int code = request->fd < 0 ? request->fd : request->ret_fd;
		request_free(request);
		return sm_lua_fail(L, code, NULL);
	}
	request->listen_fd = request->fd;
	request->end_fd = request->ret_fd;
	return sm_lua_op(L, ready_run, request, request_free, ready_push, 0);
}

void sm_lua_agent_open(lua_State *L);

void sm_lua_agent_open(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "agent_read_file_begin", agent_read_file_begin },
		{ "agent_write_file_begin", agent_write_file_begin },
		{ "agent_connect_begin", agent_connect_begin },
		{ "agent_identity_begin", agent_identity_begin },
		{ "agent_command_begin", agent_command_begin },
		{ "agent_ready_begin", agent_ready_begin },
		{ NULL, NULL },
	};
	luaL_setfuncs(L, functions, 0);
	lua_pushinteger(L, SM_AGENT_PORT);
	lua_setfield(L, -2, "AGENT_PORT");
	lua_pushinteger(L, SM_AGENT_READY_PORT);
	lua_setfield(L, -2, "AGENT_READY_PORT");
}
