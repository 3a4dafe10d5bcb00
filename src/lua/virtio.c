/* A virtio device over plain memory, without a machine around it: the specs play the guest's driver. */
#include "lua/virtio.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>

#define STATE_MAX (1u << 20)

void sm_lua_virtio_open(lua_State *L);

void sm_lua_virtio_done(struct sm_lua_virtio *device)
{
	sm_virtio_free(device->virtio);
	sm_loop_remove(device->turn);
	sm_loop_free(device->loop);
	sm_memory_free(device->memory);
	sm_fd_close(&device->irq_fd);
	sm_fd_close(&device->turn_fd);
	sm_fd_close(&device->echo_fd);
}

static void device_close(void *payload)
{
	sm_lua_virtio_done(payload);
}

static int device_mmio_read(lua_State *L);
static int device_mmio_write(lua_State *L);
static int device_read(lua_State *L);
static int device_write(lua_State *L);
static int device_load16(lua_State *L);
static int device_store16(lua_State *L);
static int device_marked(lua_State *L);
static int device_irq(lua_State *L);
static int device_pause(lua_State *L);
static int device_resume(lua_State *L);
static int device_settle(lua_State *L);
static int device_save(lua_State *L);
static int device_load(lua_State *L);
static int device_restored(lua_State *L);
static int device_stats(lua_State *L);
static int device_connect(lua_State *L);
static int device_listen(lua_State *L);
static int device_balloon_set(lua_State *L);
static int device_balloon_actual(lua_State *L);
static int device_back(lua_State *L);
static int device_forget(lua_State *L);

static const luaL_Reg device_methods[] = {
	{ "mmio_read", device_mmio_read },
	{ "mmio_write", device_mmio_write },
	{ "read", device_read },
	{ "write", device_write },
	{ "load16", device_load16 },
	{ "store16", device_store16 },
	{ "marked", device_marked },
	{ "irq", device_irq },
	{ "pause", device_pause },
	{ "resume", device_resume },
	{ "settle", device_settle },
	{ "save", device_save },
	{ "load", device_load },
	{ "restored", device_restored },
	{ "stats", device_stats },
	{ "connect", device_connect },
	{ "listen", device_listen },
	{ "balloon_set", device_balloon_set },
	{ "balloon_actual", device_balloon_actual },
	{ "back", device_back },
	{ "forget", device_forget },
	{ NULL, NULL },
};
static const struct sm_lua_class device_class = {
	.name = "supermachine.virtio_device",
	.size = sizeof(struct sm_lua_virtio),
	.methods = device_methods,
	.close = device_close,
};

struct sm_lua_virtio *sm_lua_virtio_new(lua_State *L)
{
	struct sm_lua_virtio *device = sm_lua_new(L, &device_class);
	device->irq_fd = device->turn_fd = device->echo_fd = -1;
	return device;
}

struct sm_lua_virtio *sm_lua_virtio_check(lua_State *L, int index)
{
	return sm_lua_check(L, index, &device_class);
}

static struct sm_lua_virtio *check_device(lua_State *L)
{
	return sm_lua_virtio_check(L, 1);
}

static int device_mmio_read(lua_State *L)
{
	struct sm_lua_virtio *device = check_device(L);
	uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
	unsigned size = (unsigned)luaL_checkinteger(L, 3);
	lua_pushinteger(L, (lua_Integer)sm_virtio_mmio_read(device->virtio, offset, size));
	return 1;
}

static int device_mmio_write(lua_State *L)
{
	struct sm_lua_virtio *device = check_device(L);
	uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
	unsigned size = (unsigned)luaL_checkinteger(L, 3);
	sm_virtio_mmio_write(device->virtio, offset, size, (uint64_t)luaL_checkinteger(L, 4));
	return 0;
}

static int device_read(lua_State *L)
{
	struct sm_lua_virtio *device = check_device(L);
	uint64_t gpa = (uint64_t)luaL_checkinteger(L, 2);
	uint64_t len = (uint64_t)luaL_checkinteger(L, 3);
	luaL_Buffer out;
	char *room = luaL_buffinitsize(L, &out, len);
	luaL_argcheck(L, sm_memory_read(device->memory, gpa, room, len) == 0, 2, "neither in RAM nor in a window");
	luaL_pushresultsize(&out, len);
	return 1;
}

/* The guest's writes go past memory/, which marks the host's. */
static int device_write(lua_State *L)
{
	struct sm_lua_virtio *device = check_device(L);
	uint64_t gpa = (uint64_t)luaL_checkinteger(L, 2);
	size_t len;
	const char *data = luaL_checklstring(L, 3, &len);
	void *at = (void *)(uintptr_t)sm_memory_at_read(device->memory, gpa, len);
	if (at)
		memcpy(at, data, len);
	else
		luaL_argcheck(L, sm_memory_write(device->memory, gpa, data, len) == 0, 2,
		              "neither in RAM nor in a window");
	return 0;
}

static uint16_t *check_ring(lua_State *L, struct sm_lua_virtio *device)
{
	uint64_t gpa = (uint64_t)luaL_checkinteger(L, 2);
	const void *at = sm_memory_at_read(device->memory, gpa, 2);
	luaL_argcheck(L, at && gpa % 2 == 0, 2, "not in RAM");
	return (uint16_t *)(uintptr_t)at;
}

/* Ring indexes, in order with what was written before and is read after. */
static int device_load16(lua_State *L)
{
	lua_pushinteger(L, __atomic_load_n(check_ring(L, check_device(L)), __ATOMIC_SEQ_CST));
	return 1;
}

static int device_store16(lua_State *L)
{
	uint16_t *at = check_ring(L, check_device(L));
	__atomic_store_n(at, (uint16_t)luaL_checkinteger(L, 3), __ATOMIC_SEQ_CST);
	return 0;
}

static int device_marked(lua_State *L)
{
	struct sm_lua_virtio *device = check_device(L);
	lua_pushboolean(L, sm_memory_marked(device->memory, (uint64_t)luaL_checkinteger(L, 2)));
	return 1;
}

/* irq(timeout_ms) -> interrupts raised since the last call, 0 on timeout. */
static int device_irq(lua_State *L)
{
	struct sm_lua_virtio *device = check_device(L);
	int timeout_ms = (int)luaL_checkinteger(L, 2);
	sm_fd_wait(device->irq_fd, POLLIN, timeout_ms);
	lua_pushinteger(L, (lua_Integer)sm_fd_event_take(device->irq_fd));
	return 1;
}

static int device_pause(lua_State *L)
{
	struct sm_lua_virtio *device = check_device(L);
	device->paused++;
	sm_loop_pause(device->loop);
	sm_virtio_pause(device->virtio);
	return 0;
}

static int device_resume(lua_State *L)
{
	struct sm_lua_virtio *device = check_device(L);
	if (!device->paused)
		return luaL_error(L, "device is not paused");
	device->paused--;
	sm_virtio_resume(device->virtio);
	sm_loop_resume(device->loop);
	return 0;
}

static void turned(void *arg, uint32_t events)
{
	(void)events;
	struct sm_lua_virtio *device = arg;
	sm_fd_event_take(device->turn_fd);
	sm_fd_event_raise(device->echo_fd);
}

int sm_lua_virtio_surround(struct sm_lua_virtio *device, const struct sm_plan *plan, struct sm_error *err)
{
	int code = sm_memory_new(plan, NULL, 0, &device->memory, err);
	if (code < 0)
		return code;
	device->irq_fd = sm_fd_event();
	if (device->irq_fd < 0)
		return sm_error_sys(err, device->irq_fd, "eventfd");
	device->turn_fd = sm_fd_event();
	device->echo_fd = sm_fd_event();
	if (device->turn_fd < 0 || device->echo_fd < 0)
		return sm_error_set(err, EMFILE, "no descriptor left");
	code = sm_loop_new(&device->loop, err);
	if (code >= 0)
		code = sm_loop_start(device->loop, err);
	if (code < 0)
		return code;
	code = sm_loop_add(device->loop, device->turn_fd, EPOLLIN, turned, device, &device->turn);
	return code < 0 ? sm_error_sys(err, code, "watch an eventfd") : 0;
}

/* Until the loop has seen every event of before this call, and what those gave rise to.  epoll reports events in the
 * order in which they came up. */
static int device_settle(lua_State *L)
{
	struct sm_lua_virtio *device = check_device(L);
	if (device->paused)
		return luaL_error(L, "device is paused");
	for (unsigned turn = 0; turn < 3; turn++) {
		sm_fd_event_raise(device->turn_fd);
		sm_fd_wait(device->echo_fd, POLLIN, -1);
		sm_fd_event_take(device->echo_fd);
	}
	return 0;
}

static int device_save(lua_State *L)
{
	struct sm_lua_virtio *device = check_device(L);
	struct sm_buf buf;
	void *room = sm_lua_room(L, STATE_MAX, &buf);
	struct sm_error err = { 0 };
	int code = sm_virtio_save(device->virtio, &buf, &err);
	return sm_lua_built(L, room, &buf, code, &err);
}

static int device_load(lua_State *L)
{
	struct sm_lua_virtio *device = check_device(L);
	size_t len;
	const char *data = luaL_checklstring(L, 2, &len);
	struct sm_reader reader;
	sm_reader_init(&reader, data, len);
	struct sm_error err = { 0 };
	int code = sm_virtio_load(device->virtio, &reader, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushboolean(L, true);
	return 1;
}

static int device_restored(lua_State *L)
{
	sm_virtio_restored(check_device(L)->virtio);
	return 0;
}

static int device_stats(lua_State *L)
{
	struct sm_virtio_stats stats;
	sm_virtio_stats(check_device(L)->virtio, &stats);
	const struct {
		const char *name;
		uint64_t value;
	} fields[] = { { "requests", stats.requests }, { "bytes", stats.bytes }, { "errors", stats.errors },
		       { "full", stats.full },         { "kicks", stats.kicks }, { "interrupts", stats.interrupts } };
	lua_newtable(L);
	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
		lua_pushinteger(L, (lua_Integer)fields[i].value);
		lua_setfield(L, -2, fields[i].name);
	}
	return 1;
}

typedef int (*vsock_call)(struct sm_virtio *device, uint32_t port, int *ret_fd, struct sm_error *err);

static int open_stream(lua_State *L, vsock_call call)
{
	struct sm_lua_virtio *device = check_device(L);
	uint32_t port = (uint32_t)luaL_checkinteger(L, 2);
	struct sm_lua_virtio_stream *stream = sm_lua_virtio_stream_new(L);
	struct sm_error err = { 0 };
	int code = call(device->virtio, port, &stream->fd, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	stream->handle.open = true;
	return 1;
}

static int device_connect(lua_State *L)
{
	return open_stream(L, sm_virtio_vsock_connect);
}

static int device_listen(lua_State *L)
{
	return open_stream(L, sm_virtio_vsock_listen);
}

static int device_balloon_set(lua_State *L)
{
	struct sm_lua_virtio *device = check_device(L);
	int code = sm_virtio_balloon_set(device->virtio, (uint32_t)luaL_checkinteger(L, 2));
	if (code < 0)
		return sm_lua_fail(L, code, NULL);
	lua_pushboolean(L, true);
	return 1;
}

static int device_balloon_actual(lua_State *L)
{
	lua_pushinteger(L, sm_virtio_balloon_actual(check_device(L)->virtio));
	return 1;
}

/* back(folder) -> true */
static int device_back(lua_State *L)
{
	struct sm_lua_virtio *device = check_device(L);
	struct sm_mount mount = { .root_fd = open(luaL_checkstring(L, 2), O_PATH | O_DIRECTORY | O_CLOEXEC),
		                  .dax = true };
	struct sm_error err = { 0 };
	int code =
	    mount.root_fd < 0 ? -errno : sm_virtio_back(device->virtio, &(struct sm_backing){ .mount = &mount }, &err);
	sm_fd_close(&mount.root_fd);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushboolean(L, true);
	return 1;
}

static int device_forget(lua_State *L)
{
	struct sm_lua_virtio *device = check_device(L);
	if (!device->paused)
		return luaL_error(L, "device is not paused");
	sm_virtio_forget(device->virtio);
	return 0;
}

void sm_lua_virtio_open(lua_State *L)
{
	sm_lua_class_register(L, &device_class);
}
