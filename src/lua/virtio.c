/* A virtio device over plain memory, without a machine around it: the specs play the guest's driver. */
#include "virtio/virtio.h"
#include "base/fd.h"
#include "lua/support.h"
#include "memory/memory.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define HIGH_GPA    (4 * SM_GIB) /* of the second region */
#define STATE_MAX   (1u << 20)
#define STREAM_READ (1u << 20)

void sm_lua_virtio_open(lua_State *L);

struct device {
	struct sm_lua_handle handle;
	struct sm_memory *memory;
	struct sm_loop *loop;
	struct sm_virtio *virtio;
	unsigned paused;
	int irq_fd;
	/* settle: a turn of the loop, and its echo. */
	struct sm_loop_source *turn;
	int turn_fd, echo_fd;
};

struct stream {
	struct sm_lua_handle handle;
	int fd;
};

static void device_close(void *payload)
{
	struct device *device = payload;
	sm_virtio_free(device->virtio);
	sm_loop_remove(device->turn);
	sm_loop_free(device->loop);
	sm_memory_free(device->memory);
	sm_fd_close(&device->irq_fd);
	sm_fd_close(&device->turn_fd);
	sm_fd_close(&device->echo_fd);
}

static void stream_close(void *payload)
{
	sm_fd_close(&((struct stream *)payload)->fd);
}

static int stream_read(lua_State *L);
static int stream_write(lua_State *L);
static int stream_shutdown(lua_State *L);
static int stream_accept(lua_State *L);

static const luaL_Reg stream_methods[] = {
	{ "read", stream_read },
	{ "write", stream_write },
	{ "shutdown", stream_shutdown },
	{ "accept", stream_accept },
	{ NULL, NULL },
};
static const struct sm_lua_class stream_class = {
	.name = "supermachine.virtio_stream",
	.size = sizeof(struct stream),
	.methods = stream_methods,
	.close = stream_close,
};

/* Push a stream that is closed, to be opened with a descriptor. */
static struct stream *stream_new(lua_State *L)
{
	struct stream *stream = sm_lua_new(L, &stream_class);
	stream->fd = -1;
	return stream;
}

/* read(max, timeout_ms) -> bytes ("": end of file), or the failure triple with ETIMEDOUT or ECONNRESET. */
static int stream_read(lua_State *L)
{
	struct stream *stream = sm_lua_check(L, 1, &stream_class);
	lua_Integer max = luaL_checkinteger(L, 2);
	int timeout_ms = (int)luaL_checkinteger(L, 3);
	luaL_argcheck(L, max > 0 && max <= (lua_Integer)STREAM_READ, 2, "out of range");
	luaL_Buffer buffer;
	char *data = luaL_buffinitsize(L, &buffer, (size_t)max);
	int ready = sm_fd_wait(stream->fd, POLLIN, timeout_ms);
	if (ready <= 0)
		return sm_lua_fail(L, ready ? ready : ETIMEDOUT, NULL);
	ssize_t got = recv(stream->fd, data, (size_t)max, MSG_DONTWAIT);
	if (got < 0)
		return sm_lua_fail(L, errno, NULL);
	luaL_pushresultsize(&buffer, (size_t)got);
	return 1;
}

/* write(data) -> bytes taken without waiting (0: full), or the failure triple. */
static int stream_write(lua_State *L)
{
	struct stream *stream = sm_lua_check(L, 1, &stream_class);
	size_t len;
	const char *data = luaL_checklstring(L, 2, &len);
	ssize_t sent = send(stream->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN)
		return sm_lua_fail(L, errno, NULL);
	lua_pushinteger(L, sent < 0 ? 0 : (lua_Integer)sent);
	return 1;
}

static int stream_shutdown(lua_State *L)
{
	static const char *const names[] = { "r", "w", "rw", NULL };
	static const int how[] = { SHUT_RD, SHUT_WR, SHUT_RDWR };
	struct stream *stream = sm_lua_check(L, 1, &stream_class);
	shutdown(stream->fd, how[luaL_checkoption(L, 2, NULL, names)]);
	return 0;
}

/* accept(timeout_ms) -> guest port, stream; on a listener. */
static int stream_accept(lua_State *L)
{
	struct stream *stream = sm_lua_check(L, 1, &stream_class);
	int timeout_ms = (int)luaL_checkinteger(L, 2);
	struct stream *accepted = stream_new(L);
	int ready = sm_fd_wait(stream->fd, POLLIN, timeout_ms);
	if (ready <= 0)
		return sm_lua_fail(L, ready ? ready : ETIMEDOUT, NULL);
	uint32_t port = 0;
	int fds[SM_FD_PASS_MAX];
	size_t nfds;
	ssize_t got = sm_fd_recv(stream->fd, &port, sizeof port, fds, &nfds);
	while (nfds > 1)
		sm_fd_close(&fds[--nfds]);
	if (nfds == 1) {
		accepted->fd = fds[0];
		accepted->handle.open = true;
	}
	if (got != sizeof port || nfds != 1)
		return sm_lua_fail(L, got < 0 ? (int)got : -ENODATA, NULL);
	lua_pushinteger(L, port);
	lua_rotate(L, -2, 1);
	return 2;
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
	{ NULL, NULL },
};
static const struct sm_lua_class device_class = {
	.name = "supermachine.virtio_device",
	.size = sizeof(struct device),
	.methods = device_methods,
	.close = device_close,
};

static struct device *check_device(lua_State *L)
{
	return sm_lua_check(L, 1, &device_class);
}

static int device_mmio_read(lua_State *L)
{
	struct device *device = check_device(L);
	uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
	unsigned size = (unsigned)luaL_checkinteger(L, 3);
	lua_pushinteger(L, (lua_Integer)sm_virtio_mmio_read(device->virtio, offset, size));
	return 1;
}

static int device_mmio_write(lua_State *L)
{
	struct device *device = check_device(L);
	uint64_t offset = (uint64_t)luaL_checkinteger(L, 2);
	unsigned size = (unsigned)luaL_checkinteger(L, 3);
	sm_virtio_mmio_write(device->virtio, offset, size, (uint64_t)luaL_checkinteger(L, 4));
	return 0;
}

static int device_read(lua_State *L)
{
	struct device *device = check_device(L);
	uint64_t gpa = (uint64_t)luaL_checkinteger(L, 2);
	uint64_t len = (uint64_t)luaL_checkinteger(L, 3);
	const void *at = sm_memory_at_read(device->memory, gpa, len);
	luaL_argcheck(L, at, 2, "not in RAM");
	lua_pushlstring(L, at, len);
	return 1;
}

/* The guest's writes go past memory/, which marks the host's. */
static int device_write(lua_State *L)
{
	struct device *device = check_device(L);
	uint64_t gpa = (uint64_t)luaL_checkinteger(L, 2);
	size_t len;
	const char *data = luaL_checklstring(L, 3, &len);
	void *at = (void *)(uintptr_t)sm_memory_at_read(device->memory, gpa, len);
	luaL_argcheck(L, at, 2, "not in RAM");
	memcpy(at, data, len);
	return 0;
}

static uint16_t *check_ring(lua_State *L, struct device *device)
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
	struct device *device = check_device(L);
	lua_pushboolean(L, sm_memory_marked(device->memory, (uint64_t)luaL_checkinteger(L, 2)));
	return 1;
}

/* irq(timeout_ms) -> interrupts raised since the last call, 0 on timeout. */
static int device_irq(lua_State *L)
{
	struct device *device = check_device(L);
	int timeout_ms = (int)luaL_checkinteger(L, 2);
	sm_fd_wait(device->irq_fd, POLLIN, timeout_ms);
	lua_pushinteger(L, (lua_Integer)sm_fd_event_take(device->irq_fd));
	return 1;
}

static int device_pause(lua_State *L)
{
	struct device *device = check_device(L);
	device->paused++;
	sm_loop_pause(device->loop);
	return 0;
}

static int device_resume(lua_State *L)
{
	struct device *device = check_device(L);
	if (!device->paused)
		return luaL_error(L, "device is not paused");
	device->paused--;
	sm_loop_resume(device->loop);
	return 0;
}

static void turned(void *arg, uint32_t events)
{
	(void)events;
	struct device *device = arg;
	sm_fd_event_take(device->turn_fd);
	sm_fd_event_raise(device->echo_fd);
}

/* Until the loop has seen every event of before this call, and what those gave rise to.  epoll reports events in the
 * order in which they came up. */
static int device_settle(lua_State *L)
{
	struct device *device = check_device(L);
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
	struct device *device = check_device(L);
	luaL_Buffer buffer;
	char *copy = luaL_buffinitsize(L, &buffer, STATE_MAX);
	struct sm_buf out;
	sm_buf_init(&out, STATE_MAX);
	struct sm_error err = { 0 };
	int code = sm_virtio_save(device->virtio, &out, &err);
	size_t len = out.len;
	if (len)
		memcpy(copy, out.data, len);
	sm_buf_done(&out);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	luaL_pushresultsize(&buffer, len);
	return 1;
}

static int device_load(lua_State *L)
{
	struct device *device = check_device(L);
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
	} fields[] = { { "requests", stats.requests },
		       { "bytes", stats.bytes },
		       { "errors", stats.errors },
		       { "kicks", stats.kicks },
		       { "interrupts", stats.interrupts } };
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
	struct device *device = check_device(L);
	uint32_t port = (uint32_t)luaL_checkinteger(L, 2);
	struct stream *stream = stream_new(L);
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
	struct device *device = check_device(L);
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

static uint64_t segment_integer(lua_State *L, const char *key, uint64_t fallback)
{
	int is_integer = 1;
	uint64_t value = lua_getfield(L, -1, key) == LUA_TNIL ? fallback : (uint64_t)lua_tointegerx(L, -1, &is_integer);
	if (!is_integer)
		luaL_error(L, "segment: '%s' is not an integer", key);
	lua_pop(L, 1);
	return value;
}

/* { offset =, length =, file = an open file, file_offset = } or { offset =, length =, data = } or neither for zeros.
 * The array is Lua's memory, left on the stack; strings are borrowed from the table. */
static struct sm_disk_segment *check_segments(lua_State *L, int index, unsigned *ret_count)
{
	*ret_count = 0;
	lua_getfield(L, index, "segments");
	lua_Integer count = lua_isnil(L, -1) ? 0 : luaL_len(L, -1);
	struct sm_disk_segment *segments = lua_newuserdatauv(L, (size_t)count * sizeof *segments + 1, 0);
	for (lua_Integer i = 0; i < count; i++) {
		lua_geti(L, -2, i + 1);
		luaL_checktype(L, -1, LUA_TTABLE);
		struct sm_disk_segment segment = {
			.offset = segment_integer(L, "offset", 0),
			.length = segment_integer(L, "length", 0),
			.fd = -1,
			.fd_offset = segment_integer(L, "file_offset", 0),
		};
		if (lua_getfield(L, -1, "file") != LUA_TNIL)
			segment.fd = fileno(((luaL_Stream *)luaL_checkudata(L, -1, LUA_FILEHANDLE))->f);
		lua_pop(L, 1);
		if (lua_getfield(L, -1, "data") != LUA_TNIL) {
			size_t len;
			segment.memory = luaL_checklstring(L, -1, &len);
			if (len < segment.length)
				luaL_error(L, "segment: data is shorter than its length");
		}
		lua_pop(L, 2);
		segments[i] = segment;
	}
	*ret_count = (unsigned)count;
	return segments;
}

enum kind { KIND_BLK, KIND_RNG, KIND_BALLOON, KIND_VSOCK };

static int start(struct device *device, enum kind kind, const struct sm_plan *plan, const struct sm_disk *disk,
                 uint64_t guest_cid, struct sm_error *err)
{
	int code = sm_memory_new(plan, -1, 0, &device->memory, err);
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
	if (code < 0)
		return code;
	code = sm_loop_add(device->loop, device->turn_fd, EPOLLIN, turned, device, &device->turn);
	if (code < 0)
		return sm_error_sys(err, code, "watch an eventfd");
	const struct sm_virtio_env env = { device->memory, device->loop, device->irq_fd };
	switch (kind) {
	case KIND_BLK:
		return sm_virtio_blk_new(&env, disk, &device->virtio, err);
	case KIND_RNG:
		return sm_virtio_rng_new(&env, &device->virtio, err);
	case KIND_BALLOON:
		return sm_virtio_balloon_new(&env, &device->virtio, err);
	default:
		return sm_virtio_vsock_new(&env, guest_cid, &device->virtio, err);
	}
}

/* virtio_device(kind, { memory_mib =, high = true: as much again at 4 GiB, bytes =, segments =, guest_cid = }) */
static int virtio_device(lua_State *L)
{
	static const char *const kinds[] = { "blk", "rng", "balloon", "vsock", NULL };
	static const char *const known[] = { "memory_mib", "high", "bytes", "segments", "guest_cid", NULL };
	enum kind kind = (enum kind)luaL_checkoption(L, 1, NULL, kinds);
	lua_settop(L, 2);
	if (lua_isnil(L, 2)) {
		lua_newtable(L);
		lua_replace(L, 2);
	}
	sm_lua_options_check(L, 2, known);
	uint64_t bytes = (uint64_t)sm_lua_option_integer(L, 2, "memory_mib", 16) * SM_MIB;
	/* Only the plan's RAM is looked at. */
	struct sm_plan *plan = lua_newuserdatauv(L, sizeof *plan, 0);
	memset(plan, 0, sizeof *plan);
	plan->nram = sm_lua_option_boolean(L, 2, "high", false) ? 2 : 1;
	plan->ram[0] = (struct sm_plan_range){ 0, bytes };
	plan->ram[1] = (struct sm_plan_range){ HIGH_GPA, bytes };
	uint64_t guest_cid = (uint64_t)sm_lua_option_integer(L, 2, "guest_cid", 3);
	struct sm_disk disk = { .bytes = (uint64_t)sm_lua_option_integer(L, 2, "bytes", -1) };
	bool backed = disk.bytes != (uint64_t)-1;
	disk.segments = check_segments(L, 2, &disk.nsegments);

	struct device *device = sm_lua_new(L, &device_class);
	device->irq_fd = device->turn_fd = device->echo_fd = -1;
	struct sm_error err = { 0 };
	int code = start(device, kind, plan, backed ? &disk : NULL, guest_cid, &err);
	if (code < 0) {
		device_close(device);
		return sm_lua_fail(L, code, &err);
	}
	device->handle.open = true;
	return 1;
}

void sm_lua_virtio_open(lua_State *L)
{
	sm_lua_class_register(L, &device_class);
	sm_lua_class_register(L, &stream_class);
	lua_pushcfunction(L, virtio_device);
	lua_setfield(L, -2, "virtio_device");
}
