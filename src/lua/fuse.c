/* core.fuse(options): the file server of a mount without a machine; requests are strings. */
#include "fuse/fuse.h"
#include "base/fd.h"
#include "base/time.h"
#include "lua/support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define GRANULE    (2u << 20)
#define OUT_MAX    (4u << 20)
#define PIECES_MAX 1024u
#define STATE_MAX  (256u << 20)

struct answer {
	struct answer *next;
	lua_Integer cookie;
	size_t len;
	char data[];
};

struct fuse {
	struct sm_lua_handle handle;
	struct sm_fuse *fuse;
	bool plain;
	char *map;
	size_t map_bytes;
	struct sm_fuse_window window;
	pthread_mutex_t lock; /* answers that came later */
	struct answer *first, **last;
	int event;
};

static void fuse_close(void *payload)
{
	struct fuse *self = payload;
	sm_fuse_free(self->fuse);
	self->fuse = NULL;
	if (self->map)
		munmap(self->map, self->map_bytes);
	while (self->first) {
		struct answer *next = self->first->next;
		free(self->first);
		self->first = next;
	}
	sm_fd_close(&self->event);
	pthread_mutex_destroy(&self->lock);
}

static const struct sm_lua_class fuse_class;

static struct fuse *check(lua_State *L)
{
	return sm_lua_check(L, 1, &fuse_class);
}

static unsigned cut(char *data, size_t len, size_t piece, struct iovec iov[PIECES_MAX])
{
	unsigned n = 0;
	for (size_t at = 0; at < len && n < PIECES_MAX; n++) {
		size_t part = n + 1 < PIECES_MAX && len - at > piece ? piece : len - at;
		iov[n] = (struct iovec){ data + at, part };
		at += part;
	}
	return n;
}

static int served(lua_State *L, int64_t result, const char *out)
{
	if (result < 0)
		return sm_lua_fail(L, (int)result, NULL);
	lua_pushlstring(L, out, (size_t)result);
	return 1;
}

/* serve(request[, room[, piece[, cookie]]]) -> reply ("": none), or nil, message, code.  piece: the longest part of
 * memory that either is in. */
static int fuse_serve(lua_State *L)
{
	struct fuse *self = check(L);
	size_t len;
	const char *request = luaL_checklstring(L, 2, &len);
	lua_Integer room = luaL_optinteger(L, 3, 4096), piece = luaL_optinteger(L, 4, OUT_MAX);
	lua_Integer cookie = luaL_optinteger(L, 5, 0);
	luaL_argcheck(L, room >= 0 && room <= OUT_MAX, 3, "from 0 bytes to 4 MiB");
	luaL_argcheck(L, piece > 0, 4, "at least one byte");
	char *in = lua_newuserdatauv(L, len + 1, 0), *out = lua_newuserdatauv(L, (size_t)room + 1, 0);
	memcpy(in, request, len);
	struct iovec ins[PIECES_MAX], outs[PIECES_MAX];
	const struct sm_fuse_request call = {
		.in = ins,
		.nin = cut(in, len, (size_t)piece, ins),
		.out = outs,
		.nout = cut(out, (size_t)room, (size_t)piece, outs),
		.plain = self->plain,
		.cookie = (void *)(intptr_t)cookie,
	};
	return served(L, sm_fuse_serve(self->fuse, &call), out);
}

/* serve_window(at, length, out_at, room) -> how many bytes the reply has, or nil, message, code.  Request and reply are
 * in the window; `out_at` may be a list of places, each with the length after it. */
static int fuse_serve_window(lua_State *L)
{
	struct fuse *self = check(L);
	uint64_t value[4];
	for (int i = 0; i < 4; i++)
		value[i] = (uint64_t)luaL_checkinteger(L, i + 2);
	for (int i = 0; i < 4; i += 2)
		luaL_argcheck(L, value[i] <= self->window.bytes && value[i + 1] <= self->window.bytes - value[i], i + 2,
		              "past the window");
	char *base = self->window.hva;
	struct iovec in = { base + value[0], value[1] }, out = { base + value[2], value[3] };
	const struct sm_fuse_request call = { .in = &in, .nin = 1, .out = &out, .nout = 1 };
	int64_t result = sm_fuse_serve(self->fuse, &call);
	if (result < 0)
		return sm_lua_fail(L, (int)result, NULL);
	lua_pushinteger(L, result);
	return 1;
}

static void later(void *arg, void *cookie, const void *reply, size_t len)
{
	struct fuse *self = arg;
	struct answer *answer = malloc(sizeof *answer + len);
	if (!answer)
		return;
	*answer = (struct answer){ .cookie = (intptr_t)cookie, .len = len };
	memcpy(answer->data, reply, len);
	pthread_mutex_lock(&self->lock);
	*self->last = answer;
	self->last = &answer->next;
	pthread_mutex_unlock(&self->lock);
	sm_fd_event_raise(self->event);
}

/* later([timeout_ms]) -> cookie, reply: the next that came late; or nil, message, "ETIMEDOUT" */
static int fuse_later(lua_State *L)
{
	struct fuse *self = check(L);
	int timeout = (int)luaL_optinteger(L, 2, 0);
	for (;;) {
		pthread_mutex_lock(&self->lock);
		struct answer *answer = self->first;
		if (answer) {
			self->first = answer->next;
			if (!self->first)
				self->last = &self->first;
		}
		pthread_mutex_unlock(&self->lock);
		if (answer) {
			/* A copy of Lua's first: a string that finds no memory raises. */
			lua_pushinteger(L, answer->cookie);
			char *copy = lua_newuserdatauv(L, answer->len + 1, 0);
			size_t len = answer->len;
			memcpy(copy, answer->data, len);
			free(answer);
			lua_pushlstring(L, copy, len);
			lua_remove(L, -2);
			return 2;
		}
		if (!sm_fd_event_take(self->event) && sm_fd_wait(self->event, 1, timeout) <= 0)
			return sm_lua_fail(L, ETIMEDOUT, NULL);
	}
}

/* read(at, length) -> bytes of the window, or nil, message, "EFAULT" */
static int fuse_read(lua_State *L)
{
	struct fuse *self = check(L);
	uint64_t at = (uint64_t)luaL_checkinteger(L, 2);
	lua_Integer len = luaL_checkinteger(L, 3);
	luaL_argcheck(L, len >= 0 && len <= OUT_MAX, 3, "from 0 bytes to 4 MiB");
	luaL_argcheck(L, at <= self->window.bytes && (uint64_t)len <= self->window.bytes - at, 2, "past the window");
	luaL_Buffer out;
	struct iovec mine = { luaL_buffinitsize(L, &out, (size_t)len), (size_t)len };
	struct iovec other = { (char *)self->window.hva + at, (size_t)len };
	ssize_t done = len ? process_vm_readv(getpid(), &mine, 1, &other, 1, 0) : 0;
	if (done != len)
		return sm_lua_fail(L, EFAULT, NULL);
	luaL_pushresultsize(&out, (size_t)len);
	return 1;
}

/* write(at, bytes) -> true, or nil, message, "EFAULT" */
static int fuse_write(lua_State *L)
{
	struct fuse *self = check(L);
	uint64_t at = (uint64_t)luaL_checkinteger(L, 2);
	size_t len;
	const char *data = luaL_checklstring(L, 3, &len);
	luaL_argcheck(L, at <= self->window.bytes && len <= self->window.bytes - at, 2, "past the window");
	struct iovec mine = { (char *)data, len }, other = { (char *)self->window.hva + at, len };
	if (len && process_vm_writev(getpid(), &mine, 1, &other, 1, 0) != (ssize_t)len)
		return sm_lua_fail(L, EFAULT, NULL);
	lua_pushboolean(L, true);
	return 1;
}

/* save() -> bytes, or nil, message, code */
static int fuse_save(lua_State *L)
{
	struct fuse *self = check(L);
	struct sm_buf out;
	void *room = sm_lua_room(L, STATE_MAX, &out);
	sm_fuse_save(self->fuse, &out);
	return sm_lua_built(L, room, &out, out.failed, NULL);
}

/* load(bytes) -> true, or nil, message, code */
static int fuse_load(lua_State *L)
{
	struct fuse *self = check(L);
	size_t len;
	const char *data = luaL_checklstring(L, 2, &len);
	struct sm_reader reader;
	struct sm_error err = { 0 };
	sm_reader_init(&reader, data, len);
	int code = sm_fuse_load(self->fuse, &reader, &err);
	if (code >= 0 && !sm_reader_at_end(&reader))
		code = sm_error_set(&err, EBADMSG, "mount's state: bytes after it");
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushboolean(L, true);
	return 1;
}

static int fuse_reset(lua_State *L)
{
	sm_fuse_reset(check(L)->fuse);
	return 0;
}

/* pause(paused): replies that come later do not come meanwhile */
static int fuse_pause(lua_State *L)
{
	struct fuse *self = check(L);
	luaL_checktype(L, 2, LUA_TBOOLEAN);
	sm_fuse_pause(self->fuse, lua_toboolean(L, 2));
	return 0;
}

static int fuse_mend(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)sm_fuse_mend(check(L)->fuse));
	return 1;
}

static int fuse_stats(lua_State *L)
{
	struct sm_fuse_stats stats;
	sm_fuse_stats(check(L)->fuse, &stats);
	const struct {
		const char *key;
		uint64_t value;
	} all[] = {
		{ "requests", stats.requests },   { "errors", stats.errors },   { "hostile", stats.hostile },
		{ "stale", stats.stale },         { "mended", stats.mended },   { "nodes", stats.nodes },
		{ "handles", stats.handles },     { "evicted", stats.evicted }, { "descriptors", stats.descriptors },
		{ "dax_bytes", stats.dax_bytes },
	};
	lua_createtable(L, 0, sizeof all / sizeof *all);
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		lua_pushinteger(L, (lua_Integer)all[i].value);
		lua_setfield(L, -2, all[i].key);
	}
	return 1;
}

static const luaL_Reg fuse_methods[] = {
	{ "serve", fuse_serve }, { "serve_window", fuse_serve_window },
	{ "later", fuse_later }, { "read", fuse_read },
	{ "write", fuse_write }, { "save", fuse_save },
	{ "load", fuse_load },   { "reset", fuse_reset },
	{ "mend", fuse_mend },   { "stats", fuse_stats },
	{ "pause", fuse_pause }, { NULL, NULL },
};

static const struct sm_lua_class fuse_class = {
	.name = "supermachine.fuse",
	.size = sizeof(struct fuse),
	.methods = fuse_methods,
	.close = fuse_close,
};

static unsigned one_of(lua_State *L, const char *key, const char *const *names)
{
	const char *name = sm_lua_option_string(L, 1, key, names[0]);
	for (unsigned i = 0; names[i]; i++)
		if (!strcmp(name, names[i]))
			return i;
	return (unsigned)luaL_error(L, "option '%s': no such choice: %s", key, name);
}

static uint32_t field(lua_State *L, int index)
{
	lua_Integer value = luaL_checkinteger(L, index);
	luaL_argcheck(L, value >= 0 && value <= UINT32_MAX, 1, "option 'ranges': not an ID");
	return (uint32_t)value;
}

/* ranges = {{guest, host, count}..} */
static void get_ranges(lua_State *L, struct sm_mount *mount)
{
	if (lua_getfield(L, 1, "ranges") != LUA_TNIL) {
		luaL_checktype(L, -1, LUA_TTABLE);
		mount->nranges = (unsigned)lua_rawlen(L, -1);
		luaL_argcheck(L, mount->nranges <= SM_MOUNT_RANGES_MAX, 1, "option 'ranges': too many");
		for (unsigned i = 0; i < mount->nranges; i++) {
			lua_rawgeti(L, -1, (lua_Integer)i + 1);
			luaL_checktype(L, -1, LUA_TTABLE);
			for (int k = 1; k <= 3; k++)
				lua_rawgeti(L, -k, k);
			mount->ranges[i] =
			    (struct sm_mount_range){ field(L, lua_gettop(L) - 2), field(L, lua_gettop(L) - 1),
				                     field(L, lua_gettop(L)) };
			lua_pop(L, 4);
		}
	}
	lua_pop(L, 1);
}

static void get_mount(lua_State *L, struct sm_mount *mount)
{
	static const char *const symlinks[] = { "opaque", "deny", "follow", NULL };
	static const char *const caches[] = { "strict", "auto", "always", NULL };
	static const char *const owners[] = { "squash", "map", "passthrough", NULL };
	*mount = (struct sm_mount){
		.root_fd = -1,
		.only = sm_lua_option_string(L, 1, "only", NULL),
		.readonly = sm_lua_option_boolean(L, 1, "readonly", false),
		.writeback = sm_lua_option_boolean(L, 1, "writeback", false),
		.host_locks = sm_lua_option_boolean(L, 1, "host_locks", false),
		.dax = sm_lua_option_boolean(L, 1, "dax", false),
		.symlinks = one_of(L, "symlinks", symlinks),
		.cache = one_of(L, "cache", caches),
		.owners = one_of(L, "owners", owners),
		.xattrs = sm_lua_option_string(L, 1, "xattrs", NULL),
		.max_nodes = (unsigned)sm_lua_option_integer(L, 1, "max_nodes", 0),
		.max_descriptors = (unsigned)sm_lua_option_integer(L, 1, "max_descriptors", 0),
	};
	get_ranges(L, mount);
}

static int map_window(struct fuse *self, size_t bytes, struct sm_error *err)
{
	if (!bytes)
		return 0;
	char *map =
	    mmap(NULL, bytes + GRANULE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		return sm_error_sys(err, errno, "window");
	self->map = map;
	self->map_bytes = bytes + GRANULE;
	self->window.hva = map + (-(uintptr_t)map & (GRANULE - 1));
	self->window.bytes = bytes;
	return 0;
}

/* fuse{host = path, ..} -> a server, or nil, message, code */
static int fuse_new(lua_State *L)
{
	static const char *const known[] = { "host",       "only",       "readonly",        "writeback",
		                             "host_locks", "dax",        "symlinks",        "cache",
		                             "owners",     "ranges",     "xattrs",          "plain",
		                             "max_nodes",  "window_mib", "max_descriptors", NULL };
	sm_lua_options_check(L, 1, known);
	const char *host = sm_lua_option_string(L, 1, "host", NULL);
	luaL_argcheck(L, host, 1, "option 'host' is missing");
	lua_Integer mib = sm_lua_option_integer(L, 1, "window_mib", 0);
	luaL_argcheck(L, mib >= 0 && mib <= 65536, 1, "option 'window_mib': from 0 to 65536");
	struct sm_mount mount;
	get_mount(L, &mount);
	struct fuse *self = sm_lua_new(L, &fuse_class);
	self->plain = sm_lua_option_boolean(L, 1, "plain", false);
	self->event = -1;
	self->last = &self->first;
	pthread_mutex_init(&self->lock, NULL);
	struct sm_error err = { 0 };
	mount.root_fd = open(host, O_PATH | O_CLOEXEC);
	int code =
	    mount.root_fd < 0 ? sm_error_sys(&err, errno, "%s", host) : map_window(self, (size_t)mib << 20, &err);
	if (code >= 0 && (self->event = sm_fd_event()) < 0)
		code = sm_error_sys(&err, -self->event, "eventfd");
	if (code >= 0)
		code = sm_fuse_new(&mount, &self->window, &self->fuse, &err);
	sm_fd_close(&mount.root_fd);
	if (code < 0) {
		fuse_close(self);
		return sm_lua_fail(L, code, &err);
	}
	sm_fuse_set_later(self->fuse, later, self);
	self->handle.open = true;
	return 1;
}

void sm_lua_fuse_open(lua_State *L);
void sm_lua_fuse_open(lua_State *L)
{
	sm_lua_class_register(L, &fuse_class);
	lua_pushcfunction(L, fuse_new);
	lua_setfield(L, -2, "fuse");
}
