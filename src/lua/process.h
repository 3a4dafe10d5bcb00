/* The process userdata: agent/process.h, step by step. */
#ifndef SM_LUA_PROCESS_H
#define SM_LUA_PROCESS_H

#include "base/buf.h"

#include <lua.h>

/* Push a process over a connection to an agent.  The request is the table at `request`:
 *   argv = {"sh", "-c", ..}, env = {NAME = "value"}, cwd, user = "name:group", tty, rows, columns, stdin (takes input),
 *   merge_stderr, keep, timeout_ms, limits = {memory_bytes = n, open_files = {soft, hard}, ..}
 * Misuse of it raises, and the descriptor is closed then.  `parent` (0: none) is kept alive.
 * Pushes the process, or the failure triple; returns the count. */
int sm_lua_process_push(lua_State *L, int fd_taken, int request, int parent);

/* The same request as the body of an EXEC, in a buffer that the caller ends; misuse raises before it holds memory.
 * Returns the program's name, which the Lua table keeps alive. */
const char *sm_lua_process_body(lua_State *L, int request, struct sm_buf *ret_body);

#endif
