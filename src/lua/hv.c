/* The hypervisor's back end for Lua: what it can do, and small guests directly on it, for its specs. */
#include "base/fd.h"
#include "lua/hv_guest.h"
#include "lua/support.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#define RUN_MS     20000
#define MEMORY_MIB 16

/* ---- core.microguest ------------------------------------------------------------------------------------------- */

struct microguest {
	struct sm_lua_handle handle;
	struct sm_hv_guest *guest;
};

static void microguest_close(void *payload)
{
	sm_hv_guest_free(((struct microguest *)payload)->guest);
}

static const luaL_Reg methods[];
static const struct sm_lua_class microguest_class;

static struct sm_hv_guest *check_guest(lua_State *L)
{
	return ((struct microguest *)sm_lua_check(L, 1, &microguest_class))->guest;
}

static unsigned check_vcpu(lua_State *L, struct sm_hv_guest *guest, int index)
{
	lua_Integer vcpu = luaL_optinteger(L, index, 0);
	luaL_argcheck(L, vcpu >= 0 && vcpu < (lua_Integer)sm_hv_guest_vcpus(guest), index, "no such vCPU");
	return (unsigned)vcpu;
}

static void begin(lua_State *L, struct sm_hv_guest *guest, unsigned vcpu, enum sm_hv_guest_task task)
{
	if (sm_hv_guest_begin(guest, vcpu, task) < 0)
		luaL_error(L, "vCPU %d is running", (int)vcpu);
}

static int push_done(lua_State *L, int code, const struct sm_error *err)
{
	if (code < 0)
		return sm_lua_fail(L, code, err);
	lua_pushboolean(L, true);
	return 1;
}

static const char *exit_name(enum sm_hv_exit_kind kind)
{
	static const char *const names[] = {
		[SM_HV_EXIT_MMIO] = "mmio",         [SM_HV_EXIT_PIO] = "pio",     [SM_HV_EXIT_HALT] = "halt",
		[SM_HV_EXIT_SHUTDOWN] = "shutdown", [SM_HV_EXIT_RESET] = "reset", [SM_HV_EXIT_POWEROFF] = "poweroff",
		[SM_HV_EXIT_KICK] = "kick",         [SM_HV_EXIT_FAULT] = "fault", [SM_HV_EXIT_ERROR] = "error",
	};
	return kind > 0 && kind < sizeof names / sizeof *names ? names[kind] : "?";
}

/* {kind=, write=, size=, address=, data=, error=, detail=} */
static int push_exit(lua_State *L, const struct sm_hv_exit *io)
{
	lua_createtable(L, 0, 7);
	lua_pushstring(L, exit_name(io->kind));
	lua_setfield(L, -2, "kind");
	if (io->kind == SM_HV_EXIT_MMIO || io->kind == SM_HV_EXIT_PIO) {
		lua_pushboolean(L, io->write);
		lua_setfield(L, -2, "write");
		lua_pushinteger(L, io->size);
		lua_setfield(L, -2, "size");
		lua_pushinteger(L, (lua_Integer)io->address);
		lua_setfield(L, -2, "address");
		lua_pushinteger(L, (lua_Integer)io->data);
		lua_setfield(L, -2, "data");
	}
	if (io->kind == SM_HV_EXIT_FAULT && io->address != UINT64_MAX) {
		lua_pushinteger(L, (lua_Integer)io->address);
		lua_setfield(L, -2, "address");
	}
	if (io->error) {
		lua_pushstring(L, sm_error_name(io->error));
		lua_setfield(L, -2, "error");
	}
	if (io->detail) {
		lua_pushstring(L, io->detail);
		lua_setfield(L, -2, "detail");
	}
	return 1;
}

/* guest:start([vcpu[, answer]]): run, with the answer to the last read; guest:wait says where it stopped. */
static int microguest_start(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	unsigned vcpu = check_vcpu(L, guest, 2);
	lua_Integer answer = luaL_optinteger(L, 3, 0);
	if (!lua_isnoneornil(L, 3))
		sm_hv_guest_io(guest, vcpu)->data = (uint64_t)answer;
	begin(L, guest, vcpu, SM_HV_GUEST_RUN);
	return 0;
}

/* guest:wait([vcpu[, timeout_ms]]): the exit, or nil, message, "ETIMEDOUT"; the vCPU goes on then. */
static int microguest_wait(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	unsigned vcpu = check_vcpu(L, guest, 2);
	int timeout_ms = (int)luaL_optinteger(L, 3, RUN_MS);
	struct sm_error err = { 0 };
	int code = sm_hv_guest_wait(guest, vcpu, timeout_ms, &err);
	return code < 0 ? sm_lua_fail(L, code, &err) : push_exit(L, sm_hv_guest_io(guest, vcpu));
}

/* guest:run([vcpu[, answer]]): start and wait. */
static int microguest_run(lua_State *L)
{
	microguest_start(L);
	lua_settop(L, 2);
	return microguest_wait(L);
}

static int microguest_kick(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	sm_hv_guest_kick(guest, check_vcpu(L, guest, 2));
	return 0;
}

static int perform(lua_State *L, struct sm_hv_guest *guest, unsigned vcpu, enum sm_hv_guest_task task,
                   struct sm_error *err)
{
	begin(L, guest, vcpu, task);
	return sm_hv_guest_wait(guest, vcpu, -1, err);
}

/* guest:settle([vcpu[, answer]]): true, or the exit that is to be answered next. */
static int microguest_settle(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	unsigned vcpu = check_vcpu(L, guest, 2);
	if (!lua_isnoneornil(L, 3))
		sm_hv_guest_io(guest, vcpu)->data = (uint64_t)luaL_checkinteger(L, 3);
	struct sm_error err = { 0 };
	int code = perform(L, guest, vcpu, SM_HV_GUEST_SETTLE, &err);
	return code == 1 ? push_exit(L, sm_hv_guest_io(guest, vcpu)) : push_done(L, code, &err);
}

static int microguest_halted(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	lua_pushboolean(L, perform(L, guest, check_vcpu(L, guest, 2), SM_HV_GUEST_HALTED, NULL) > 0);
	return 1;
}

static int microguest_where(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	lua_pushinteger(L, perform(L, guest, check_vcpu(L, guest, 2), SM_HV_GUEST_WHERE, NULL));
	return 1;
}

static int microguest_resumed(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	perform(L, guest, check_vcpu(L, guest, 2), SM_HV_GUEST_RESUMED, NULL);
	return 0;
}

/* guest:save_vcpu([vcpu]): its records as a string. */
static int microguest_save_vcpu(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	unsigned vcpu = check_vcpu(L, guest, 2);
	struct sm_error err = { 0 };
	int code = perform(L, guest, vcpu, SM_HV_GUEST_SAVE, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	const struct sm_buf *state = sm_hv_guest_state(guest, vcpu);
	lua_pushlstring(L, (const char *)state->data, state->len);
	return 1;
}

/* guest:load_vcpu(vcpu, records) */
static int microguest_load_vcpu(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	unsigned vcpu = check_vcpu(L, guest, 2);
	size_t len;
	const char *records = luaL_checklstring(L, 3, &len);
	struct sm_buf *state = sm_hv_guest_state(guest, vcpu);
	sm_buf_clear(state);
	struct sm_error err = { 0 };
	int code = sm_buf_append(state, records, len);
	if (code >= 0)
		code = perform(L, guest, vcpu, SM_HV_GUEST_LOAD, &err);
	if (code > 0)
		code = sm_error_set(&err, EBADMSG, "vCPU state: bytes left over");
	return push_done(L, code, &err);
}

typedef int (*vm_saver)(struct sm_hv_vm *vm, struct sm_buf *out, struct sm_error *err);
typedef int (*vm_loader)(struct sm_hv_vm *vm, struct sm_reader *in, struct sm_error *err);

/* vCPU 0's buffer serves here too: it outlives a Lua error. */
static int save_vm(lua_State *L, struct sm_hv_guest *guest, vm_saver save)
{
	struct sm_buf *out = sm_hv_guest_state(guest, 0);
	sm_buf_clear(out);
	struct sm_error err = { 0 };
	int code = save(sm_hv_guest_vm(guest), out, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushlstring(L, (const char *)out->data, out->len);
	return 1;
}

static int load_vm(lua_State *L, struct sm_hv_guest *guest, vm_loader load)
{
	size_t len;
	const char *records = luaL_checklstring(L, 2, &len);
	struct sm_reader reader;
	sm_reader_init(&reader, records, len);
	struct sm_error err = { 0 };
	return push_done(L, load(sm_hv_guest_vm(guest), &reader, &err), &err);
}

static int microguest_save_vm(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	return save_vm(L, guest, sm_hv_guest_hv(guest)->vm_save);
}

static int microguest_load_vm(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	return load_vm(L, guest, sm_hv_guest_hv(guest)->vm_load);
}

static int microguest_save_clock(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	return save_vm(L, guest, sm_hv_guest_hv(guest)->vm_clock_save);
}

static int microguest_load_clock(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	return load_vm(L, guest, sm_hv_guest_hv(guest)->vm_clock_load);
}

/* guest:irq(number, level) */
static int microguest_irq(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	unsigned irq = (unsigned)luaL_checkinteger(L, 2);
	luaL_checktype(L, 3, LUA_TBOOLEAN);
	return push_done(L, sm_hv_guest_hv(guest)->vm_irq_set(sm_hv_guest_vm(guest), irq, lua_toboolean(L, 3)), NULL);
}

/* guest:ioeventfd(address): the guest's eventfd, for count. */
static int microguest_ioeventfd(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	struct sm_error err = { 0 };
	int fd = -1, code = sm_hv_guest_ioeventfd(guest, (uint64_t)luaL_checkinteger(L, 2), &fd, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushinteger(L, fd);
	return 1;
}

static int microguest_count(lua_State *L)
{
	check_guest(L);
	lua_pushinteger(L, (lua_Integer)sm_fd_event_take((int)luaL_checkinteger(L, 2)));
	return 1;
}

/* guest:read(address, bytes), guest:write(address, string): RAM. */
static int microguest_read(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	uint64_t gpa = (uint64_t)luaL_checkinteger(L, 2);
	lua_Integer len = luaL_checkinteger(L, 3);
	const void *data = len < 0 ? NULL : sm_memory_at_read(sm_hv_guest_memory(guest), gpa, (uint64_t)len);
	if (!data)
		return sm_lua_fail(L, EFAULT, NULL);
	lua_pushlstring(L, data, (size_t)len);
	return 1;
}

static int microguest_write(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	size_t len;
	const char *data = luaL_checklstring(L, 3, &len);
	return push_done(L, sm_memory_write(sm_hv_guest_memory(guest), (uint64_t)luaL_checkinteger(L, 2), data, len),
	                 NULL);
}

/* guest:map(address, bytes[, {read_only=, broken=}]), guest:unmap(address) */
static int microguest_map(lua_State *L)
{
	static const char *const known[] = { "read_only", "broken", NULL };
	struct sm_hv_guest *guest = check_guest(L);
	uint64_t gpa = (uint64_t)luaL_checkinteger(L, 2), bytes = (uint64_t)luaL_checkinteger(L, 3);
	sm_lua_options_check(L, 4, known);
	bool read_only = sm_lua_option_boolean(L, 4, "read_only", false);
	bool broken = sm_lua_option_boolean(L, 4, "broken", false);
	struct sm_error err = { 0 };
	return push_done(L, sm_hv_guest_map(guest, gpa, bytes, read_only, broken, &err), &err);
}

static int microguest_unmap(lua_State *L)
{
	struct sm_hv_guest *guest = check_guest(L);
	struct sm_error err = { 0 };
	return push_done(L, sm_hv_guest_unmap(guest, (uint64_t)luaL_checkinteger(L, 2), &err), &err);
}

static const luaL_Reg methods[] = {
	{ "start", microguest_start },
	{ "wait", microguest_wait },
	{ "run", microguest_run },
	{ "kick", microguest_kick },
	{ "settle", microguest_settle },
	{ "halted", microguest_halted },
	{ "where", microguest_where },
	{ "resumed", microguest_resumed },
	{ "save_vcpu", microguest_save_vcpu },
	{ "load_vcpu", microguest_load_vcpu },
	{ "save_vm", microguest_save_vm },
	{ "load_vm", microguest_load_vm },
	{ "save_clock", microguest_save_clock },
	{ "load_clock", microguest_load_clock },
	{ "irq", microguest_irq },
	{ "ioeventfd", microguest_ioeventfd },
	{ "count", microguest_count },
	{ "read", microguest_read },
	{ "write", microguest_write },
	{ "map", microguest_map },
	{ "unmap", microguest_unmap },
	{ NULL, NULL },
};
static const struct sm_lua_class microguest_class = {
	.name = "supermachine.microguest",
	.size = sizeof(struct microguest),
	.methods = methods,
	.close = microguest_close,
};

static enum sm_hv_boot_kind boot_option(lua_State *L, const char *name)
{
	const char *known;
	for (unsigned kind = SM_HV_BOOT_WAIT; (known = sm_hv_boot_name(kind)); kind++)
		if (!strcmp(known, name))
			return kind;
	if (strcmp(name, "none"))
		luaL_error(L, "option 'boot': unknown value '%s'", name);
	return 0;
}

/* core.microguest{code=bytes, memory_mib=, vcpus=, boot=, arg=, page_table=, cpu_disable=, path=}: a guest whose vCPU 0
 * starts at the code, 1 MiB into RAM; it has run nothing yet. */
static int core_microguest(lua_State *L)
{
	static const char *const known[] = { "code",       "memory_mib",  "vcpus", "boot", "arg",
		                             "page_table", "cpu_disable", "path",  NULL };
	sm_lua_options_check(L, 1, known);
	luaL_checktype(L, 1, LUA_TTABLE);
	struct sm_hv_guest_options options = {
		.path = sm_lua_option_string(L, 1, "path", "/dev/kvm"),
		.memory_mib = (uint64_t)sm_lua_option_integer(L, 1, "memory_mib", MEMORY_MIB),
		.cpu_disable = sm_lua_option_string(L, 1, "cpu_disable", NULL),
	};
	const char *boot = sm_lua_option_string(L, 1, "boot", NULL);
	options.plain = !boot;
	options.boot.kind = boot ? boot_option(L, boot) : 0;
	options.boot.arg = (uint64_t)sm_lua_option_integer(L, 1, "arg", 0);
	options.boot.page_table = (uint64_t)sm_lua_option_integer(L, 1, "page_table", 0);
	lua_Integer vcpus = sm_lua_option_integer(L, 1, "vcpus", 1);
	options.vcpus = vcpus < 0 || vcpus > INT_MAX ? UINT_MAX : (unsigned)vcpus;
	sm_lua_option_string(L, 1, "code", "");
	lua_getfield(L, 1, "code");
	options.code = luaL_optlstring(L, -1, "", &options.code_bytes);

	struct microguest *microguest = sm_lua_new(L, &microguest_class);
	struct sm_error err = { 0 };
	int code = sm_hv_guest_new(&options, &microguest->guest, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	microguest->handle.open = true;
	return 1;
}

/* core.hv_caps(path): {name=, ioeventfd=, max_vcpus=, gpa_bits=} */
static int core_hv_caps(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	struct sm_error err = { 0 };
	struct sm_hv_caps caps;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	int code = fd < 0 ? sm_error_sys(&err, errno, "open %s", path) : sm_hv_host()->caps(fd, &caps, &err);
	sm_fd_close(&fd);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_createtable(L, 0, 4);
	lua_pushstring(L, caps.name);
	lua_setfield(L, -2, "name");
	lua_pushboolean(L, caps.ioeventfd);
	lua_setfield(L, -2, "ioeventfd");
	lua_pushinteger(L, caps.max_vcpus);
	lua_setfield(L, -2, "max_vcpus");
	lua_pushinteger(L, caps.gpa_bits);
	lua_setfield(L, -2, "gpa_bits");
	return 1;
}

void sm_lua_hv_open(lua_State *L);

void sm_lua_hv_open(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "microguest", core_microguest },
		{ "hv_caps", core_hv_caps },
		{ NULL, NULL },
	};
	sm_lua_class_register(L, &microguest_class);
	luaL_setfuncs(L, functions, 0);
}
