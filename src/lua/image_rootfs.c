/* core.image_rootfs_begin(image): every layer of an image as an EROFS file in the image's store. */
#include "base/fd.h"
#include "base/path.h"
#include "lua/image.h"
#include "lua/support.h"
#include "oci/store_lock.h"
#include "rootfs/layer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct result {
	char *path;
	struct sm_rootfs_layer_stats stats;
};

struct job {
	struct sm_oci_image *image;
	size_t count, first; /* layers below `first` are hidden by an opaque root */
	struct result *results;
};

static void job_free(void *arg)
{
	struct job *job = arg;
	for (size_t i = 0; job->results && i < job->count; i++)
		free(job->results[i].path);
	free(job->results);
	sm_oci_image_unref(job->image);
	free(job);
}

static int bake(struct job *job, const struct sm_oci_layer *layer, struct result *result, struct sm_op *op,
                struct sm_error *err)
{
	char path[PATH_MAX], folder[PATH_MAX];
	const char *store = sm_oci_image_get_store_path(job->image);
	int code = sm_path_format(folder, err, "%s/erofs", store);
	if (code >= 0)
		code = sm_path_make_dirs(folder, 0755, err);
	if (code >= 0)
		code = sm_rootfs_layer_path(store, layer->diff_id, path, err);
	if (code < 0)
		return code;
	int blob SM_FD_CLEANUP = sm_oci_image_open_blob(job->image, layer->digest, err);
	if (blob < 0)
		return blob;
	const struct sm_rootfs_options options = { .cancel = sm_op_cancel_flag(op) };
	code = sm_rootfs_layer_bake(blob, layer->diff_id, path, &options, &result->stats, err);
	if (code < 0)
		return code;
	result->path = strdup(path);
	return result->path ? 0 : sm_error_set(err, ENOMEM, "out of memory");
}

static int bake_all(struct sm_op *op, struct job *job, struct sm_error *err)
{
	const struct sm_oci_layer *layers = sm_oci_image_get_layers(job->image, &job->count);
	job->results = calloc(job->count ? job->count : 1, sizeof *job->results);
	if (!job->results)
		return sm_error_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < job->count; i++) {
		int code = bake(job, &layers[i], &job->results[i], op, err);
		if (code < 0)
			return sm_error_context(err, "%s: layer %zu (%s)", sm_oci_image_get_reference(job->image),
			                        i + 1, layers[i].digest);
		if (job->results[i].stats.root_opaque)
			job->first = i;
	}
	return 0;
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
		const struct result *result = &job->results[i];
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
	struct sm_oci_image *image = sm_lua_image_check(L, 1);
	struct job *job = calloc(1, sizeof *job);
	if (!job)
		return sm_lua_fail(L, ENOMEM, NULL);
	job->image = sm_oci_image_ref(image);
	return sm_lua_op(L, job_run, job, job_free, job_push, 1);
}

void sm_lua_image_rootfs_open(lua_State *L);

void sm_lua_image_rootfs_open(lua_State *L)
{
	lua_pushcfunction(L, image_rootfs_begin);
	lua_setfield(L, -2, "image_rootfs_begin");
}
