/* What every binding file shares: closed-first userdata, option tables, and the failure triple.
 *
 * A binding function checks all its arguments (misuse raises), creates its userdata in the closed state,
 * makes one core call, and pushes the result or `nil, message, "ENAME"`.  A Lua error longjmps past cleanup
 * attributes, so nothing that owns heap or descriptors may live across a call that can raise. */
#ifndef SM_LUA_SUPPORT_H
#define SM_LUA_SUPPORT_H

#include "base/buf.h"
#include "base/error.h"
#include "base/op.h"

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

/* Pushes nil, message, "ENAME"; returns 3.  `code` (either sign) serves where err is NULL or empty. */
int sm_lua_fail(lua_State *L, int code, const struct sm_error *err);

/* A userdata type.  Payload structs begin with `struct sm_lua_handle`. */
struct sm_lua_handle {
	bool open;
};
struct sm_lua_class {
	const char *name; /* metatable name and the word in messages: "supermachine.vm" */
	size_t size;      /* of the payload */
	const luaL_Reg *methods;
	/* Release what the payload owns; called once, on a payload that is open, and never raises. */
	void (*close)(void *payload);
	/* Push one string for __tostring of an open handle; NULL: "NAME: 0x..". */
	void (*describe)(lua_State *L, void *payload);
};

/* Make the class's metatable (__index, __gc, __close, __tostring, method close).  Once a lua_State. */
void sm_lua_class_register(lua_State *L, const struct sm_lua_class *class);
/* Push a new zeroed userdata in the closed state, with one user value (for its parent). */
void *sm_lua_new(lua_State *L, const struct sm_lua_class *class);
/* The payload at `index`; raises for another type, and for a closed handle. */
void *sm_lua_check(lua_State *L, int index, const struct sm_lua_class *class);
/* The payload at `index`, or NULL when it is of another type; open or closed. */
void *sm_lua_test(lua_State *L, int index, const struct sm_lua_class *class);
/* Let the userdata at `index` keep the value at `parent` alive. */
void sm_lua_keep(lua_State *L, int index, int parent);

/* Option tables.  `index` may be absent or nil: then every option is at its default.
 * check raises for a non-table and for a key not in the NULL-terminated list; the rest raise for a wrong type. */
void sm_lua_options_check(lua_State *L, int index, const char *const *known);
lua_Integer sm_lua_option_integer(lua_State *L, int index, const char *key, lua_Integer fallback);
bool sm_lua_option_boolean(lua_State *L, int index, const char *key, bool fallback);
/* Borrowed while the table lives. */
const char *sm_lua_option_string(lua_State *L, int index, const char *key, const char *fallback);

/* A list of strings at `index` as a NULL-terminated malloc'd vector that owns its strings (free with
 * sm_lua_strings_free).  Raises for wrong types before anything is allocated; NULL only when out of memory. */
char **sm_lua_strings(lua_State *L, int index, const char *what);
void sm_lua_strings_free(char **strings);

/* A string that a core call builds.  What may raise comes before what owns heap: room pushes Lua's memory for `max`
 * bytes and begins the buffer; built ends it, and pushes its content where `code` is 0 or positive, else the failure
 * triple, and returns the number of values pushed. */
void *sm_lua_room(lua_State *L, size_t max, struct sm_buf *ret_buf);
int sm_lua_built(lua_State *L, void *room, struct sm_buf *buf, int code, const struct sm_error *err);

/* A blocking core call as an operation userdata: fd(), done(), finish(), cancel(), close().
 * `arg` is heap owned by the operation; `push` runs on the Lua thread after success, takes what it needs out of `arg`,
 * and returns the number of values pushed.  Pushes one value, or the failure triple; returns the count.
 * `parent` (0: none) is the index of a userdata to keep alive. */
typedef int (*sm_lua_push)(lua_State *L, void *arg);
int sm_lua_op(lua_State *L, sm_op_run run, void *arg, void (*free_arg)(void *arg), sm_lua_push push, int parent);
/* Let the operation at `index` tell of its progress: fd, borrowed from `arg`, is readable when there is some, and
 * `push` takes it on the Lua thread while the operation runs. */
void sm_lua_op_progress(lua_State *L, int index, int fd, sm_lua_push push);
void sm_lua_operation_open(lua_State *L);

#endif
