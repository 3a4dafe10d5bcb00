/* vm:interpreter_begin{name=, path=, magic=, mask=, timeout_ms=}: see agent/interpreter.h. */
#include "agent/interpreter.h"
#include "lua/vm.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC_MAX 128

struct request {
	struct sm_control *control; /* a reference: the vm may be closed meanwhile */
	char *name, *path;
	uint8_t magic[MAGIC_MAX], mask[MAGIC_MAX];
	size_t len;
	int timeout_ms;
};

static void request_free(void *arg)
{
	struct request *request = arg;
	sm_control_close(request->control);
	free(request->name);
	free(request->path);
	free(request);
}

static int request_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	const struct request *request = arg;
	const struct sm_agent_wait wait = { .timeout_ms = request->timeout_ms, .cancel = sm_op_cancel_flag(op) };
	const struct sm_agent_interpreter interpreter = {
		.name = request->name,
		.path = request->path,
		.magic = request->magic,
		.mask = request->mask,
		.len = request->len,
	};
	return sm_agent_interpreter(request->control, &interpreter, &wait, err);
}

static int push_true(lua_State *L, void *arg)
{
	(void)arg;
	lua_pushboolean(L, true);
	return 1;
}

static const char *needed(lua_State *L, const char *key, size_t *ret_len)
{
	lua_getfield(L, 2, key);
	const char *text = luaL_checklstring(L, -1, ret_len);
	lua_pop(L, 1); /* the table has it */
	return text;
}

static int vm_interpreter_begin(lua_State *L)
{
	static const char *const known[] = { "name", "path", "magic", "mask", "timeout_ms", NULL };
	const struct sm_lua_vm_parts *parts = sm_lua_vm_check(L, 1);
	sm_lua_options_check(L, 2, known);
	lua_Integer timeout_ms = sm_lua_option_integer(L, 2, "timeout_ms", 30000);
	size_t len, mask_len, unused;
	const char *name = needed(L, "name", &unused), *path = needed(L, "path", &unused);
	const char *magic = needed(L, "magic", &len), *mask = needed(L, "mask", &mask_len);
	if (len == 0 || len > MAGIC_MAX || mask_len != len)
		return luaL_error(L, "magic and mask: 1 to %d bytes each, as many, expected", MAGIC_MAX);
	struct request *request = calloc(1, sizeof *request);
	if (!request)
		return sm_lua_fail(L, ENOMEM, NULL);
	request->control = sm_control_ref(parts->control);
	request->name = strdup(name);
	request->path = strdup(path);
	request->timeout_ms = timeout_ms < 0 ? -1 : timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms;
	request->len = len;
	memcpy(request->magic, magic, len);
	memcpy(request->mask, mask, len);
	if (!request->name || !request->path) {
		request_free(request);
		return sm_lua_fail(L, ENOMEM, NULL);
	}
	return sm_lua_op(L, request_run, request, request_free, push_true, 1);
}

const luaL_Reg sm_lua_vm_interpreter_methods[] = {
	{ "interpreter_begin", vm_interpreter_begin },
	{ NULL, NULL },
};
