/* core.image_rootfs_begin(image, { threads= }): every layer of an image as an EROFS file in the image's store. */
#include "base/fd.h"
#include "base/path.h"
#include "lua/image.h"
#include "lua/support.h"
#include "oci/store_lock.h"
#include "rootfs/stack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct job {
	struct sm_oci_image *image;
	const struct sm_oci_layer *layers;
	size_t count, first; /* layers below `first` are hidden by an opaque root */
	unsigned threads;
	struct sm_rootfs_stack_result *results;
};

static void job_free(void *arg)
{
	struct job *job = arg;
	free(job->results);
	sm_oci_image_unref(job->image);
	free(job);
}

static const char *layer_diff_id(void *arg, size_t layer)
{
	const struct job *job = arg;
	return job->layers[layer].diff_id;
}

static int layer_open(void *arg, size_t layer, struct sm_error *err)
{
	const struct job *job = arg;
	return sm_oci_image_open_blob(job->image, job->layers[layer].digest, err);
}

static int layer_context(void *arg, size_t layer, struct sm_error *err)
{
	const struct job *job = arg;
	return sm_error_context(err, "%s: layer %zu (%s)", sm_oci_image_get_reference(job->image), layer + 1,
	                        job->layers[layer].digest);
}

static int bake_all(struct sm_op *op, struct job *job, struct sm_error *err)
{
	char folder[PATH_MAX];
	struct sm_rootfs_stack stack = {
		.store = sm_oci_image_get_store_path(job->image),
		.diff_id = layer_diff_id,
		.open = layer_open,
		.context = layer_context,
		.arg = job,
		.threads = job->threads,
		.options = { .cancel = sm_op_cancel_flag(op) },
	};
	job->layers = sm_oci_image_get_layers(job->image, &job->count);
	stack.count = job->count;
	job->results = calloc(job->count ? job->count : 1, sizeof *job->results);
	if (!job->results)
		return sm_error_set(err, ENOMEM, "out of memory");
	int code = sm_path_format(folder, err, "%s/erofs", stack.store);
	if (code >= 0)
		code = sm_path_make_dirs(folder, 0755, err);
	if (code >= 0)
		code = sm_rootfs_stack_bake(&stack, job->results, err);
	for (size_t i = 0; code == 0 && i < job->count; i++)
		if (job->results[i].stats.root_opaque)
			job->first = i;
	return code;
}

static int job_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct job *job = arg;
	struct sm_oci_store store;
	struct sm_oci_store_lock lock;
	int code = sm_oci_store_init(&store, sm_oci_image_get_store_path(job->image), err);
	if (code < 0 || (code = sm_oci_store_lock(&store, SM_OCI_LOCK_SHARED, sm_op_cancel_flag(op), &lock, err)) < 0)
		return code;
	code = bake_all(op, job, err);
	sm_oci_store_unlock(&lock);
	return code;
}

/* A list, lowest layer first, of {path=, image_bytes=, reused=}. */
static int job_push(lua_State *L, void *arg)
{
	const struct job *job = arg;
	lua_createtable(L, (int)job->count, 0);
	for (size_t i = job->first; i < job->count; i++) {
		const struct sm_rootfs_stack_result *result = &job->results[i];
		lua_createtable(L, 0, 3);
		lua_pushstring(L, result->path);
		lua_setfield(L, -2, "path");
		lua_pushinteger(L, (lua_Integer)result->stats.image_bytes);
		lua_setfield(L, -2, "image_bytes");
		lua_pushboolean(L, result->stats.reused);
		lua_setfield(L, -2, "reused");
		lua_seti(L, -2, (lua_Integer)(i - job->first) + 1);
	}
	return 1;
}

static int image_rootfs_begin(lua_State *L)
{
	static const char *const known[] = { "threads", NULL };
	struct sm_oci_image *image = sm_lua_image_check(L, 1);
	sm_lua_options_check(L, 2, known);
	lua_Integer threads = sm_lua_option_integer(L, 2, "threads", 0);
	luaL_argcheck(L, threads >= 0 && threads <= 1024, 2, "threads out of range");
	struct job *job = calloc(1, sizeof *job);
	if (!job)
		return sm_lua_fail(L, ENOMEM, NULL);
	job->image = sm_oci_image_ref(image);
	job->threads = (unsigned)threads;
	return sm_lua_op(L, job_run, job, job_free, job_push, 1);
}

void sm_lua_image_rootfs_open(lua_State *L);

void sm_lua_image_rootfs_open(lua_State *L)
{
	lua_pushcfunction(L, image_rootfs_begin);
	lua_setfield(L, -2, "image_rootfs_begin");
}
