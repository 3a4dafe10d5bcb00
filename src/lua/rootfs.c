/* Layers to EROFS images, images to one disk, the initramfs. */
#include "base/fd.h"
#include "base/path.h"
#include "lua/support.h"
#include "rootfs/composite.h"
#include "rootfs/initramfs.h"
#include "rootfs/layer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_BYTES (1u << 20)

void sm_lua_rootfs_open(lua_State *L);

struct bake {
	char *tar_path;
	char *out_path;
	char *diff_id; /* NULL: any */
	char *chain_id, *chained_path;
	char **lower; /* NULL: it is the lowest layer */
	int *lower_fds;
	size_t nlower;
	struct sm_rootfs_options options;
	struct sm_rootfs_layer_stats stats;
};

static void bake_free(void *arg)
{
	struct bake *bake = arg;
	free(bake->tar_path);
	free(bake->out_path);
	free(bake->diff_id);
	free(bake->chain_id);
	free(bake->chained_path);
	for (size_t i = 0; bake->lower_fds && i < bake->nlower; i++)
		sm_fd_close(&bake->lower_fds[i]);
	free(bake->lower_fds);
	sm_lua_strings_free(bake->lower);
	free(bake);
}

static int open_lower(void *arg, const int **ret_fds, size_t *ret_count, struct sm_error *err)
{
	struct bake *bake = arg;
	bake->lower_fds = malloc((bake->nlower + 1) * sizeof *bake->lower_fds);
	if (!bake->lower_fds)
		return sm_error_sys(err, ENOMEM, "lower layers");
	for (size_t i = 0; i < bake->nlower; i++)
		bake->lower_fds[i] = -1;
	for (size_t i = 0; i < bake->nlower; i++)
		if ((bake->lower_fds[i] = open(bake->lower[i], O_RDONLY | O_CLOEXEC)) < 0)
			return sm_error_sys(err, errno, "open '%s'", bake->lower[i]);
	*ret_fds = bake->lower_fds;
	*ret_count = bake->nlower;
	return 0;
}

static int bake_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct bake *bake = arg;
	bake->options.cancel = sm_op_cancel_flag(op);
	SM_FD_CLEANUP int fd = open(bake->tar_path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return sm_error_sys(err, errno, "open '%s'", bake->tar_path);
	const struct sm_rootfs_below below = {
		.chain_id = bake->chain_id, .out_path = bake->chained_path, .open = open_lower, .arg = bake
	};
	const struct sm_rootfs_tar tar = { .read = sm_rootfs_tar_read, .arg = &fd };
	return sm_rootfs_layer_bake(&tar, bake->diff_id, bake->out_path, bake->lower ? &below : NULL, &bake->options,
	                            &bake->stats, err);
}

static int bake_push(lua_State *L, void *arg)
{
	const struct bake *bake = arg;
	const struct sm_rootfs_layer_stats *stats = &bake->stats;
	const struct {
		const char *name;
		uint64_t value;
	} counts[] = {
		{ "image_bytes", stats->image_bytes }, { "tar_bytes", stats->tar_bytes },
		{ "tar_entries", stats->tar_entries }, { "inodes", stats->inodes },
		{ "whiteouts", stats->whiteouts },     { "opaque_directories", stats->opaque_directories },
		{ "ignored", stats->ignored },         { "dropped_xattrs", stats->dropped_xattrs },
	};
	lua_newtable(L);
	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
		lua_pushinteger(L, (lua_Integer)counts[i].value);
		lua_setfield(L, -2, counts[i].name);
	}
	lua_pushfstring(L, "sha256:%s", stats->digest);
	lua_setfield(L, -2, "diff_id");
	lua_pushboolean(L, stats->reused);
	lua_setfield(L, -2, "reused");
	lua_pushboolean(L, stats->chained);
	lua_setfield(L, -2, "chained");
	lua_pushboolean(L, stats->root_opaque);
	lua_setfield(L, -2, "root_opaque");
	return 1;
}

static uint64_t option_limit(lua_State *L, int index, const char *key, uint64_t max)
{
	lua_Integer value = sm_lua_option_integer(L, index, key, 0);
	if (value < 0 || (uint64_t)value > max)
		luaL_error(L, "option '%s' is out of range", key);
	return (uint64_t)value;
}

static char *copy_option(const char *text)
{
	return text ? strdup(text) : NULL;
}

/* erofs_begin(tar_path, out_path, { diff_id=, max_bytes=, max_memory_bytes=, max_entries=, lower=, chain_id=,
 * chained_path= }) -> operation -> statistics.  diff_id: "sha256:HEX" of the unpacked tar, checked; a sound image that
 * is there already is reused.  lower: paths of the images below, lowest first; then an image that depends on them goes
 * to chained_path under the name chain_id. */
static int rootfs_erofs_begin(lua_State *L)
{
	static const char *const known[] = { "diff_id", "max_bytes", "max_memory_bytes", "max_entries",
		                             "lower",   "chain_id",  "chained_path",     NULL };
	const char *tar_path = luaL_checkstring(L, 1), *out_path = luaL_checkstring(L, 2);
	sm_lua_options_check(L, 3, known);
	const char *diff_id = sm_lua_option_string(L, 3, "diff_id", NULL);
	const char *chain_id = sm_lua_option_string(L, 3, "chain_id", NULL);
	const char *chained_path = sm_lua_option_string(L, 3, "chained_path", NULL);
	struct sm_rootfs_options options = {
		.max_bytes = option_limit(L, 3, "max_bytes", INT64_MAX),
		.max_memory_bytes = option_limit(L, 3, "max_memory_bytes", INT64_MAX),
		.max_entries = (uint32_t)option_limit(L, 3, "max_entries", UINT32_MAX),
	};
	bool has_lower = lua_istable(L, 3) && lua_getfield(L, 3, "lower") != LUA_TNIL;
	if (has_lower && (!chain_id || !chained_path))
		return luaL_error(L, "options 'chain_id' and 'chained_path' are missing");
	char **lower = has_lower ? sm_lua_strings(L, lua_gettop(L), "lower") : NULL;
	struct bake *bake = calloc(1, sizeof *bake);
	if (!bake) {
		sm_lua_strings_free(lower);
		return sm_lua_fail(L, ENOMEM, NULL);
	}
	bake->lower = lower;
	while (lower && lower[bake->nlower])
		bake->nlower++;
	bake->tar_path = strdup(tar_path);
	bake->out_path = strdup(out_path);
	bake->diff_id = copy_option(diff_id);
	bake->chain_id = copy_option(chain_id);
	bake->chained_path = copy_option(chained_path);
	bake->options = options;
	if (!bake->tar_path || !bake->out_path || (diff_id && !bake->diff_id) || (has_lower && !lower) ||
	    (chain_id && !bake->chain_id) || (chained_path && !bake->chained_path)) {
		bake_free(bake);
		return sm_lua_fail(L, ENOMEM, NULL);
	}
	return sm_lua_op(L, bake_run, bake, bake_free, bake_push, 0);
}

/* erofs_path(store, diff_id) -> where the layer's image belongs. */
static int rootfs_erofs_path(lua_State *L)
{
	char path[PATH_MAX];
	struct sm_error err = { 0 };
	int code = sm_rootfs_layer_path(luaL_checkstring(L, 1), luaL_checkstring(L, 2), path, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushstring(L, path);
	return 1;
}

static int open_layers(char **paths, size_t count, struct sm_composite_layer *layers, struct sm_error *err)
{
	for (size_t i = 0; i < count; i++) {
		struct stat status;
		layers[i].fd = open(paths[i], O_RDONLY | O_CLOEXEC);
		if (layers[i].fd < 0 || fstat(layers[i].fd, &status) < 0)
			return sm_error_sys(err, errno, "open '%s'", paths[i]);
		layers[i].bytes = (uint64_t)status.st_size;
		const char *slash = strrchr(paths[i], '/');
		layers[i].digest = slash ? slash + 1 : paths[i];
	}
	return 0;
}

static int copy_disk(const struct sm_disk *disk, const char *out_path, struct sm_error *err)
{
	struct sm_path_new file;
	uint8_t *buffer = malloc(COPY_BYTES);
	if (!buffer)
		return sm_error_sys(err, ENOMEM, "write '%s'", out_path);
	int code = sm_path_new_begin(&file, out_path, 0644, err);
	for (uint64_t offset = 0; code == 0 && offset < disk->bytes; offset += COPY_BYTES) {
		size_t len = disk->bytes - offset < COPY_BYTES ? (size_t)(disk->bytes - offset) : COPY_BYTES;
		code = sm_composite_read(disk, offset, buffer, len);
		if (code == 0)
			code = sm_fd_pwrite_full(file.fd, buffer, len, offset);
		if (code < 0)
			sm_error_sys(err, code, "write '%s'", out_path);
	}
	if (code == 0)
		code = sm_path_new_commit(&file, err);
	sm_path_new_discard(&file);
	free(buffer);
	return code;
}

static void push_disk(lua_State *L, const struct sm_disk *disk)
{
	lua_createtable(L, 0, 2);
	lua_pushinteger(L, (lua_Integer)disk->bytes);
	lua_setfield(L, -2, "bytes");
	lua_createtable(L, (int)disk->nsegments, 0);
	for (unsigned i = 0; i < disk->nsegments; i++) {
		const struct sm_disk_segment *segment = &disk->segments[i];
		lua_createtable(L, 0, 3);
		lua_pushinteger(L, (lua_Integer)segment->offset);
		lua_setfield(L, -2, "offset");
		lua_pushinteger(L, (lua_Integer)segment->length);
		lua_setfield(L, -2, "length");
		lua_pushstring(L, segment->fd >= 0 ? "file" : segment->memory ? "memory" : "zeros");
		lua_setfield(L, -2, "source");
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_setfield(L, -2, "segments");
}

/* composite(paths, out_path) -> { bytes=, segments={ {offset=, length=, source=} } }: write the disk that the block
 * device serves to a file.  The file names stand for the layers' digests. */
static int rootfs_composite(lua_State *L)
{
	const char *out_path = luaL_checkstring(L, 2);
	struct sm_composite_layer layers[SM_COMPOSITE_LAYERS_MAX];
	struct sm_composite *composite = NULL;
	struct sm_error err = { 0 };
	size_t count = lua_istable(L, 1) ? (size_t)luaL_len(L, 1) : 0;
	char **paths = sm_lua_strings(L, 1, "paths");
	for (size_t i = 0; i < SM_COMPOSITE_LAYERS_MAX; i++)
		layers[i].fd = -1;
	int code = paths ? 0 : sm_error_sys(&err, ENOMEM, "paths");
	if (code == 0 && count <= SM_COMPOSITE_LAYERS_MAX)
		code = open_layers(paths, count, layers, &err);
	if (code == 0)
		code = sm_composite_new(layers, count, &composite, &err);
	if (code == 0)
		code = copy_disk(sm_composite_disk(composite), out_path, &err);
	for (size_t i = 0; i < SM_COMPOSITE_LAYERS_MAX; i++)
		sm_fd_close(&layers[i].fd);
	sm_lua_strings_free(paths);
	if (code < 0) {
		sm_composite_free(composite);
		return sm_lua_fail(L, code, &err);
	}
	/* Cannot raise but for want of memory, which only leaks the table then. */
	push_disk(L, sm_composite_disk(composite));
	sm_composite_free(composite);
	return 1;
}

/* One entry's fields, borrowed from the tables; what is not a table with a path raises. */
static void check_entry(lua_State *L, lua_Integer index, struct sm_initramfs_entry *entry, const char **ret_file)
{
	static const char *const known[] = { "path", "mode", "data", "file", "target", "major", "minor", NULL };
	if (lua_rawgeti(L, 2, index) != LUA_TTABLE)
		luaL_error(L, "entry %I: table expected, got %s", index, luaL_typename(L, -1));
	int at = lua_gettop(L);
	sm_lua_options_check(L, at, known);
	entry->fd = -1;
	entry->path = sm_lua_option_string(L, at, "path", NULL);
	if (!entry->path)
		luaL_error(L, "entry %I: no path", index);
	const char *target = sm_lua_option_string(L, at, "target", NULL);
	lua_Integer mode = sm_lua_option_integer(L, at, "mode", target ? S_IFLNK | 0777 : S_IFREG | 0644);
	entry->mode = (uint32_t)(mode & S_IFMT ? mode : mode | S_IFREG);
	entry->major = (uint32_t)sm_lua_option_integer(L, at, "major", 0);
	entry->minor = (uint32_t)sm_lua_option_integer(L, at, "minor", 0);
	*ret_file = sm_lua_option_string(L, at, "file", NULL);
	entry->data = target ? target : sm_lua_option_string(L, at, "data", "");
	entry->data_len = strlen(entry->data);
	if (!target && lua_getfield(L, at, "data") == LUA_TSTRING)
		lua_tolstring(L, -1, &entry->data_len);
	lua_settop(L, at - 1);
}

/* initramfs(out_path, entries) -> true.  An entry: { path=, mode= (octal, regular file by default), data= or file= (a
 * path) or target=, major=, minor= }. */
static int rootfs_initramfs(lua_State *L)
{
	const char *out_path = luaL_checkstring(L, 1);
	luaL_checktype(L, 2, LUA_TTABLE);
	lua_Integer count = luaL_len(L, 2);
	luaL_argcheck(L, count > 0 && count < 65536, 2, "1 to 65535 entries expected");
	/* Lua's memory: the checks may raise. */
	struct sm_initramfs_entry *entries = lua_newuserdatauv(L, (size_t)count * sizeof *entries, 0);
	const char **files = lua_newuserdatauv(L, (size_t)count * sizeof *files, 0);
	memset(entries, 0, (size_t)count * sizeof *entries);
	for (lua_Integer i = 0; i < count; i++)
		check_entry(L, i + 1, &entries[i], &files[i]);
	struct sm_error err = { 0 };
	struct sm_path_new file;
	int code = sm_path_new_begin(&file, out_path, 0644, &err);
	for (lua_Integer i = 0; code == 0 && i < count; i++) {
		if (!files[i])
			continue;
		entries[i].fd = open(files[i], O_RDONLY | O_CLOEXEC);
		if (entries[i].fd < 0)
			code = sm_error_sys(&err, errno, "open '%s'", files[i]);
	}
	if (code == 0)
		code = sm_initramfs_write(file.fd, entries, (size_t)count, &err);
	if (code == 0)
		code = sm_path_new_commit(&file, &err);
	sm_path_new_discard(&file);
	for (lua_Integer i = 0; i < count; i++)
		sm_fd_close(&entries[i].fd);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	lua_pushboolean(L, true);
	return 1;
}

static const luaL_Reg functions[] = {
	{ "erofs_begin", rootfs_erofs_begin },
	{ "erofs_path", rootfs_erofs_path },
	{ "composite", rootfs_composite },
	{ "initramfs", rootfs_initramfs },
	{ NULL, NULL },
};

void sm_lua_rootfs_open(lua_State *L)
{
	luaL_setfuncs(L, functions, 0);
}
