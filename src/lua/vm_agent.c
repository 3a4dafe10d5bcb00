/* The vm's blocking requests to the agent, as operations: ready, connect, read_file, write_file, and the words. */
#include "agent/connect.h"
#include "agent/files.h"
#include "agent/identity.h"
#include "agent/ready.h"
#include "base/fd.h"
#include "lua/stream.h"
#include "lua/vm.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* One request under way; fields that its kind does not need are empty. */
struct request {
	struct sm_control *control; /* a reference: the vm may be closed meanwhile */
	int timeout_ms;
	int ready_fd;
	struct sm_agent_hello hello;
	char *path; /* or address */
	uint16_t port;
	int stream_fd;
	uint32_t mode;
	struct sm_buf data;
	struct sm_agent_file file;
	enum sm_agent_kind command;
};

static void request_free(void *arg)
{
	struct request *request = arg;
	sm_control_close(request->control);
	sm_fd_close(&request->ready_fd);
	sm_fd_close(&request->stream_fd);
	sm_buf_done(&request->data);
	free(request->path);
	free(request);
}

static struct sm_agent_wait wait_of(struct sm_op *op, const struct request *request)
{
	return (struct sm_agent_wait){ .timeout_ms = request->timeout_ms, .cancel = sm_op_cancel_flag(op) };
}

static int connect_agent(struct request *request, struct sm_error *err)
{
	int fd = -1;
	int code = sm_control_connect(request->control, SM_AGENT_PORT, &fd, err);
	return code < 0 ? code : fd;
}

/* ---- what runs on the operation's thread --------------------------------------------------------------------- */

static int ready_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct request *request = arg;
	struct sm_agent_wait wait = wait_of(op, request);
	return sm_agent_ready(request->ready_fd, sm_control_end_fd(request->control), &wait, &request->hello, err);
}

static int connect_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct request *request = arg;
	struct sm_agent_wait wait = wait_of(op, request);
	int fd = connect_agent(request, err);
	if (fd < 0)
		return fd;
	return sm_agent_connect(fd, request->path, request->port, &wait, &request->stream_fd, err);
}

static int read_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct request *request = arg;
	struct sm_agent_wait wait = wait_of(op, request);
	int fd = connect_agent(request, err);
	if (fd < 0)
		return fd;
	return sm_agent_read_file(fd, request->path, &wait, &request->data, &request->file, err);
}

static int write_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct request *request = arg;
	struct sm_agent_wait wait = wait_of(op, request);
	int fd = connect_agent(request, err);
	if (fd < 0)
		return fd;
	return sm_agent_write_file(fd, request->path, request->mode, request->data.data, request->data.len, &wait, err);
}

static int command_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct request *request = arg;
	struct sm_agent_wait wait = wait_of(op, request);
	int fd = connect_agent(request, err);
	if (fd < 0)
		return fd;
	return sm_agent_command(fd, request->command, &wait, err);
}

/* ---- results ------------------------------------------------------------------------------------------------ */

static int push_true(lua_State *L, void *arg)
{
	(void)arg;
	lua_pushboolean(L, true);
	return 1;
}

static int push_hello(lua_State *L, void *arg)
{
	const struct request *request = arg;
	lua_pushstring(L, request->hello.kernel);
	return 1;
}

static int push_stream(lua_State *L, void *arg)
{
	struct request *request = arg;
	return sm_lua_stream_push(L, sm_fd_take(&request->stream_fd), 0);
}

static int push_file(lua_State *L, void *arg)
{
	const struct request *request = arg;
	const struct {
		const char *name;
		uint64_t value;
	} rows[] = {
		{ "size", request->file.size },
		{ "mode", request->file.mode },
		{ "uid", request->file.uid },
		{ "gid", request->file.gid },
	};
	lua_pushlstring(L, request->data.data ? (const char *)request->data.data : "", request->data.len);
	lua_createtable(L, 0, 4);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		lua_pushinteger(L, (lua_Integer)rows[i].value);
		lua_setfield(L, -2, rows[i].name);
	}
	return 2;
}

/* ---- methods ------------------------------------------------------------------------------------------------ */

static int check_timeout(lua_State *L, int index)
{
	lua_Integer timeout_ms = luaL_optinteger(L, index, -1);
	return timeout_ms < 0 ? -1 : timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms;
}

/* NULL: out of memory.  path may be NULL. */
static struct request *request_new(struct sm_control *control, const char *path, int timeout_ms)
{
	struct request *request = calloc(1, sizeof *request);
	if (!request)
		return NULL;
	request->control = sm_control_ref(control);
	request->timeout_ms = timeout_ms;
	request->ready_fd = request->stream_fd = -1;
	request->path = path ? strdup(path) : NULL;
	if (path && !request->path) {
		request_free(request);
		return NULL;
	}
	return request;
}

/* ready_begin(timeout_ms) -> operation, whose finish gives the guest's kernel release. */
static int vm_ready_begin(lua_State *L)
{
	const struct sm_lua_vm_parts *parts = sm_lua_vm_check(L, 1);
	int timeout_ms = check_timeout(L, 2);
	if (parts->ready_fd < 0)
		return luaL_error(L, "the machine was made without agent = true");
	struct request *request = request_new(parts->control, NULL, timeout_ms);
	if (!request)
		return sm_lua_fail(L, ENOMEM, NULL);
	request->ready_fd = sm_fd_dup(parts->ready_fd);
	if (request->ready_fd < 0) {
		int code = request->ready_fd;
		request_free(request);
		return sm_lua_fail(L, code, NULL);
	}
	return sm_lua_op(L, ready_run, request, request_free, push_hello, 1);
}

/* connect_begin(port, address or nil, timeout_ms) -> operation, whose finish gives a stream. */
static int vm_connect_begin(lua_State *L)
{
	const struct sm_lua_vm_parts *parts = sm_lua_vm_check(L, 1);
	lua_Integer port = luaL_checkinteger(L, 2);
	luaL_argcheck(L, port > 0 && port < 65536, 2, "TCP port out of range");
	const char *address = luaL_optstring(L, 3, NULL);
	struct request *request = request_new(parts->control, address, check_timeout(L, 4));
	if (!request)
		return sm_lua_fail(L, ENOMEM, NULL);
	request->port = (uint16_t)port;
	return sm_lua_op(L, connect_run, request, request_free, push_stream, 1);
}

/* read_file_begin(path, max_bytes, timeout_ms) -> operation, whose finish gives the content and {size, mode, uid,
 * gid}. */
static int vm_read_file_begin(lua_State *L)
{
	const struct sm_lua_vm_parts *parts = sm_lua_vm_check(L, 1);
	const char *path = luaL_checkstring(L, 2);
	lua_Integer max = luaL_checkinteger(L, 3);
	luaL_argcheck(L, max >= 0, 3, "size cannot be negative");
	struct request *request = request_new(parts->control, path, check_timeout(L, 4));
	if (!request)
		return sm_lua_fail(L, ENOMEM, NULL);
	sm_buf_init(&request->data, (size_t)max);
	return sm_lua_op(L, read_run, request, request_free, push_file, 1);
}

/* write_file_begin(path, data, mode, timeout_ms) */
static int vm_write_file_begin(lua_State *L)
{
	const struct sm_lua_vm_parts *parts = sm_lua_vm_check(L, 1);
	const char *path = luaL_checkstring(L, 2);
	size_t len;
	const char *data = luaL_checklstring(L, 3, &len);
	lua_Integer mode = luaL_checkinteger(L, 4);
	struct request *request = request_new(parts->control, path, check_timeout(L, 5));
	if (!request)
		return sm_lua_fail(L, ENOMEM, NULL);
	request->mode = (uint32_t)mode & 07777;
	sm_buf_init(&request->data, len);
	int code = sm_buf_append(&request->data, data, len);
	if (code < 0) {
		request_free(request);
		return sm_lua_fail(L, code, NULL);
	}
	return sm_lua_op(L, write_run, request, request_free, push_true, 1);
}

/* command_begin("ping" | "sync" | "shutdown" | "drop_caches", timeout_ms) */
static int vm_command_begin(lua_State *L)
{
	static const char *const names[] = { "ping", "sync", "shutdown", "drop_caches", NULL };
	static const enum sm_agent_kind kinds[] = { SM_AGENT_PING, SM_AGENT_SYNC, SM_AGENT_SHUTDOWN,
		                                    SM_AGENT_DROP_CACHES };
	const struct sm_lua_vm_parts *parts = sm_lua_vm_check(L, 1);
	int which = luaL_checkoption(L, 2, NULL, names);
	struct request *request = request_new(parts->control, NULL, check_timeout(L, 3));
	if (!request)
		return sm_lua_fail(L, ENOMEM, NULL);
	request->command = kinds[which];
	return sm_lua_op(L, command_run, request, request_free, push_true, 1);
}

const luaL_Reg sm_lua_vm_agent_methods[] = {
	{ "ready_begin", vm_ready_begin },         { "connect_begin", vm_connect_begin },
	{ "read_file_begin", vm_read_file_begin }, { "write_file_begin", vm_write_file_begin },
	{ "command_begin", vm_command_begin },     { NULL, NULL },
};
