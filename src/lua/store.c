/* core.store_begin(word, {..}): what lies in the image store.  Every word gives one document, as a table or, with
 * json = true, as text. */
#include "lua/json.h"
#include "lua/support.h"
#include "oci/store_gc.h"
#include "oci/store_report.h"
#include "oci/store_verify.h"
#include "rootfs/layer.h"
#include "snapshot/stores.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct job {
	int (*run)(struct job *job, const struct sm_oci_store *store, const atomic_bool *cancel, struct sm_error *err);
	char *path, *name, *new_name, *platform;
	bool dry_run, snapshots, remove, json;
	uint64_t min_age_s;
	cJSON *report;
	char *text;
};

static void job_free(void *arg)
{
	struct job *job = arg;
	cJSON_Delete(job->report);
	cJSON_free(job->text);
	free(job->path);
	free(job->name);
	free(job->new_name);
	free(job->platform);
	free(job);
}

static int run_list(struct job *job, const struct sm_oci_store *store, const atomic_bool *cancel, struct sm_error *err)
{
	(void)cancel;
	return sm_oci_store_list(store, &job->report, err);
}

static int run_inspect(struct job *job, const struct sm_oci_store *store, const atomic_bool *cancel,
                       struct sm_error *err)
{
	(void)cancel;
	return sm_oci_store_inspect(store, sm_snapshot_facts_read, job->name, job->platform, &job->report, err);
}

static int run_du(struct job *job, const struct sm_oci_store *store, const atomic_bool *cancel, struct sm_error *err)
{
	(void)cancel;
	return sm_oci_store_du(store, sm_snapshot_facts_read, &job->report, err);
}

static int run_tag(struct job *job, const struct sm_oci_store *store, const atomic_bool *cancel, struct sm_error *err)
{
	return sm_oci_store_tag(store, job->name, job->platform, job->new_name, cancel, &job->report, err);
}

static int run_remove(struct job *job, const struct sm_oci_store *store, const atomic_bool *cancel,
                      struct sm_error *err)
{
	(void)cancel;
	return sm_oci_store_remove(store, job->name, job->platform, &job->report, err);
}

static int run_gc(struct job *job, const struct sm_oci_store *store, const atomic_bool *cancel, struct sm_error *err)
{
	const struct sm_oci_gc_options options = {
		.dry_run = job->dry_run,
		.snapshots = job->snapshots,
		.min_age_s = job->min_age_s,
		.cancel = cancel,
	};
	return sm_oci_store_gc(store, sm_snapshot_facts_read, &options, &job->report, err);
}

static int run_verify(struct job *job, const struct sm_oci_store *store, const atomic_bool *cancel,
                      struct sm_error *err)
{
	const struct sm_oci_verify_options options = {
		.name = job->name,
		.platform = job->platform,
		.remove = job->remove,
		.cancel = cancel,
	};
	return sm_oci_store_verify(store, sm_rootfs_layer_check, &options, &job->report, err);
}

static const struct {
	const char *word;
	int (*run)(struct job *job, const struct sm_oci_store *store, const atomic_bool *cancel, struct sm_error *err);
	bool name, new_name; /* needed */
} words[] = {
	{ "list", run_list, false, false },     { "inspect", run_inspect, true, false }, { "du", run_du, false, false },
	{ "tag", run_tag, true, true },         { "remove", run_remove, true, false },   { "gc", run_gc, false, false },
	{ "verify", run_verify, false, false },
};

static int job_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct job *job = arg;
	struct sm_oci_store store;
	int code = sm_oci_store_init(&store, job->path, err);
	if (code == 0)
		code = job->run(job, &store, sm_op_cancel_flag(op), err);
	if (code == 0 && job->json && !(job->text = cJSON_PrintUnformatted(job->report)))
		code = sm_error_sys(err, ENOMEM, "image store");
	return code;
}

static int job_push(lua_State *L, void *arg)
{
	const struct job *job = arg;
	if (job->text)
		lua_pushstring(L, job->text);
	else
		sm_lua_json_push(L, job->report);
	return 1;
}

static bool copy(const char *text, char **ret)
{
	*ret = text ? strdup(text) : NULL;
	return *ret || !text;
}

/* Words: list, inspect, du, tag, remove, gc, verify.  Options: store = the folder, json, and where the word has a use
 * for them name, platform, new_name, dry_run, snapshots, min_age_s, remove: see oci/store_report.h, store_gc.h and
 * store_verify.h. */
static int store_begin(lua_State *L)
{
	static const char *const known[] = {
		"store", "json", "name", "platform", "new_name", "dry_run", "snapshots", "min_age_s", "remove", NULL,
	};
	const char *word = luaL_checkstring(L, 1);
	size_t i = 0;
	while (i < sizeof words / sizeof *words && strcmp(word, words[i].word))
		i++;
	luaL_argcheck(L, i < sizeof words / sizeof *words, 1, "no such word");
	sm_lua_options_check(L, 2, known);
	const char *path = sm_lua_option_string(L, 2, "store", NULL);
	const char *name = sm_lua_option_string(L, 2, "name", NULL);
	const char *new_name = sm_lua_option_string(L, 2, "new_name", NULL);
	const char *platform = sm_lua_option_string(L, 2, "platform", NULL);
	lua_Integer min_age_s = sm_lua_option_integer(L, 2, "min_age_s", 0);
	const struct job wishes = {
		.run = words[i].run,
		.min_age_s = (uint64_t)min_age_s,
		.dry_run = sm_lua_option_boolean(L, 2, "dry_run", false),
		.snapshots = sm_lua_option_boolean(L, 2, "snapshots", false),
		.remove = sm_lua_option_boolean(L, 2, "remove", false),
		.json = sm_lua_option_boolean(L, 2, "json", false),
	};
	luaL_argcheck(L, min_age_s >= 0, 2, "option 'min_age_s' must not be negative");
	luaL_argcheck(L, name || !words[i].name, 2, "option 'name' is missing");
	luaL_argcheck(L, new_name || !words[i].new_name, 2, "option 'new_name' is missing");

	struct job *job = calloc(1, sizeof *job);
	if (!job)
		return sm_lua_fail(L, ENOMEM, NULL);
	*job = wishes;
	if (!copy(path, &job->path) || !copy(name, &job->name) || !copy(new_name, &job->new_name) ||
	    !copy(platform, &job->platform)) {
		job_free(job);
		return sm_lua_fail(L, ENOMEM, NULL);
	}
	return sm_lua_op(L, job_run, job, job_free, job_push, 0);
}

void sm_lua_store_open(lua_State *L);

void sm_lua_store_open(lua_State *L)
{
	lua_pushcfunction(L, store_begin);
	lua_setfield(L, -2, "store_begin");
}
