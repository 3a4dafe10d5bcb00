#include "rootfs/image.h"

#include "base/fd.h"
#include "base/thread.h"
#include "oci/store_lock.h"

#include <errno.h>
#include <stdlib.h>

struct job {
	struct sm_oci_image *image;
	struct sm_oci_feeds *feeds; /* NULL: all blobs are in the store */
	const struct sm_oci_layer *layers;
	union input *inputs; /* one a layer */
};

union input {
	int fd;
	struct sm_oci_feed_reader reader;
};

static const char *layer_diff_id(void *arg, size_t layer)
{
	const struct job *job = arg;
	return job->layers[layer].diff_id;
}

static int layer_open(void *arg, size_t layer, struct sm_rootfs_tar *ret, struct sm_error *err)
{
	const struct job *job = arg;
	union input *input = &job->inputs[layer];
	if (job->feeds) {
		sm_oci_feed_reader_init(&input->reader, sm_oci_feeds_find(job->feeds, job->layers[layer].digest));
		*ret = (struct sm_rootfs_tar){ .read = sm_oci_feed_read, .arg = &input->reader };
		return 0;
	}
	input->fd = sm_oci_image_open_blob(job->image, job->layers[layer].digest, err);
	*ret = (struct sm_rootfs_tar){ .read = sm_rootfs_tar_read, .arg = &input->fd };
	return input->fd < 0 ? input->fd : 0;
}

/* What cannot be read may not be the layer, as long as it is not verified. */
static bool layer_close(void *arg, size_t layer, int code)
{
	const struct job *job = arg;
	union input *input = &job->inputs[layer];
	if (job->feeds)
		return code < 0 && sm_oci_feed_settle(&input->reader) == -ESTALE;
	sm_fd_close(&input->fd);
	return false;
}

static int layer_context(void *arg, size_t layer, struct sm_error *err)
{
	const struct job *job = arg;
	return sm_error_context(err, "%s: layer %zu (%s)", sm_oci_image_get_reference(job->image), layer + 1,
	                        job->layers[layer].digest);
}

static int bake_all(struct job *job, struct sm_rootfs_stack *stack, struct sm_rootfs_image *made, struct sm_error *err)
{
	char folder[PATH_MAX];
	stack->diff_id = layer_diff_id;
	stack->open = layer_open;
	stack->close = layer_close;
	stack->context = layer_context;
	stack->arg = job;
	stack->store = sm_oci_image_get_store_path(job->image);
	job->layers = sm_oci_image_get_layers(job->image, &stack->count);
	made->count = stack->count;
	made->layers = calloc(made->count + 1, sizeof *made->layers);
	job->inputs = calloc(made->count + 1, sizeof *job->inputs);
	int code = made->layers && job->inputs ? 0 : sm_error_sys(err, ENOMEM, "layers");
	if (code == 0)
		code = sm_path_format(folder, err, "%s/erofs", stack->store);
	if (code >= 0)
		code = sm_path_make_dirs(folder, 0755, err);
	if (code >= 0)
		code = sm_rootfs_stack_bake(stack, made->layers, err);
	for (size_t i = 0; code == 0 && i < made->count; i++)
		if (made->layers[i].stats.root_opaque)
			made->first = i;
	free(job->inputs);
	return code;
}

int sm_rootfs_image_bake(struct sm_oci_image *image, const struct sm_rootfs_image_options *options,
                         struct sm_rootfs_image *ret, struct sm_error *err)
{
	struct job job = { .image = image };
	struct sm_rootfs_stack stack = { .threads = options->threads, .options = { .cancel = options->cancel } };
	struct sm_oci_store store;
	struct sm_oci_store_lock lock;
	*ret = (struct sm_rootfs_image){ 0 };
	int code = sm_oci_store_init(&store, sm_oci_image_get_store_path(image), err);
	if (code < 0 || (code = sm_oci_store_lock(&store, SM_OCI_LOCK_SHARED, options->cancel, &lock, err)) < 0)
		return code;
	code = bake_all(&job, &stack, ret, err);
	sm_oci_store_unlock(&lock);
	return code;
}

void sm_rootfs_image_done(struct sm_rootfs_image *image)
{
	free(image->layers);
	image->layers = NULL;
}

/* The bake that goes on beside a pull, on a thread of its own and the stack's. */
struct beside {
	struct job job;
	struct sm_rootfs_stack stack;
	pthread_t thread;
	bool running, ended;
	int code;
	struct sm_error err;
};

static void *run_beside(void *arg)
{
	struct beside *beside = arg;
	struct sm_rootfs_image made = { 0 };
	beside->code = bake_all(&beside->job, &beside->stack, &made, &beside->err);
	sm_rootfs_image_done(&made);
	return NULL;
}

static void beside_begin(void *arg, struct sm_oci_image *image, struct sm_oci_feeds *feeds)
{
	struct beside *beside = arg;
	beside->job.image = image;
	beside->job.feeds = feeds;
	/* Without a thread it is done after the pull. */
	beside->running = sm_thread_start(&beside->thread, "sm-rootfs", run_beside, beside) == 0;
}

static void beside_end(void *arg)
{
	struct beside *beside = arg;
	if (beside->running)
		pthread_join(beside->thread, NULL);
	beside->ended = beside->running;
	beside->running = false;
}

int sm_rootfs_pull(const struct sm_oci_pull_options *given, struct sm_oci_image **ret_image,
                   struct sm_oci_pull_stats *ret_stats, struct sm_error *err)
{
	struct sm_oci_pull_options options = *given;
	struct beside beside = {
		.stack = {
			.threads_min = options.parallel ? options.parallel : SM_OCI_PARALLEL,
			.options = { .cancel = options.cancel },
		},
	};
	const struct sm_oci_pull_reader reader = { .begin = beside_begin, .end = beside_end, .arg = &beside };
	options.reader = &reader;
	int code = sm_oci_pull(&options, ret_image, ret_stats, err);
	if (code < 0)
		return code;
	if (beside.ended) {
		code = beside.code;
		if (code < 0)
			*err = beside.err;
	} else {
		const struct sm_rootfs_image_options bake = { .cancel = options.cancel };
		struct sm_rootfs_image made;
		code = sm_rootfs_image_bake(*ret_image, &bake, &made, err);
		sm_rootfs_image_done(&made);
	}
	if (code < 0) {
		sm_oci_image_unref(*ret_image);
		*ret_image = NULL;
	}
	return code;
}
