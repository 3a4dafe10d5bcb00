/* The vm userdata: a machine behind the control seam.  lua/supermachine/vm.lua adds the methods written in Lua. */
#include "lua/vm.h"

#include "agent/protocol.h"
#include "base/fd.h"
#include "lua/plan.h"
#include "lua/process.h"
#include "lua/stream.h"
#include "snapshot/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct vm {
	struct sm_lua_handle handle;
	struct sm_lua_vm_parts parts;
	bool paused;
};

void sm_lua_vm_parts_done(struct sm_lua_vm_parts *parts)
{
	sm_fd_close(&parts->ready_fd);
	if (parts->control && parts->pool)
		sm_pool_release(parts->pool, parts->control);
	else
		sm_control_close(parts->control);
	parts->control = NULL;
	sm_snapshot_unref(parts->origin);
	parts->origin = NULL;
	sm_sources_done(&parts->sources);
}

static void vm_close(void *payload)
{
	struct vm *vm = payload;
	sm_lua_vm_parts_done(&vm->parts);
}

static void vm_describe(lua_State *L, void *payload)
{
	struct vm *vm = payload;
	const struct sm_plan *plan = sm_control_plan(vm->parts.control);
	char detail[256];
	enum sm_control_end end = sm_control_ended(vm->parts.control, detail);
	lua_pushfstring(L, "supermachine.vm (%s, %d vCPUs, %I MiB)",
	                end != SM_CONTROL_RUNNING ? sm_control_end_name(end)
	                : vm->paused              ? "paused"
	                                          : "running",
	                (int)plan->vcpus, (LUAI_UACINT)plan->memory_mib);
}

static const struct sm_lua_class vm_class;

static struct vm *check(lua_State *L)
{
	return sm_lua_check(L, 1, &vm_class);
}

struct sm_lua_vm_parts *sm_lua_vm_check(lua_State *L, int index)
{
	struct vm *vm = sm_lua_check(L, index, &vm_class);
	return &vm->parts;
}

static int done(lua_State *L, int code, const struct sm_error *err)
{
	if (code < 0)
		return sm_lua_fail(L, code, err);
	lua_pushboolean(L, true);
	return 1;
}

static int vm_plan(lua_State *L)
{
	struct vm *vm = check(L);
	sm_lua_plan_push(L, sm_control_plan(vm->parts.control));
	return 1;
}

static int vm_resume(lua_State *L)
{
	struct vm *vm = check(L);
	struct sm_error err = { 0 };
	int code = sm_control_resume(vm->parts.control, &err);
	vm->paused = code < 0;
	return done(L, code, &err);
}

static int vm_pause(lua_State *L)
{
	struct vm *vm = check(L);
	struct sm_error err = { 0 };
	int code = sm_control_pause(vm->parts.control, &err);
	vm->paused = true;
	return done(L, code, &err);
}

/* nil while the machine lives, then reason and detail. */
static int vm_ended(lua_State *L)
{
	struct vm *vm = check(L);
	char detail[256];
	enum sm_control_end end = sm_control_ended(vm->parts.control, detail);
	if (end == SM_CONTROL_RUNNING)
		return 0;
	lua_pushstring(L, sm_control_end_name(end));
	lua_pushstring(L, detail);
	return 2;
}

static int vm_end_fd(lua_State *L)
{
	lua_pushinteger(L, sm_control_end_fd(check(L)->parts.control));
	return 1;
}

/* console(cursor) -> text, next cursor, bytes lost */
static int vm_console_from(lua_State *L)
{
	struct vm *vm = check(L);
	uint64_t cursor = (uint64_t)luaL_optinteger(L, 2, 0), lost = 0;
	struct sm_error err = { 0 };
	struct sm_buf text;
	sm_buf_init(&text, 4u << 20);
	int code = sm_control_console(vm->parts.control, &cursor, &text, &lost, &err);
	if (code < 0) {
		sm_buf_done(&text);
		return sm_lua_fail(L, code, &err);
	}
	luaL_Buffer copy;
	char *room = luaL_buffinitsize(L, &copy, text.len);
	if (text.len)
		memcpy(room, text.data, text.len);
	luaL_pushresultsize(&copy, text.len);
	sm_buf_done(&text);
	lua_pushinteger(L, (lua_Integer)cursor);
	lua_pushinteger(L, (lua_Integer)lost);
	return 3;
}

static void set_integer(lua_State *L, const char *name, uint64_t value)
{
	lua_pushinteger(L, (lua_Integer)value);
	lua_setfield(L, -2, name);
}

/* What the file server has counted, as the field "fs". */
static void push_fs(lua_State *L, const struct sm_fuse_stats *fs)
{
	lua_createtable(L, 0, 10);
	set_integer(L, "requests", fs->requests);
	set_integer(L, "errors", fs->errors);
	set_integer(L, "hostile", fs->hostile);
	set_integer(L, "stale", fs->stale);
	set_integer(L, "mended", fs->mended);
	set_integer(L, "nodes", fs->nodes);
	set_integer(L, "handles", fs->handles);
	set_integer(L, "descriptors", fs->descriptors);
	set_integer(L, "dax_bytes", fs->dax_bytes);
	set_integer(L, "evicted", fs->evicted);
	lua_setfield(L, -2, "fs");
}

static int vm_devices(lua_State *L)
{
	struct vm *vm = check(L);
	struct sm_control_device *devices = NULL;
	unsigned count = 0;
	struct sm_error err = { 0 };
	int code = sm_control_devices(vm->parts.control, &devices, &count, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_createtable(L, (int)count, 0);
	for (unsigned i = 0; i < count; i++) {
		const struct sm_control_device *device = &devices[i];
		lua_createtable(L, 0, 10);
		lua_pushstring(L, sm_plan_kind_name(device->slot.kind));
		lua_setfield(L, -2, "kind");
		set_integer(L, "index", device->slot.index);
		set_integer(L, "mmio_base", device->slot.base);
		set_integer(L, "irq", device->slot.irq);
		lua_pushboolean(L, device->slot.backed);
		lua_setfield(L, -2, "backed");
		set_integer(L, "requests", device->requests);
		set_integer(L, "bytes", device->bytes);
		set_integer(L, "errors", device->errors);
		set_integer(L, "kicks", device->kicks);
		set_integer(L, "full", device->full);
		set_integer(L, "interrupts", device->interrupts);
		if (device->has_fs)
			push_fs(L, &device->fs);
		lua_seti(L, -2, (lua_Integer)i + 1);
	}
	free(devices);
	return 1;
}

static int vm_statistics(lua_State *L)
{
	struct vm *vm = check(L);
	struct sm_control_statistics statistics;
	struct sm_error err = { 0 };
	int code = sm_control_statistics(vm->parts.control, &statistics, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_createtable(L, 0, 6);
	set_integer(L, "exits", statistics.exits);
	set_integer(L, "mmio_exits", statistics.mmio_exits);
	set_integer(L, "pio_exits", statistics.pio_exits);
	set_integer(L, "kicks", statistics.kicks);
	set_integer(L, "unhandled", statistics.unhandled);
	set_integer(L, "balloon_mib", statistics.balloon_mib);
	return 1;
}

/* Microseconds of each stage. */
static int vm_timings(lua_State *L)
{
	struct vm *vm = check(L);
	struct sm_control_times times;
	struct sm_error err = { 0 };
	int code = sm_control_times(vm->parts.control, &times, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_createtable(L, 0, 9);
	set_integer(L, "vm_us", times.vm_us);
	set_integer(L, "map_us", times.map_us);
	set_integer(L, "memslot_us", times.memslot_us);
	set_integer(L, "irqchip_us", times.irqchip_us);
	set_integer(L, "vcpus_us", times.vcpus_us);
	set_integer(L, "devices_us", times.devices_us);
	set_integer(L, "total_us", times.total_us);
	set_integer(L, "identity_us", times.identity_us);
	set_integer(L, "first_run_us", times.first_run_us);
	return 1;
}

static int vm_pid(lua_State *L)
{
	int pid = sm_control_pid(check(L)->parts.control);
	if (pid == 0)
		return 0;
	lua_pushinteger(L, pid);
	return 1;
}

static uint32_t check_port(lua_State *L, int index)
{
	lua_Integer port = luaL_checkinteger(L, index);
	luaL_argcheck(L, port >= 0 && port < UINT32_MAX, index, "port out of range");
	return (uint32_t)port;
}

/* A raw stream to a vsock port of the guest. */
static int vm_vsock(lua_State *L)
{
	struct vm *vm = check(L);
	uint32_t port = check_port(L, 2);
	int fd = -1;
	struct sm_error err = { 0 };
	int code = sm_control_connect(vm->parts.control, port, &fd, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	return sm_lua_stream_push(L, fd, 1);
}

/* A process over a new connection to the agent; the request table is checked by process.c. */
static int vm_process(lua_State *L)
{
	struct vm *vm = check(L);
	luaL_checktype(L, 2, LUA_TTABLE);
	int fd = -1;
	struct sm_error err = { 0 };
	int code = sm_control_connect(vm->parts.control, SM_AGENT_PORT, &fd, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	return sm_lua_process_push(L, fd, 2, 1);
}

/* nil: it has none, having been booted, or left paused. */
static int vm_id(lua_State *L)
{
	static const uint8_t none[16];
	uint8_t id[16];
	char text[37];
	sm_control_id(check(L)->parts.control, id);
	if (!memcmp(id, none, sizeof id))
		return 0;
	snprintf(text, sizeof text, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", id[0],
	         id[1], id[2], id[3], id[4], id[5], id[6], id[7], id[8], id[9], id[10], id[11], id[12], id[13], id[14],
	         id[15]);
	lua_pushstring(L, text);
	return 1;
}

static int vm_set_balloon(lua_State *L)
{
	struct vm *vm = check(L);
	lua_Integer mib = luaL_checkinteger(L, 2);
	luaL_argcheck(L, mib >= 0, 2, "MiB cannot be negative");
	struct sm_error err = { 0 };
	return done(L, sm_control_set_balloon(vm->parts.control, (uint64_t)mib, &err), &err);
}

static const luaL_Reg methods[] = {
	{ "plan", vm_plan },
	{ "resume", vm_resume },
	{ "pause", vm_pause },
	{ "ended", vm_ended },
	{ "end_fd", vm_end_fd },
	{ "console_from", vm_console_from },
	{ "devices", vm_devices },
	{ "statistics", vm_statistics },
	{ "timings", vm_timings },
	{ "pid", vm_pid },
	{ "id", vm_id },
	{ "vsock", vm_vsock },
	{ "process", vm_process },
	{ "set_balloon", vm_set_balloon },
	{ NULL, NULL },
};
static const struct sm_lua_class vm_class = {
	.name = "supermachine.vm",
	.size = sizeof(struct vm),
	.methods = methods,
	.close = vm_close,
	.describe = vm_describe,
};

int sm_lua_vm_push(lua_State *L, struct sm_lua_vm_parts *parts, int parent)
{
	if (parent)
		parent = lua_absindex(L, parent);
	struct vm *vm = sm_lua_new(L, &vm_class);
	vm->parts = *parts;
	vm->paused = parts->pool == NULL;
	vm->handle.open = true;
	memset(parts, 0, sizeof *parts);
	parts->ready_fd = -1;
	if (parent)
		sm_lua_keep(L, -1, parent);
	return 1;
}

void sm_lua_vm_open(lua_State *L);

void sm_lua_vm_open(lua_State *L)
{
	sm_lua_class_register(L, &vm_class);
	luaL_getmetatable(L, vm_class.name);
	lua_getfield(L, -1, "__index");
	luaL_setfuncs(L, sm_lua_vm_agent_methods, 0);
	luaL_setfuncs(L, sm_lua_vm_snapshot_methods, 0);
	luaL_setfuncs(L, sm_lua_vm_volumes_methods, 0);
	luaL_setfuncs(L, sm_lua_vm_mounts_methods, 0);
	luaL_setfuncs(L, sm_lua_vm_interpreter_methods, 0);
}
