/* The `supermachine` executable: Lua 5.4 with supermachine.core inside, and the commands, which are Lua. */
#include "base/path.h"
#include "base/version.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

int luaopen_supermachine_core(lua_State *L);

/* The first argument that is one of these goes to supermachine.cli; a script of that name needs a "./" before it. */
static const char *const commands[] = { "run", "pull", "bake",   "exec",   "images",  "inspect", "tag", "rmi",
	                                "du",  "gc",   "verify", "doctor", "version", "help",    NULL };

static const char usage[] = "usage: supermachine COMMAND [ARG...]      see: supermachine help\n"
			    "       supermachine [-i] [-e CODE]... [SCRIPT | -] [ARG...]\n"
			    "  -e CODE  run CODE; may be repeated\n"
			    "  -i       a prompt after CODE or SCRIPT (also with neither, on a terminal)\n"
			    "  -v       the version\n";

static bool is_command(const char *word)
{
	for (const char *const *command = commands; *command; command++)
		if (!strcmp(*command, word))
			return true;
	return false;
}

/* Below `base`, is there the Lua part of this project? */
static bool has_lua(const char *base)
{
	char path[PATH_MAX];
	return !sm_path_format(path, NULL, "%s/supermachine", base) && !access(path, R_OK | X_OK);
}

/* Where the Lua part lies: beside a build folder (build/ or build/NAME/), beside an installed bin/, or below the
 * prefix that was compiled in. */
static bool find_lua(char out[PATH_MAX])
{
	static const char *const below_exe[] = { "../lua", "../../lua", "../share/lua/5.4", NULL };
	char exe[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);
	if (len > 0) {
		exe[len] = 0;
		char *slash = strrchr(exe, '/');
		if (slash)
			*slash = 0;
		for (const char *const *below = below_exe; *below; below++) {
			char path[PATH_MAX];
			if (!sm_path_format(path, NULL, "%s/%s", exe, *below) && realpath(path, out) && has_lua(out))
				return true;
		}
	}
	return realpath(SM_PREFIX "/share/lua/5.4", out) && has_lua(out);
}

static void set_up(lua_State *L)
{
	luaL_openlibs(L);
	luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
	lua_pushcfunction(L, luaopen_supermachine_core);
	lua_setfield(L, -2, "supermachine.core");
	lua_pop(L, 1);
	char folder[PATH_MAX];
	if (!find_lua(folder))
		return;
	lua_getglobal(L, "package");
	lua_getfield(L, -1, "path");
	lua_pushfstring(L, "%s/?.lua;%s/?/init.lua;%s", folder, folder, lua_tostring(L, -1));
	lua_setfield(L, -3, "path");
	lua_pop(L, 2);
}

static int traceback(lua_State *L)
{
	const char *message = lua_tostring(L, 1);
	if (!message && luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING)
		return 1;
	luaL_traceback(L, L, message ? message : lua_pushfstring(L, "(error is a %s)", luaL_typename(L, 1)), 1);
	return 1;
}

/* Call the function below its arguments; on an error, print it and leave nothing on the stack. */
static bool call(lua_State *L, int args, int results)
{
	int base = lua_gettop(L) - args;
	lua_pushcfunction(L, traceback);
	lua_insert(L, base);
	int status = lua_pcall(L, args, results, base);
	lua_remove(L, base);
	if (status == LUA_OK)
		return true;
	fprintf(stderr, "supermachine: %s\n", lua_tostring(L, -1));
	lua_pop(L, 1);
	return false;
}

/* What luaL_load* gave: run it, or print why it does not compile. */
static bool run_chunk(lua_State *L, int status, int args)
{
	if (status != LUA_OK) {
		fprintf(stderr, "supermachine: %s\n", lua_tostring(L, -1));
		lua_pop(L, 1);
		return false;
	}
	lua_insert(L, -1 - args);
	return call(L, args, 0);
}

/* The global `arg`: the script is 0, its arguments follow, what stood before it is negative. */
static void set_arg(lua_State *L, int argc, char **argv, int script)
{
	lua_createtable(L, argc - script, script + 1);
	for (int i = 0; i < argc; i++) {
		lua_pushstring(L, argv[i]);
		lua_rawseti(L, -2, i - script);
	}
	lua_setglobal(L, "arg");
}

static bool run_script(lua_State *L, int argc, char **argv, int script)
{
	int args = argc - script - 1;
	luaL_checkstack(L, args + 4, "too many arguments");
	for (int i = 0; i < args; i++)
		lua_pushstring(L, argv[script + 1 + i]);
	/* "-" after "--" is a file of that name, as in lua(1); here it is always standard input. */
	const char *name = strcmp(argv[script], "-") ? argv[script] : NULL;
	return run_chunk(L, luaL_loadfile(L, name), args);
}

/* The line is read into Lua's own buffer; false at the end of input. */
static bool read_line(lua_State *L, const char *prompt)
{
	fputs(prompt, stdout);
	fflush(stdout);
	luaL_Buffer line;
	luaL_buffinit(L, &line);
	int c = EOF;
	bool any = false;
	while ((c = getchar()) != EOF && c != '\n') {
		luaL_addchar(&line, (char)c);
		any = true;
	}
	luaL_pushresult(&line);
	if (c != EOF || any)
		return true;
	lua_pop(L, 1);
	return false;
}

static bool is_incomplete(lua_State *L, int status)
{
	size_t len;
	const char *message = status == LUA_ERRSYNTAX ? lua_tolstring(L, -1, &len) : NULL;
	return message && len >= 5 && !strcmp(message + len - 5, "<eof>");
}

/* Replace the line on the stack top by its function, reading further lines while it is incomplete.  An expression
 * is compiled as `return EXPRESSION`, so that its values are shown. */
static int load_line(lua_State *L)
{
	const char *expression = lua_pushfstring(L, "return %s", lua_tostring(L, -1));
	int status = luaL_loadbuffer(L, expression, strlen(expression), "=stdin");
	lua_remove(L, -2);
	while (status != LUA_OK) {
		lua_pop(L, 1);
		size_t len;
		const char *text = lua_tolstring(L, -1, &len);
		status = luaL_loadbuffer(L, text, len, "=stdin");
		if (!is_incomplete(L, status))
			break;
		lua_pop(L, 1);
		if (!read_line(L, ">> ")) {
			lua_pushliteral(L, "unfinished at the end of input");
			status = LUA_ERRSYNTAX;
			break;
		}
		lua_pushliteral(L, "\n");
		lua_insert(L, -2);
		lua_concat(L, 3);
		lua_pushnil(L); /* what the head of this loop pops */
	}
	lua_remove(L, -2);
	return status;
}

static void prompt(lua_State *L)
{
	printf("supermachine %s, %s\n", SM_VERSION, LUA_RELEASE);
	lua_getglobal(L, "require");
	lua_pushliteral(L, "supermachine");
	if (lua_pcall(L, 1, 1, 0) == LUA_OK) {
		lua_setglobal(L, "sm");
		puts("sm = require \"supermachine\"");
	}
	lua_settop(L, 0);
	while (read_line(L, "> ")) {
		int status = load_line(L);
		if (status != LUA_OK) {
			fprintf(stderr, "%s\n", lua_tostring(L, -1));
		} else if (call(L, 0, LUA_MULTRET) && lua_gettop(L) > 0) {
			lua_getglobal(L, "print");
			lua_insert(L, 1);
			call(L, lua_gettop(L) - 1, 0);
		}
		lua_settop(L, 0);
	}
	putchar('\n');
}

static int run_command(lua_State *L, int argc, char **argv)
{
	set_arg(L, argc, argv, 0);
	lua_getglobal(L, "require");
	lua_pushliteral(L, "supermachine.cli");
	if (!call(L, 1, 1))
		return EXIT_FAILURE;
	lua_getfield(L, -1, "main");
	lua_createtable(L, argc - 1, 0);
	for (int i = 1; i < argc; i++) {
		lua_pushstring(L, argv[i]);
		lua_rawseti(L, -2, i);
	}
	if (!call(L, 1, 1))
		return EXIT_FAILURE;
	return lua_isinteger(L, -1) ? (int)lua_tointeger(L, -1) : EXIT_FAILURE;
}

static int run_lua(lua_State *L, int argc, char **argv)
{
	bool interactive = false, ran = false;
	int i = 1;
	int script = argc; /* `arg` is there for -e too, so the script is looked for first */
	for (; i < argc && argv[i][0] == '-' && argv[i][1]; i++) {
		if (!strcmp(argv[i], "--")) {
			i++;
			break;
		}
		if (!strcmp(argv[i], "-e") && i + 1 < argc) {
			i++;
		} else if (!strcmp(argv[i], "-i")) {
			interactive = true;
		} else if (!strcmp(argv[i], "-v") || !strcmp(argv[i], "--version")) {
			printf("supermachine %s (%s)\n", SM_VERSION, LUA_RELEASE);
			return EXIT_SUCCESS;
		} else {
			bool help = !strcmp(argv[i], "-h") || !strcmp(argv[i], "--help");
			fputs(usage, help ? stdout : stderr);
			return help ? EXIT_SUCCESS : EXIT_FAILURE;
		}
	}
	script = i;
	set_arg(L, argc, argv, script < argc ? script : 0);
	for (i = 1; i < script; i++) {
		if (strcmp(argv[i], "-e"))
			continue;
		ran = true;
		if (!run_chunk(L, luaL_loadbuffer(L, argv[i + 1], strlen(argv[i + 1]), "=-e"), 0))
			return EXIT_FAILURE;
		i++;
	}
	if (script < argc) {
		ran = true;
		if (!run_script(L, argc, argv, script))
			return EXIT_FAILURE;
	}
	if (interactive || (!ran && isatty(STDIN_FILENO)))
		prompt(L);
	else if (!ran)
		return run_chunk(L, luaL_loadfile(L, NULL), 0) ? EXIT_SUCCESS : EXIT_FAILURE;
	return EXIT_SUCCESS;
}

struct invocation {
	int argc;
	char **argv;
	int status;
};

/* Everything that may raise for want of memory runs in protected mode. */
static int protected_main(lua_State *L)
{
	struct invocation *invocation = lua_touserdata(L, 1);
	lua_settop(L, 0);
	luaL_checkversion(L);
	set_up(L);
	bool command = invocation->argc > 1 && is_command(invocation->argv[1]);
	invocation->status = (command ? run_command : run_lua)(L, invocation->argc, invocation->argv);
	return 0;
}

/* A machine has some twenty descriptors, and a shell's usual limit is 1,024: as many as this process may have.  Only
 * the executable does so; the module changes nothing in the process that loads it. */
static void raise_open_files(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit); /* fewer machines, then */
}

int main(int argc, char **argv)
{
	raise_open_files();
	lua_State *L = luaL_newstate();
	if (!L) {
		fputs("supermachine: not enough memory\n", stderr);
		return EXIT_FAILURE;
	}
	struct invocation invocation = { argc, argv, EXIT_FAILURE };
	lua_pushcfunction(L, protected_main);
	lua_pushlightuserdata(L, &invocation);
	if (lua_pcall(L, 1, 0, 0) != LUA_OK)
		fprintf(stderr, "supermachine: %s\n", lua_tostring(L, -1));
	lua_close(L);
	return invocation.status;
}
