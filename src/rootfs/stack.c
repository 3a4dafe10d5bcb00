#include "rootfs/stack.h"

#include "base/fd.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 64

/* "sha256:HEX", as chain ids and diff ids are written. */
#define ID_SIZE (sizeof "sha256:" + SM_SHA256_HEX)

struct run {
	const struct sm_rootfs_stack *stack;
	struct sm_rootfs_stack_result *results;
	char (*chain_ids)[ID_SIZE];
	atomic_bool stop;
	pthread_mutex_t lock; /* what follows is under it */
	pthread_cond_t changed;
	size_t next; /* the next layer that nobody has taken: lower ones first, so who waits for them waits for others'
	                work */
	bool *done;
	size_t failed; /* the lowest layer that failed by itself; count: none */
	struct sm_error err;
};

/* A layer's view of those below. */
struct view {
	struct run *run;
	size_t layer;
	int *fds;
};

static bool are_done(const struct run *run, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!run->done[i])
			return false;
	return true;
}

static int wait_below(struct run *run, size_t layer, struct sm_error *err)
{
	pthread_mutex_lock(&run->lock);
	while (!atomic_load(&run->stop) && !are_done(run, layer))
		pthread_cond_wait(&run->changed, &run->lock);
	bool done = are_done(run, layer);
	pthread_mutex_unlock(&run->lock);
	return done ? 0 : sm_error_set(err, ECANCELED, "a layer below was not made");
}

static int view_open(void *arg, const int **ret_fds, size_t *ret_count, struct sm_error *err)
{
	struct view *view = arg;
	int code = wait_below(view->run, view->layer, err);
	if (code < 0)
		return code;
	view->fds = malloc(view->layer * sizeof *view->fds);
	if (!view->fds)
		return sm_error_sys(err, ENOMEM, "lower layers");
	for (size_t i = 0; i < view->layer; i++)
		view->fds[i] = -1;
	for (size_t i = 0; i < view->layer; i++) {
		const char *path = view->run->results[i].path;
		view->fds[i] = open(path, O_RDONLY | O_CLOEXEC);
		if (view->fds[i] < 0)
			return sm_error_sys(err, errno, "open '%s'", path);
	}
	*ret_fds = view->fds;
	*ret_count = view->layer;
	return 0;
}

static void view_close(struct view *view)
{
	for (size_t i = 0; view->fds && i < view->layer; i++)
		sm_fd_close(&view->fds[i]);
	free(view->fds);
}

static int bake(struct run *run, size_t layer, struct sm_error *err)
{
	const struct sm_rootfs_stack *stack = run->stack;
	struct sm_rootfs_stack_result *result = &run->results[layer];
	struct sm_rootfs_options options = stack->options;
	const char *diff_id = stack->diff_id(stack->arg, layer);
	char chained[PATH_MAX];
	int code = sm_rootfs_layer_path(stack->store, diff_id, result->path, err);
	if (code >= 0)
		code = sm_rootfs_layer_path(stack->store, run->chain_ids[layer], chained, err);
	if (code < 0)
		return code;
	options.stop = &run->stop;
	for (bool again = true; again;) {
		struct sm_rootfs_tar tar;
		struct view view = { .run = run, .layer = layer };
		const struct sm_rootfs_below below = {
			.chain_id = run->chain_ids[layer], .out_path = chained, .open = view_open, .arg = &view
		};
		if ((code = stack->open(stack->arg, layer, &tar, err)) < 0)
			break;
		code = sm_rootfs_layer_bake(&tar, diff_id, result->path, layer ? &below : NULL, &options,
		                            &result->stats, err);
		view_close(&view);
		again = stack->close(stack->arg, layer, code);
	}
	if (code == 0 && result->stats.chained)
		memcpy(result->path, chained, strlen(chained) + 1);
	return code;
}

static void *work(void *arg)
{
	struct run *run = arg;
	pthread_mutex_lock(&run->lock);
	while (run->next < run->stack->count && !atomic_load(&run->stop)) {
		size_t layer = run->next++;
		pthread_mutex_unlock(&run->lock);
		struct sm_error err = { 0 };
		int code = bake(run, layer, &err);
		if (code < 0 && run->stack->context)
			run->stack->context(run->stack->arg, layer, &err);
		pthread_mutex_lock(&run->lock);
		/* What was stopped because another one failed has nothing to say, unless it is the first to speak. */
		if (code < 0 && (!atomic_load(&run->stop) || (err.code != ECANCELED && layer < run->failed))) {
			run->failed = layer;
			run->err = err;
		}
		if (code < 0)
			atomic_store(&run->stop, true);
		else
			run->done[layer] = true;
		pthread_cond_broadcast(&run->changed);
	}
	pthread_mutex_unlock(&run->lock);
	return NULL;
}

/* OCI image-spec, config.md, "Layer ChainID". */
static int set_chain_ids(struct run *run, struct sm_error *err)
{
	for (size_t i = 0; i < run->stack->count; i++) {
		const char *diff_id = run->stack->diff_id(run->stack->arg, i);
		char text[2 * ID_SIZE], *id = run->chain_ids[i];
		if (strlen(diff_id) >= ID_SIZE)
			return sm_error_set(err, EINVAL, "'%.100s' is no sha256 digest", diff_id);
		if (!i) {
			memcpy(id, diff_id, strlen(diff_id) + 1);
			continue;
		}
		int len = snprintf(text, sizeof text, "%s %s", run->chain_ids[i - 1], diff_id);
		memcpy(id, "sha256:", 7);
		int code = sm_sha256_hex(text, (size_t)len, id + 7);
		if (code < 0)
			return sm_error_sys(err, code, "chain id");
	}
	return 0;
}

static size_t count_threads(const struct sm_rootfs_stack *stack)
{
	cpu_set_t set;
	size_t count = stack->threads;
	if (!count)
		count = sched_getaffinity(0, sizeof set, &set) == 0 ? (size_t)CPU_COUNT(&set) : 1;
	if (!stack->threads && count < stack->threads_min)
		count = stack->threads_min;
	if (count > THREADS_MAX)
		count = THREADS_MAX;
	return count < stack->count ? count : stack->count;
}

int sm_rootfs_stack_bake(const struct sm_rootfs_stack *stack, struct sm_rootfs_stack_result *results,
                         struct sm_error *err)
{
	if (!stack->count)
		return 0;
	struct run run = { .stack = stack, .results = results, .failed = stack->count };
	pthread_t threads[THREADS_MAX];
	size_t wanted = count_threads(stack), started = 0;
	run.chain_ids = calloc(stack->count, sizeof *run.chain_ids);
	run.done = calloc(stack->count, sizeof *run.done);
	int code = run.chain_ids && run.done ? set_chain_ids(&run, err) : sm_error_sys(err, ENOMEM, "layers");
	if (code == 0) {
		pthread_mutex_init(&run.lock, NULL);
		pthread_cond_init(&run.changed, NULL);
		/* This thread is one of them; with fewer than wanted it only takes longer. */
		while (started + 1 < wanted && sm_thread_start(&threads[started], "sm-layer", work, &run) == 0)
			started++;
		work(&run);
		while (started)
			pthread_join(threads[--started], NULL);
		pthread_cond_destroy(&run.changed);
		pthread_mutex_destroy(&run.lock);
		if (run.failed < stack->count) {
			*err = run.err;
			code = -err->code;
		}
	}
	free(run.done);
	free(run.chain_ids);
	return code;
}
