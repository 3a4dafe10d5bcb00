/* The host's streams of a vsock device that has no machine around it: what the socket does, at once and undisguised. */
#include "base/fd.h"
#include "lua/virtio.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#define STREAM_READ (1u << 20)

void sm_lua_virtio_stream_open(lua_State *L);

static void stream_close(void *payload)
{
	sm_fd_close(&((struct sm_lua_virtio_stream *)payload)->fd);
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
	.size = sizeof(struct sm_lua_virtio_stream),
	.methods = stream_methods,
	.close = stream_close,
};

struct sm_lua_virtio_stream *sm_lua_virtio_stream_new(lua_State *L)
{
	struct sm_lua_virtio_stream *stream = sm_lua_new(L, &stream_class);
	stream->fd = -1;
	return stream;
}

/* read(max, timeout_ms) -> bytes ("": end of file), or the failure triple with ETIMEDOUT or ECONNRESET. */
static int stream_read(lua_State *L)
{
	struct sm_lua_virtio_stream *stream = sm_lua_check(L, 1, &stream_class);
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
	struct sm_lua_virtio_stream *stream = sm_lua_check(L, 1, &stream_class);
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
	struct sm_lua_virtio_stream *stream = sm_lua_check(L, 1, &stream_class);
	shutdown(stream->fd, how[luaL_checkoption(L, 2, NULL, names)]);
	return 0;
}

/* accept(timeout_ms) -> guest port, stream; on a listener. */
static int stream_accept(lua_State *L)
{
	struct sm_lua_virtio_stream *stream = sm_lua_check(L, 1, &stream_class);
	int timeout_ms = (int)luaL_checkinteger(L, 2);
	struct sm_lua_virtio_stream *accepted = sm_lua_virtio_stream_new(L);
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

void sm_lua_virtio_stream_open(lua_State *L)
{
	sm_lua_class_register(L, &stream_class);
}
