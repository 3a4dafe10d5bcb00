/* What Lua needs of the ground floor: waiting for descriptors, a clock, hashes, and the checks for strangers' bytes. */
#include "base/codec.h"
#include "base/json.h"
#include "base/sha256.h"
#include "lua/support.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* read_fd(fd, max) -> what one read(2) gave; "" at the end.  For descriptors that are not ours to make non-blocking:
 * poll first. */
static int base_read_fd(lua_State *L)
{
	int fd = (int)luaL_checkinteger(L, 1);
	lua_Integer max = luaL_checkinteger(L, 2);
	luaL_argcheck(L, max > 0 && max <= 1 << 20, 2, "1 to 1048576 expected");
	luaL_Buffer piece;
	char *room = luaL_buffinitsize(L, &piece, (size_t)max);
	ssize_t got = read(fd, room, (size_t)max);
	if (got < 0)
		return sm_lua_fail(L, errno, NULL);
	luaL_pushresultsize(&piece, (size_t)got);
	return 1;
}

/* is_terminal(fd) -> boolean */
static int base_is_terminal(lua_State *L)
{
	lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
	return 1;
}

void sm_lua_base_open(lua_State *L);

/* "r", "w" or "rw". */
static short check_events(lua_State *L, int index, lua_Integer entry)
{
	if (lua_isnil(L, index))
		return POLLIN;
	if (lua_isinteger(L, index))
		return (short)lua_tointeger(L, index);
	const char *text = lua_type(L, index) == LUA_TSTRING ? lua_tostring(L, index) : "";
	if (!text[0] || strspn(text, "rw") != strlen(text))
		luaL_error(L, "entry %I: events are \"r\", \"w\" or \"rw\"", entry);
	return (short)((strchr(text, 'r') ? POLLIN : 0) | (strchr(text, 'w') ? POLLOUT : 0));
}

static int check_timeout(lua_State *L, int index)
{
	if (lua_isnoneornil(L, index))
		return -1;
	/* Rounded up: a wait that ends early would have its caller spin. */
	double timeout_ms = ceil(luaL_checknumber(L, index));
	if (timeout_ms < 0)
		return -1;
	return timeout_ms < INT_MAX ? (int)timeout_ms : INT_MAX;
}

/* poll({ {fd, "r"|"w"|"rw"}, ... }, timeout_ms or nil) -> list of the indexes that are ready (or hung up, or in error).
 * One poll(2) call; empty on timeout and when a signal came. */
static int base_poll(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	int timeout_ms = check_timeout(L, 2);
	lua_Integer count = luaL_len(L, 1);
	luaL_argcheck(L, count >= 0 && count < INT_MAX / (lua_Integer)sizeof(struct pollfd), 1, "too many entries");
	/* Lua's memory, because the checks below may raise. */
	struct pollfd *entries = lua_newuserdatauv(L, (size_t)count * sizeof *entries + 1, 0);
	for (lua_Integer i = 0; i < count; i++) {
		if (lua_geti(L, 1, i + 1) != LUA_TTABLE)
			return luaL_error(L, "entry %I: table expected, got %s", i + 1, luaL_typename(L, -1));
		lua_geti(L, -1, 1);
		lua_geti(L, -2, 2);
		int is_integer;
		lua_Integer fd = lua_tointegerx(L, -2, &is_integer);
		if (!is_integer || fd < 0 || fd > INT_MAX)
			return luaL_error(L, "entry %I: descriptor expected, got %s", i + 1, luaL_typename(L, -2));
		entries[i] = (struct pollfd){ .fd = (int)fd, .events = check_events(L, -1, i + 1) };
		lua_pop(L, 3);
	}
	int ready = poll(entries, (nfds_t)count, timeout_ms);
	if (ready < 0 && errno != EINTR)
		return sm_lua_fail(L, errno, NULL);
	lua_newtable(L);
	lua_Integer found = 0;
	for (lua_Integer i = 0; ready > 0 && i < count; i++) {
		if (!entries[i].revents)
			continue;
		lua_pushinteger(L, i + 1);
		lua_seti(L, -2, ++found);
	}
	return 1;
}

/* now_ms() -> milliseconds of the monotonic clock, with a fraction. */
static int base_now_ms(lua_State *L)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	lua_pushnumber(L, (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6);
	return 1;
}

/* thread_cpu_us() -> microseconds of processor time that the calling thread has taken, with a fraction. */
static int base_thread_cpu_us(lua_State *L)
{
	struct timespec now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	lua_pushnumber(L, (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3);
	return 1;
}

/* sha256(bytes) -> 64 hex digits. */
static int base_sha256(lua_State *L)
{
	size_t len;
	const char *data = luaL_checklstring(L, 1, &len);
	char hex[SM_SHA256_HEX + 1];
	int code = sm_sha256_hex(data, len, hex);
	if (code < 0)
		return sm_lua_fail(L, code, NULL);
	lua_pushstring(L, hex);
	return 1;
}

/* json_check(text) -> true: whether this project takes the text for JSON (limits, duplicate names and all). */
static int base_json_check(lua_State *L)
{
	size_t len;
	const char *text = luaL_checklstring(L, 1, &len);
	struct sm_error err = { 0 };
	cJSON *root;
	int code = sm_json_parse(text, len, "text", &root, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	cJSON_Delete(root);
	lua_pushboolean(L, 1);
	return 1;
}

static uint32_t check_tag(lua_State *L, int index)
{
	size_t len;
	const char *tag = luaL_checklstring(L, index, &len);
	luaL_argcheck(L, len == 4, index, "a tag has four bytes");
	return SM_TAG((uint8_t)tag[0], (uint8_t)tag[1], (uint8_t)tag[2], (uint8_t)tag[3]);
}

/* record_write(tag, version, payload) -> the bytes of one record. */
static int base_record_write(lua_State *L)
{
	uint32_t tag = check_tag(L, 1);
	lua_Integer version = luaL_checkinteger(L, 2);
	luaL_argcheck(L, version >= 0 && version <= UINT16_MAX, 2, "a version has 16 bits");
	size_t len;
	const char *payload = luaL_checklstring(L, 3, &len);
	struct sm_buf buf;
	void *room = sm_lua_room(L, len + 16, &buf);
	size_t record = sm_record_begin(&buf, tag, (uint16_t)version);
	sm_buf_append(&buf, payload, len);
	sm_record_end(&buf, record);
	return sm_lua_built(L, room, &buf, buf.failed, NULL);
}

/* record_read(bytes, tag, version) -> payload of the one record that bytes are. */
static int base_record_read(lua_State *L)
{
	size_t len;
	const char *bytes = luaL_checklstring(L, 1, &len);
	uint32_t tag = check_tag(L, 2);
	lua_Integer version = luaL_checkinteger(L, 3);
	struct sm_reader reader, record;
	struct sm_error err = { 0 };
	sm_reader_init(&reader, bytes, len);
	int code = sm_record_open(&reader, tag, (uint16_t)version, "bytes", &record, &err);
	if (!code)
		code = sm_record_close(&reader, "bytes", &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushlstring(L, (const char *)record.data, record.len);
	return 1;
}

void sm_lua_base_open(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "poll", base_poll },
		{ "read_fd", base_read_fd },
		{ "is_terminal", base_is_terminal },
		{ "now_ms", base_now_ms },
		{ "thread_cpu_us", base_thread_cpu_us },
		{ "sha256", base_sha256 },
		{ "json_check", base_json_check },
		{ "record_write", base_record_write },
		{ "record_read", base_record_read },
		{ NULL, NULL },
	};
	luaL_setfuncs(L, functions, 0);
}
