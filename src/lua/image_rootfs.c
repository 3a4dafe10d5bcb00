/* core.image_rootfs_begin(image, { threads= }): every layer of an image as an EROFS file in the image's store. */
#include "lua/image.h"
#include "lua/support.h"
#include "rootfs/image.h"

#include <errno.h>
#include <stdlib.h>

struct job {
	struct sm_oci_image *image;
	struct sm_rootfs_image_options options;
	struct sm_rootfs_image made;
};

static void job_free(void *arg)
{
	struct job *job = arg;
	sm_rootfs_image_done(&job->made);
	sm_oci_image_unref(job->image);
	free(job);
}

static int job_run(struct sm_op *op, void *arg, struct sm_error *err)
{
	struct job *job = arg;
	job->options.cancel = sm_op_cancel_flag(op);
	return sm_rootfs_image_bake(job->image, &job->options, &job->made, err);
}

/* A list, lowest layer first, of {path=, image_bytes=, reused=}. */
static int job_push(lua_State *L, void *arg)
{
	const struct sm_rootfs_image *made = &((const struct job *)arg)->made;
	lua_createtable(L, (int)made->count, 0);
	for (size_t i = made->first; i < made->count; i++) {
		const struct sm_rootfs_stack_result *result = &made->layers[i];
		lua_createtable(L, 0, 3);
		lua_pushstring(L, result->path);
		lua_setfield(L, -2, "path");
		lua_pushinteger(L, (lua_Integer)result->stats.image_bytes);
		lua_setfield(L, -2, "image_bytes");
		lua_pushboolean(L, result->stats.reused);
		lua_setfield(L, -2, "reused");
		lua_seti(L, -2, (lua_Integer)(i - made->first) + 1);
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
	job->options.threads = (unsigned)threads;
	return sm_lua_op(L, job_run, job, job_free, job_push, 1);
}

void sm_lua_image_rootfs_open(lua_State *L);

void sm_lua_image_rootfs_open(lua_State *L)
{
	lua_pushcfunction(L, image_rootfs_begin);
	lua_setfield(L, -2, "image_rootfs_begin");
}
