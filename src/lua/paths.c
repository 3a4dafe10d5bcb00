/* Folders and file hashes for lua/supermachine/paths.lua. */
#include "base/fd.h"
#include "base/path.h"
#include "base/sha256.h"
#include "lua/support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The folder of the running executable, or nil. */
static int paths_executable_dir(lua_State *L)
{
	char path[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", path, sizeof path - 1);
	if (len <= 0)
		return 0;
	path[len] = '\0';
	char *slash = strrchr(path, '/');
	lua_pushlstring(L, path, slash > path ? (size_t)(slash - path) : 1);
	return 1;
}

/* $XDG_CACHE_HOME/supermachine, created. */
static int paths_cache_dir(lua_State *L)
{
	char path[PATH_MAX];
	struct sm_error err = { 0 };
	int code = sm_path_cache_home(path, &err);
	if (code >= 0)
		code = sm_path_make_dirs(path, 0755, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushstring(L, path);
	return 1;
}

static int make_dirs(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	struct sm_error err = { 0 };
	int code = sm_path_make_dirs(path, 0755, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushboolean(L, true);
	return 1;
}

static int remove_tree(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	struct sm_error err = { 0 };
	int code = sm_path_remove_tree(path, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushboolean(L, true);
	return 1;
}

/* Absolute, and of what it leads to. */
static int paths_real_path(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	char absolute[PATH_MAX];
	struct sm_error err = { 0 };
	if (!realpath(path, absolute)) {
		int code = sm_error_sys(&err, errno, "%s", path);
		return sm_lua_fail(L, code, &err);
	}
	lua_pushstring(L, absolute);
	return 1;
}

static int hash_fd(int fd, char out[SM_SHA256_HEX + 1])
{
	struct sm_sha256 *hash = sm_sha256_new();
	if (!hash)
		return -ENOMEM;
	char chunk[65536];
	ssize_t got;
	while ((got = read(fd, chunk, sizeof chunk)) != 0) {
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			break;
		sm_sha256_update(hash, chunk, (size_t)got);
	}
	int code = got < 0 ? -errno : 0;
	sm_sha256_final(hash, out);
	sm_sha256_free(hash);
	return code;
}

/* 64 hex digits. */
static int paths_sha256_file(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	char hex[SM_SHA256_HEX + 1];
	struct sm_error err = { 0 };
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int code = fd < 0 ? -errno : hash_fd(fd, hex);
	sm_fd_close(&fd);
	if (code < 0) {
		sm_error_sys(&err, code, "%s", path);
		return sm_lua_fail(L, code, &err);
	}
	lua_pushstring(L, hex);
	return 1;
}

void sm_lua_paths_open(lua_State *L);

void sm_lua_paths_open(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "executable_dir", paths_executable_dir },
		{ "cache_dir", paths_cache_dir },
		{ "make_dirs", make_dirs },
		{ "remove_tree", remove_tree },
		{ "sha256_file", paths_sha256_file },
		{ "real_path", paths_real_path },
		{ NULL, NULL },
	};
	luaL_setfuncs(L, functions, 0);
}
