/* The stream userdata: a connected socket, non-blocking. */
#ifndef SM_LUA_STREAM_H
#define SM_LUA_STREAM_H

#include <lua.h>

/* Push a stream that owns the descriptor.  `parent` (0: none) is the index of a value to keep alive.  Returns 1. */
int sm_lua_stream_push(lua_State *L, int fd_taken, int parent);

/* A connection to an agent, from the argument at `index`: a stream (which is closed, its socket taken), a descriptor
 * (taken), or the path of a Unix socket (connected to).  Raises for anything else.  The descriptor, or -errno. */
int sm_lua_stream_target(lua_State *L, int index);
/* Raises when sm_lua_stream_target would: for calls that have more to check before they take it. */
void sm_lua_stream_target_check(lua_State *L, int index);

#endif
