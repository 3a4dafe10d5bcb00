/* core.virtio_device(kind, options): options -> RAM, disk segments and a device. */
#include "lua/virtio.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define HIGH_GPA   (4 * SM_GIB) /* of the second region */
#define WINDOW_GPA (8 * SM_GIB)

void sm_lua_virtio_new_open(lua_State *L);

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

enum kind { KIND_BLK, KIND_RNG, KIND_BALLOON, KIND_VSOCK, KIND_FS };

/* What is made, apart from its surroundings. */
struct wish {
	enum kind kind;
	const struct sm_disk *disk; /* NULL: none */
	uint64_t guest_cid, window_bytes;
	const char *host, *tag; /* NULL: nothing is behind it; the slot's */
	bool readonly, dax, locks;
};

static int start_fs(struct sm_lua_virtio *device, const struct sm_virtio_env *env, const struct wish *wish,
                    struct sm_error *err)
{
	struct sm_mount mount = {
		.root_fd = -1, .tag = wish->tag, .readonly = wish->readonly, .dax = wish->dax, .host_locks = wish->locks
	};
	if (wish->host)
		mount.root_fd = open(wish->host, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (wish->host && mount.root_fd < 0)
		return sm_error_sys(err, errno, "%s", wish->host);
	int code =
	    sm_virtio_fs_new(env, wish->tag ? wish->tag : "mount0", wish->host ? &mount : NULL, &device->virtio, err);
	sm_fd_close(&mount.root_fd);
	return code;
}

static int start(struct sm_lua_virtio *device, const struct wish *wish, const struct sm_plan *plan,
                 struct sm_error *err)
{
	struct sm_memory_window window = { 0 };
	int code = sm_lua_virtio_surround(device, plan, err);
	if (code >= 0 && wish->window_bytes)
		code = sm_memory_add_window(device->memory, WINDOW_GPA, wish->window_bytes, &window, err);
	if (code < 0)
		return code;
	const struct sm_virtio_env env = {
		.memory = device->memory,
		.loop = device->loop,
		.line = sm_fd_event_line(device->irq_fd),
		.window = window,
	};
	switch (wish->kind) {
	case KIND_BLK:
		return sm_virtio_blk_new(&env, wish->disk, &device->virtio, err);
	case KIND_RNG:
		return sm_virtio_rng_new(&env, &device->virtio, err);
	case KIND_BALLOON:
		return sm_virtio_balloon_new(&env, &device->virtio, err);
	case KIND_FS:
		return start_fs(device, &env, wish, err);
	default:
		return sm_virtio_vsock_new(&env, wish->guest_cid, &device->virtio, err);
	}
}

/* virtio_device(kind, { memory_mib =, high = true: as much again at 4 GiB, bytes =, segments =, guest_cid =, window_mib
 * = a window at 8 GiB, host =, tag =, readonly =, dax = true, locks = false }) */
static int virtio_device(lua_State *L)
{
	static const char *const kinds[] = { "blk", "rng", "balloon", "vsock", "fs", NULL };
	static const char *const known[] = { "memory_mib", "high", "bytes",    "segments", "guest_cid", "window_mib",
		                             "host",       "tag",  "readonly", "dax",      "locks",     NULL };
	struct wish wish = { .kind = (enum kind)luaL_checkoption(L, 1, NULL, kinds) };
	lua_settop(L, 2);
	if (lua_isnil(L, 2)) {
		lua_newtable(L);
		lua_replace(L, 2);
	}
	sm_lua_options_check(L, 2, known);
	uint64_t bytes = (uint64_t)sm_lua_option_integer(L, 2, "memory_mib", 16) * SM_MIB;
	struct sm_plan *plan = lua_newuserdatauv(L, sizeof *plan, 0);
	memset(plan, 0, sizeof *plan);
	plan->nram = sm_lua_option_boolean(L, 2, "high", false) ? 2 : 1;
	plan->ram[0] = (struct sm_plan_range){ 0, bytes };
	plan->ram[1] = (struct sm_plan_range){ HIGH_GPA, bytes };
	wish.guest_cid = (uint64_t)sm_lua_option_integer(L, 2, "guest_cid", 3);
	wish.window_bytes = (uint64_t)sm_lua_option_integer(L, 2, "window_mib", 0) * SM_MIB;
	wish.host = sm_lua_option_string(L, 2, "host", NULL);
	wish.tag = sm_lua_option_string(L, 2, "tag", NULL);
	wish.readonly = sm_lua_option_boolean(L, 2, "readonly", false);
	wish.dax = sm_lua_option_boolean(L, 2, "dax", true);
	wish.locks = sm_lua_option_boolean(L, 2, "locks", false);
	struct sm_disk disk = { .bytes = (uint64_t)sm_lua_option_integer(L, 2, "bytes", -1) };
	bool backed = disk.bytes != (uint64_t)-1;
	disk.segments = check_segments(L, 2, &disk.nsegments);

	struct sm_lua_virtio *device = sm_lua_virtio_new(L);
	struct sm_error err = { 0 };
	wish.disk = backed ? &disk : NULL;
	int code = start(device, &wish, plan, &err);
	if (code < 0) {
		sm_lua_virtio_done(device);
		return sm_lua_fail(L, code, &err);
	}
	device->handle.open = true;
	return 1;
}

void sm_lua_virtio_new_open(lua_State *L)
{
	lua_pushcfunction(L, virtio_device);
	lua_setfield(L, -2, "virtio_device");
}
