/* A virtio device over plain memory, without a machine around it, for the binding files that make one and its streams.
 */
#ifndef SM_LUA_VIRTIO_H
#define SM_LUA_VIRTIO_H

#include "lua/support.h"
#include "memory/memory.h"
#include "virtio/virtio.h"

struct sm_lua_virtio {
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

/* Push a device that is closed and holds nothing. */
struct sm_lua_virtio *sm_lua_virtio_new(lua_State *L);
/* The open device at `index`; raises for anything else. */
struct sm_lua_virtio *sm_lua_virtio_check(lua_State *L, int index);
/* What is around the device: all but `virtio`.  Of the plan, only the RAM is looked at. */
int sm_lua_virtio_surround(struct sm_lua_virtio *device, const struct sm_plan *plan, struct sm_error *err);
/* Release what it holds; for one that never opened. */
void sm_lua_virtio_done(struct sm_lua_virtio *device);

/* The host's end of a vsock connection, or a listener: bytes as the socket has them. */
struct sm_lua_virtio_stream {
	struct sm_lua_handle handle;
	int fd;
};

/* Push a stream that is closed, to be opened with a descriptor. */
struct sm_lua_virtio_stream *sm_lua_virtio_stream_new(lua_State *L);

#endif
