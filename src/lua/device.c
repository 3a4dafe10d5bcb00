/* core.serial8250, core.pl011(ring_bytes): serial ports without a machine.  core.bus(): an address space of marked
 * ranges. */
#include "base/fd.h"
#include "device/bus.h"
#include "device/pl011.h"
#include "device/serial8250.h"
#include "lua/support.h"

#include <errno.h>

#define STATE_MAX 4096

struct serial {
	struct sm_lua_handle handle;
	struct sm_ring ring;
	struct sm_serial *port;
	int irq_fd;
};

static void serial_close(void *payload)
{
	struct serial *self = payload;
	sm_serial_free(self->port);
	sm_ring_done(&self->ring);
	sm_fd_close(&self->irq_fd);
}

static const struct sm_lua_class serial_class;

/* get(offset of a register, size or 1) -> value */
static int serial_get(lua_State *L)
{
	struct serial *self = sm_lua_check(L, 1, &serial_class);
	uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
	lua_pushinteger(L, (lua_Integer)sm_serial_read(self->port, offset, (unsigned)luaL_optinteger(L, 3, 1)));
	return 1;
}

/* set(offset of a register, value, size or 1) */
static int serial_set(lua_State *L)
{
	struct serial *self = sm_lua_check(L, 1, &serial_class);
	uint64_t offset = (uint64_t)luaL_checkinteger(L, 2), value = (uint64_t)luaL_checkinteger(L, 3);
	sm_serial_write(self->port, offset, (unsigned)luaL_optinteger(L, 4, 1), value);
	return 0;
}

/* type(string) -> bytes taken */
static int serial_type(lua_State *L)
{
	struct serial *self = sm_lua_check(L, 1, &serial_class);
	size_t len;
	const char *data = luaL_checklstring(L, 2, &len);
	lua_pushinteger(L, (lua_Integer)sm_serial_input(self->port, data, len));
	return 1;
}

/* interrupts() -> how many since the last call */
static int serial_interrupts(lua_State *L)
{
	struct serial *self = sm_lua_check(L, 1, &serial_class);
	lua_pushinteger(L, (lua_Integer)sm_fd_event_take(self->irq_fd));
	return 1;
}

/* print(string): straight into the ring. */
static int serial_print(lua_State *L)
{
	struct serial *self = sm_lua_check(L, 1, &serial_class);
	size_t len;
	const char *data = luaL_checklstring(L, 2, &len);
	sm_ring_write(&self->ring, data, len);
	return 0;
}

/* output(cursor) -> string, new cursor, bytes lost; or nil, message, code */
static int serial_output(lua_State *L)
{
	struct serial *self = sm_lua_check(L, 1, &serial_class);
	uint64_t cursor = (uint64_t)luaL_optinteger(L, 2, 0), lost = 0;
	struct sm_buf buf;
	void *room = sm_lua_room(L, self->ring.capacity, &buf);
	int code = sm_ring_read(&self->ring, &cursor, &buf, &lost);
	int pushed = sm_lua_built(L, room, &buf, code, NULL);
	if (code < 0)
		return pushed;
	lua_pushinteger(L, (lua_Integer)cursor);
	lua_pushinteger(L, (lua_Integer)lost);
	return 3;
}

/* tail(bytes) -> the last bytes */
static int serial_tail(lua_State *L)
{
	struct serial *self = sm_lua_check(L, 1, &serial_class);
	lua_Integer size = luaL_checkinteger(L, 2);
	luaL_argcheck(L, size >= 0 && size <= 1 << 20, 2, "from 0 bytes to 1 MiB");
	luaL_Buffer out;
	char *room = luaL_buffinitsize(L, &out, (size_t)size + 1);
	luaL_pushresultsize(&out, sm_ring_tail(&self->ring, room, (size_t)size + 1));
	return 1;
}

/* last_line(text, most bytes) -> from text on, or nil */
static int serial_last_line(lua_State *L)
{
	struct serial *self = sm_lua_check(L, 1, &serial_class);
	char line[256];
	lua_Integer most = luaL_optinteger(L, 3, sizeof line - 1);
	luaL_argcheck(L, most >= 0 && most < (lua_Integer)sizeof line, 3, "at most 255");
	if (sm_ring_last_line(&self->ring, luaL_checkstring(L, 2), line, (size_t)most + 1))
		lua_pushstring(L, line);
	else
		luaL_pushfail(L);
	return 1;
}

/* save() -> string */
static int serial_save(lua_State *L)
{
	struct serial *self = sm_lua_check(L, 1, &serial_class);
	struct sm_buf buf;
	void *room = sm_lua_room(L, STATE_MAX, &buf);
	sm_serial_save(self->port, &buf);
	return sm_lua_built(L, room, &buf, buf.failed, NULL);
}

/* load(string) -> true, or nil, message, code */
static int serial_load(lua_State *L)
{
	struct serial *self = sm_lua_check(L, 1, &serial_class);
	size_t len;
	const char *data = luaL_checklstring(L, 2, &len);
	struct sm_reader reader;
	sm_reader_init(&reader, data, len);
	struct sm_error err = { 0 };
	int code = sm_serial_load(self->port, &reader, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	sm_serial_restored(self->port);
	lua_pushboolean(L, true);
	return 1;
}

static const luaL_Reg serial_methods[] = {
	{ "get", serial_get },
	{ "set", serial_set },
	{ "type", serial_type },
	{ "interrupts", serial_interrupts },
	{ "print", serial_print },
	{ "output", serial_output },
	{ "tail", serial_tail },
	{ "last_line", serial_last_line },
	{ "save", serial_save },
	{ "load", serial_load },
	{ NULL, NULL },
};

static const struct sm_lua_class serial_class = {
	.name = "supermachine.serial",
	.size = sizeof(struct serial),
	.methods = serial_methods,
	.close = serial_close,
};

typedef int (*maker)(struct sm_ring *output, const struct sm_line *line, struct sm_serial **ret_serial,
                     struct sm_error *err);

static int serial_new(lua_State *L, maker make)
{
	lua_Integer bytes = luaL_optinteger(L, 1, 0);
	luaL_argcheck(L, bytes >= 0 && bytes <= 1 << 20, 1, "from 0 bytes to 1 MiB");
	struct serial *self = sm_lua_new(L, &serial_class);
	struct sm_error err = { 0 };
	int code = sm_ring_init(&self->ring, (size_t)bytes, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	code = self->irq_fd = sm_fd_event();
	const struct sm_line line = sm_fd_event_line(self->irq_fd);
	if (code >= 0)
		code = make(&self->ring, &line, &self->port, &err);
	if (code < 0) {
		sm_fd_close(&self->irq_fd);
		sm_ring_done(&self->ring);
		return sm_lua_fail(L, code, &err);
	}
	self->handle.open = true;
	return 1;
}

/* serial8250(ring_bytes), pl011(ring_bytes) -> a port, or nil, message, code */
static int serial8250_new(lua_State *L)
{
	return serial_new(L, sm_serial8250_new);
}

static int pl011_new(lua_State *L)
{
	return serial_new(L, sm_pl011_new);
}

struct bus {
	struct sm_lua_handle handle;
	struct sm_bus bus;
};

static void bus_close(void *payload)
{
	struct bus *self = payload;
	sm_bus_done(&self->bus);
}

static const struct sm_lua_class bus_class;

/* Each range answers with its number in the high half and the offset in the low. */
static uint64_t range_read(void *ctx, uint64_t offset, unsigned size)
{
	(void)size;
	return (uint64_t)(uintptr_t)ctx << 32 | offset;
}

/* add(base, length, number) -> true, or nil, message, code */
static int bus_add(lua_State *L)
{
	struct bus *self = sm_lua_check(L, 1, &bus_class);
	const struct sm_bus_range range = {
		.base = (uint64_t)luaL_checkinteger(L, 2),
		.length = (uint64_t)luaL_checkinteger(L, 3),
		.read = range_read,
		.ctx = (void *)(uintptr_t)luaL_checkinteger(L, 4),
	};
	struct sm_error err = { 0 };
	int code = sm_bus_add(&self->bus, &range, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushboolean(L, true);
	return 1;
}

/* read(address, size) -> value, whether something is there */
static int bus_read(lua_State *L)
{
	struct bus *self = sm_lua_check(L, 1, &bus_class);
	uint64_t value;
	bool found =
	    sm_bus_read(&self->bus, (uint64_t)luaL_checkinteger(L, 2), (unsigned)luaL_checkinteger(L, 3), &value);
	lua_pushinteger(L, (lua_Integer)value);
	lua_pushboolean(L, found);
	return 2;
}

static const luaL_Reg bus_methods[] = {
	{ "add", bus_add },
	{ "read", bus_read },
	{ NULL, NULL },
};

static const struct sm_lua_class bus_class = {
	.name = "supermachine.bus",
	.size = sizeof(struct bus),
	.methods = bus_methods,
	.close = bus_close,
};

static int bus_new(lua_State *L)
{
	struct bus *self = sm_lua_new(L, &bus_class);
	sm_bus_init(&self->bus);
	self->handle.open = true;
	return 1;
}

void sm_lua_device_open(lua_State *L);

void sm_lua_device_open(lua_State *L)
{
	sm_lua_class_register(L, &serial_class);
	sm_lua_class_register(L, &bus_class);
	static const luaL_Reg functions[] = {
		{ "serial8250", serial8250_new },
		{ "pl011", pl011_new },
		{ "bus", bus_new },
		{ NULL, NULL },
	};
	luaL_setfuncs(L, functions, 0);
}
