/* Streams: bytes both ways, in pieces, never blocking.  lua/supermachine/stream.lua waits between the pieces. */
#include "lua/stream.h"

#include "base/fd.h"
#include "lua/support.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define READ_MAX (1 << 20)

struct stream {
	struct sm_lua_handle handle;
	int fd;
};

static void stream_close(void *payload)
{
	struct stream *stream = payload;
	sm_fd_close(&stream->fd);
}

static const struct sm_lua_class stream_class;

static struct stream *check(lua_State *L)
{
	return sm_lua_check(L, 1, &stream_class);
}

static int stream_fd(lua_State *L)
{
	lua_pushinteger(L, check(L)->fd);
	return 1;
}

/* read(max) -> 1 to max bytes, or "" at the end; nil, message, "EAGAIN" when there is nothing yet. */
static int stream_read(lua_State *L)
{
	const struct stream *stream = check(L);
	lua_Integer max = luaL_optinteger(L, 2, 65536);
	luaL_argcheck(L, max > 0, 2, "at least one byte");
	if (max > READ_MAX)
		max = READ_MAX;
	luaL_Buffer buffer;
	char *room = luaL_buffinitsize(L, &buffer, (size_t)max);
	ssize_t got;
	do
		got = recv(stream->fd, room, (size_t)max, MSG_DONTWAIT);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return sm_lua_fail(L, errno, NULL);
	luaL_pushresultsize(&buffer, (size_t)got);
	return 1;
}

/* write(bytes [, from]) -> how many were taken, from position `from` (1) on; nil, message, "EAGAIN" when none now. */
static int stream_write(lua_State *L)
{
	const struct stream *stream = check(L);
	size_t len;
	const char *data = luaL_checklstring(L, 2, &len);
	lua_Integer from = luaL_optinteger(L, 3, 1);
	luaL_argcheck(L, from >= 1 && (size_t)from <= len + 1, 3, "outside of the bytes");
	ssize_t sent;
	do
		sent = send(stream->fd, data + from - 1, len - (size_t)(from - 1), MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return sm_lua_fail(L, errno, NULL);
	lua_pushinteger(L, sent);
	return 1;
}

/* shutdown("w" | "r" | "rw") */
static int stream_shutdown(lua_State *L)
{
	static const char *const names[] = { "w", "r", "rw", NULL };
	static const int how[] = { SHUT_WR, SHUT_RD, SHUT_RDWR };
	const struct stream *stream = check(L);
	if (shutdown(stream->fd, how[luaL_checkoption(L, 2, "w", names)]) < 0)
		return sm_lua_fail(L, errno, NULL);
	lua_pushboolean(L, true);
	return 1;
}

static const luaL_Reg methods[] = {
	{ "fd", stream_fd }, { "read", stream_read }, { "write", stream_write }, { "shutdown", stream_shutdown },
	{ NULL, NULL },
};
static const struct sm_lua_class stream_class = {
	.name = "supermachine.core.stream",
	.size = sizeof(struct stream),
	.methods = methods,
	.close = stream_close,
};

int sm_lua_stream_push(lua_State *L, int fd_taken, int parent)
{
	if (parent)
		parent = lua_absindex(L, parent);
	struct stream *stream = sm_lua_new(L, &stream_class);
	stream->fd = fd_taken;
	stream->handle.open = true;
	if (parent)
		sm_lua_keep(L, -1, parent);
	return 1;
}

static int connect_unix(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof address.sun_path)
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path) + 1);
	SM_FD_CLEANUP int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) < 0)
		return -errno;
	return sm_fd_take(&fd);
}

void sm_lua_stream_target_check(lua_State *L, int index)
{
	if (sm_lua_test(L, index, &stream_class))
		sm_lua_check(L, index, &stream_class);
	else if (lua_isinteger(L, index))
		luaL_argcheck(L, lua_tointeger(L, index) >= 0 && lua_tointeger(L, index) <= INT_MAX, index,
		              "not a descriptor");
	else if (lua_type(L, index) != LUA_TSTRING)
		luaL_typeerror(L, index, "stream, descriptor or path");
}

int sm_lua_stream_target(lua_State *L, int index)
{
	sm_lua_stream_target_check(L, index);
	struct stream *stream = sm_lua_test(L, index, &stream_class);
	if (stream) {
		stream->handle.open = false;
		return sm_fd_take(&stream->fd);
	}
	if (lua_isinteger(L, index))
		return (int)lua_tointeger(L, index);
	return connect_unix(lua_tostring(L, index));
}

/* stream_over(descriptor | path) -> stream */
static int stream_over(lua_State *L)
{
	int fd = sm_lua_stream_target(L, 1);
	if (fd < 0)
		return sm_lua_fail(L, fd, NULL);
	return sm_lua_stream_push(L, fd, 0);
}

void sm_lua_stream_open(lua_State *L);

void sm_lua_stream_open(lua_State *L)
{
	sm_lua_class_register(L, &stream_class);
	lua_pushcfunction(L, stream_over);
	lua_setfield(L, -2, "stream_over");
}
