/* Pulling, and the image userdata. */
#include "lua/image.h"

#include "lua/json.h"
#include "lua/pull_progress.h"
#include "lua/support.h"
#include "oci/credentials.h"
#include "oci/retry.h"
#include "rootfs/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void sm_lua_image_open(lua_State *L);

struct image {
	struct sm_lua_handle handle;
	struct sm_oci_image *image;
};

static int image_digest(lua_State *L);
static int image_config_digest(lua_State *L);
static int image_reference(lua_State *L);
static int image_platform(lua_State *L);
static int image_store(lua_State *L);
static int image_config(lua_State *L);
static int image_process(lua_State *L);
static int image_layers(lua_State *L);

static void image_close(void *payload)
{
	struct image *image = payload;
	sm_oci_image_unref(image->image);
	image->image = NULL;
}

static void image_describe(lua_State *L, void *payload)
{
	const struct image *image = payload;
	lua_pushfstring(L, "supermachine.image: %s %s", sm_oci_image_get_reference(image->image),
	                sm_oci_image_get_manifest_digest(image->image));
}

static const luaL_Reg methods[] = {
	{ "digest", image_digest },
	{ "config_digest", image_config_digest },
	{ "reference", image_reference },
	{ "platform", image_platform },
	{ "store", image_store },
	{ "config", image_config },
	{ "process", image_process },
	{ "layers", image_layers },
	{ NULL, NULL },
};
static const struct sm_lua_class image_class = {
	.name = "supermachine.image",
	.size = sizeof(struct image),
	.methods = methods,
	.close = image_close,
	.describe = image_describe,
};

struct sm_oci_image *sm_lua_image_check(lua_State *L, int index)
{
	struct image *image = sm_lua_check(L, index, &image_class);
	return image->image;
}

/* The manifest's: what the image is. */
static int image_digest(lua_State *L)
{
	lua_pushstring(L, sm_oci_image_get_manifest_digest(sm_lua_image_check(L, 1)));
	return 1;
}

static int image_config_digest(lua_State *L)
{
	lua_pushstring(L, sm_oci_image_get_config_digest(sm_lua_image_check(L, 1)));
	return 1;
}

static int image_reference(lua_State *L)
{
	lua_pushstring(L, sm_oci_image_get_reference(sm_lua_image_check(L, 1)));
	return 1;
}

static int image_platform(lua_State *L)
{
	char text[SM_OCI_PLATFORM_TEXT];
	sm_oci_platform_format(sm_oci_image_get_platform(sm_lua_image_check(L, 1)), text);
	lua_pushstring(L, text);
	return 1;
}

static int image_store(lua_State *L)
{
	lua_pushstring(L, sm_oci_image_get_store_path(sm_lua_image_check(L, 1)));
	return 1;
}

/* The whole config document as a table (OCI image-spec, config.md). */
static int image_config(lua_State *L)
{
	sm_lua_json_push(L, sm_oci_image_get_config(sm_lua_image_check(L, 1)));
	return 1;
}

static void set_string(lua_State *L, const char *name, const char *value)
{
	lua_pushstring(L, value);
	lua_setfield(L, -2, name);
}

/* How the image wants to be run: the table of oci/image_config.h. */
static int image_process(lua_State *L)
{
	sm_lua_json_push(L, sm_oci_image_get_process(sm_lua_image_check(L, 1)));
	return 1;
}

/* Lowest first: { digest =, diff_id =, media_type =, size = } */
static int image_layers(lua_State *L)
{
	size_t count;
	const struct sm_oci_layer *layers = sm_oci_image_get_layers(sm_lua_image_check(L, 1), &count);
	lua_newtable(L);
	for (size_t i = 0; i < count; i++) {
		lua_newtable(L);
		set_string(L, "digest", layers[i].digest);
		set_string(L, "diff_id", layers[i].diff_id);
		set_string(L, "media_type", layers[i].media_type);
		lua_pushinteger(L, (lua_Integer)layers[i].size);
		lua_setfield(L, -2, "size");
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	return 1;
}

/* Owned by the operation. */
struct pull {
	struct sm_oci_pull_options options;
	char *reference, *store, *platform, *ca_file, *username, *password, *config;
	struct sm_oci_image *image;
	struct sm_oci_pull_stats stats;
	bool rootfs;
	struct sm_lua_pull_progress progress;
};

static void pull_free(void *arg)
{
	struct pull *pull = arg;
	sm_oci_image_unref(pull->image);
	sm_lua_pull_progress_done(&pull->progress);
	free(pull->reference);
	free(pull->store);
	free(pull->platform);
	free(pull->ca_file);
	free(pull->username);
	sm_oci_credentials_wipe(&pull->password);
	free(pull->config);
	free(pull);
}

static int pull_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct pull *pull = arg;
	pull->options.cancel = sm_op_cancel_flag(op);
	pull->options.cancel_fd = sm_op_cancel_fd(op);
	return (pull->rootfs ? sm_rootfs_pull : sm_oci_pull)(&pull->options, &pull->image, &pull->stats, err);
}

static void set_number(lua_State *L, const char *name, uint64_t value)
{
	lua_pushinteger(L, (lua_Integer)value);
	lua_setfield(L, -2, name);
}

static int pull_push(lua_State *L, void *arg)
{
	struct pull *pull = arg;
	struct image *image = sm_lua_new(L, &image_class);
	image->image = pull->image;
	pull->image = NULL;
	image->handle.open = true;
	lua_newtable(L);
	set_number(L, "fetched_bytes", pull->stats.fetched_bytes);
	set_number(L, "fetched_layers", pull->stats.fetched_layers);
	set_number(L, "reused_bytes", pull->stats.reused_bytes);
	set_number(L, "reused_layers", pull->stats.reused_layers);
	set_number(L, "resumed_bytes", pull->stats.resumed_bytes);
	set_number(L, "retries", pull->stats.retries);
	return 2;
}

static int pull_push_progress(lua_State *L, void *arg)
{
	struct pull *pull = arg;
	return sm_lua_pull_progress_push(L, &pull->progress);
}

static unsigned check_number(lua_State *L, int index, const char *key, unsigned fallback, unsigned min, unsigned max)
{
	lua_Integer value = sm_lua_option_integer(L, index, key, (lua_Integer)fallback);
	if (value < (lua_Integer)min || value > (lua_Integer)max)
		return (unsigned)luaL_error(L, "option '%s': %d to %d expected", key, (int)min, (int)max);
	return (unsigned)value;
}

static enum sm_oci_pull_policy check_policy(lua_State *L, int index)
{
	static const struct {
		const char *name;
		enum sm_oci_pull_policy policy;
	} policies[] = {
		{ "always", SM_OCI_PULL_ALWAYS },
		{ "missing", SM_OCI_PULL_MISSING },
		{ "never", SM_OCI_PULL_NEVER },
	};
	const char *name = sm_lua_option_string(L, index, "policy", "always");
	for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++)
		if (!strcmp(name, policies[i].name))
			return policies[i].policy;
	return (enum sm_oci_pull_policy)luaL_error(L, "option 'policy': always, missing or never expected, got '%s'",
	                                           name);
}

static bool copy(const char *text, char **ret, const char **ret_borrowed)
{
	*ret = text ? strdup(text) : NULL;
	*ret_borrowed = *ret;
	return *ret || !text;
}

/* image_pull_begin(reference, { store=, platform=, policy=, insecure=, ca_file=, username=, password=, config=,
 * blob_max_bytes=, parallel=, retries=, stall_ms=, rootfs= }) -> operation, whose finish gives the image and a table of
 * counts, those of struct sm_oci_pull_stats, and whose progress gives a list (lua/pull_progress.h).  The fields are
 * those of struct sm_oci_pull_options; rootfs: by sm_rootfs_pull. */
static int image_pull_begin(lua_State *L)
{
	static const char *const known[] = {
		"store",  "platform",       "policy",   "insecure", "ca_file",  "username", "password",
		"config", "blob_max_bytes", "parallel", "retries",  "stall_ms", "rootfs",   NULL,
	};
	size_t len;
	const char *reference = luaL_checklstring(L, 1, &len);
	luaL_argcheck(L, strlen(reference) == len, 1, "holds a NUL byte");
	sm_lua_options_check(L, 2, known);
	const char *store = sm_lua_option_string(L, 2, "store", NULL);
	const char *platform = sm_lua_option_string(L, 2, "platform", NULL);
	const char *ca_file = sm_lua_option_string(L, 2, "ca_file", NULL);
	const char *username = sm_lua_option_string(L, 2, "username", NULL);
	const char *password = sm_lua_option_string(L, 2, "password", NULL);
	const char *config = sm_lua_option_string(L, 2, "config", NULL);
	luaL_argcheck(L, !username == !password, 2, "options 'username' and 'password' come together");
	luaL_argcheck(L, !username || !strchr(username, ':'), 2, "option 'username' must have no colon");
	lua_Integer blob_max_bytes = sm_lua_option_integer(L, 2, "blob_max_bytes", (lua_Integer)SM_OCI_BLOB_MAX_BYTES);
	luaL_argcheck(L, blob_max_bytes > 0, 2, "option 'blob_max_bytes' must be positive");
	unsigned parallel = check_number(L, 2, "parallel", SM_OCI_PARALLEL, 1, SM_OCI_PARALLEL_MAX);
	unsigned retries = check_number(L, 2, "retries", SM_OCI_RETRIES, 0, 1000);
	unsigned stall_ms = check_number(L, 2, "stall_ms", 0, 0, 24 * 3600 * 1000);
	bool insecure = sm_lua_option_boolean(L, 2, "insecure", false);
	bool rootfs = sm_lua_option_boolean(L, 2, "rootfs", false);
	enum sm_oci_pull_policy policy = check_policy(L, 2);

	struct pull *pull = calloc(1, sizeof *pull);
	if (!pull)
		return sm_lua_fail(L, ENOMEM, NULL);
	pull->rootfs = rootfs;
	struct sm_oci_pull_options *options = &pull->options;
	options->policy = policy;
	options->insecure = insecure;
	options->blob_max_bytes = (uint64_t)blob_max_bytes;
	options->parallel = parallel;
	options->retries = retries;
	options->stall_ms = stall_ms;
	options->on_progress = sm_lua_pull_progress_tell;
	options->progress_arg = &pull->progress;
	int code = sm_lua_pull_progress_init(&pull->progress);
	if (code < 0) {
		pull_free(pull);
		return sm_lua_fail(L, code, NULL);
	}
	if (!copy(reference, &pull->reference, &options->reference) || !copy(store, &pull->store, &options->store) ||
	    !copy(platform, &pull->platform, &options->platform) || !copy(ca_file, &pull->ca_file, &options->ca_file) ||
	    !copy(username, &pull->username, &options->username) ||
	    !copy(password, &pull->password, &options->password) || !copy(config, &pull->config, &options->config)) {
		pull_free(pull);
		return sm_lua_fail(L, ENOMEM, NULL);
	}
	int count = sm_lua_op(L, pull_run, pull, pull_free, pull_push, 0);
	if (count == 1)
		sm_lua_op_progress(L, -1, pull->progress.fd, pull_push_progress);
	return count;
}

/* image_reference_parse(text) -> { kind = "layout"|"registry"|"oci-archive"|"docker-archive"|"dir", text =, host =,
 * repository =, path =, tag =, digest =, index =, plain_http = }; absent parts are nil.  Pure. */
static int image_reference_parse(lua_State *L)
{
	size_t len;
	const char *text = luaL_checklstring(L, 1, &len);
	luaL_argcheck(L, strlen(text) == len, 1, "holds a NUL byte");
	struct sm_oci_reference reference;
	struct sm_error err = { 0 };
	int code = sm_oci_reference_parse(text, &reference, &err);
	if (code < 0)
		return sm_lua_fail(L, code, &err);
	char formatted[SM_OCI_REFERENCE_TEXT];
	sm_oci_reference_format(&reference, formatted);
	const char *fields[][2] = {
		{ "kind", sm_oci_reference_kind_name(reference.kind) },
		{ "text", formatted },
		{ "host", reference.host },
		{ "repository", reference.repository },
		{ "path", reference.path },
		{ "tag", reference.tag },
		{ "digest", reference.digest },
	};
	lua_newtable(L);
	for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
		if (*fields[i][1])
			set_string(L, fields[i][0], fields[i][1]);
	if (reference.index >= 0) {
		lua_pushinteger(L, reference.index);
		lua_setfield(L, -2, "index");
	}
	lua_pushboolean(L, reference.plain_http);
	lua_setfield(L, -2, "plain_http");
	return 1;
}

void sm_lua_image_open(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "image_pull_begin", image_pull_begin },
		{ "image_reference_parse", image_reference_parse },
		{ NULL, NULL },
	};
	sm_lua_class_register(L, &image_class);
	luaL_setfuncs(L, functions, 0);
}
