#include "pool/pool.h"

#include "base/fd.h"
#include "base/thread.h"
#include "pool/identity.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct sm_pool {
	struct sm_snapshot *snapshot;
	struct sm_pool_options options;
	int hv_fd;
	pthread_t filler;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool closing;
	unsigned references; /* the owner and each machine handed out */
	unsigned making;     /* restores under way */
	unsigned waiting;    /* acquires that wait */
	struct sm_pool_stats stats;
	struct sm_error last_failure; /* of the filler, so that a waiting acquire can say why */
	uint64_t failures;
	struct sm_control *ready[];
};

static uint64_t now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static unsigned total(const struct sm_pool *pool)
{
	return pool->stats.ready + pool->stats.in_use + pool->making;
}

/* Restore, resume, identity.  Called with the lock held; it is released meanwhile. */
static int make(struct sm_pool *pool, struct sm_control **ret_control, struct sm_error *err)
{
	struct sm_control *control = NULL;
	pool->making++;
	pthread_mutex_unlock(&pool->lock);

	uint64_t start = now_us();
	int code = sm_snapshot_restore(pool->snapshot, pool->options.transport, pool->hv_fd, &control, NULL, err);
	if (code >= 0)
		code = sm_control_resume(control, err);
	if (code >= 0)
		code = sm_identity_renew(control, pool->options.agent, pool->options.identity_ms, err);
	if (code < 0) {
		sm_control_close(control);
		control = NULL;
	}
	uint64_t took = now_us() - start;

	pthread_mutex_lock(&pool->lock);
	pool->making--;
	if (code < 0) {
		pool->stats.failed++;
	} else {
		pool->stats.restored++;
		pool->stats.restore_us = took;
	}
	*ret_control = control;
	return code;
}

static void *fill(void *arg)
{
	struct sm_pool *pool = arg;

	pthread_mutex_lock(&pool->lock);
	while (!pool->closing) {
		bool wanted = pool->stats.ready + pool->making < pool->options.min && total(pool) < pool->options.max;
		/* After a failure nothing is tried again until somebody asks: the error would be the same. */
		if (!wanted || (pool->failures > 0 && pool->waiting == 0)) {
			pthread_cond_wait(&pool->changed, &pool->lock);
			continue;
		}
		struct sm_control *control;
		struct sm_error err = { 0 };
		if (make(pool, &control, &err) < 0) {
			pool->last_failure = err;
			pool->failures++;
		} else {
			pool->failures = 0;
			pool->ready[pool->stats.ready++] = control;
		}
		pthread_cond_broadcast(&pool->changed);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

int sm_pool_new(struct sm_snapshot *snapshot, int hv_fd, const struct sm_pool_options *options,
                struct sm_pool **ret_pool, struct sm_error *err)
{
	if (options->max < 1 || options->max > SM_POOL_MAX || options->min > options->max)
		return sm_error_set(err, EINVAL, "pool: min %u, max %u: 0 <= min <= max, 1 <= max <= %d", options->min,
		                    options->max, SM_POOL_MAX);
	struct sm_pool *pool = calloc(1, sizeof *pool + options->max * sizeof *pool->ready);
	if (!pool)
		return sm_error_set(err, ENOMEM, "pool: out of memory");
	pool->options = *options;
	pool->references = 1;
	pool->hv_fd = sm_fd_dup(hv_fd);
	pool->snapshot = sm_snapshot_ref(snapshot);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&pool->changed, &attr);
	pthread_condattr_destroy(&attr);

	int code = pool->hv_fd < 0 ? sm_error_sys(err, pool->hv_fd, "pool") : 0;
	if (code == 0) {
		code = sm_thread_start(&pool->filler, "pool", fill, pool);
		if (code < 0)
			sm_error_sys(err, code, "pool: start a thread");
	}
	if (code < 0) {
		sm_snapshot_unref(pool->snapshot);
		sm_fd_close(&pool->hv_fd);
		pthread_cond_destroy(&pool->changed);
		pthread_mutex_destroy(&pool->lock);
		free(pool);
		return code;
	}
	*ret_pool = pool;
	return 0;
}

/* With the lock held; it is gone afterwards. */
static void unref(struct sm_pool *pool)
{
	unsigned left = --pool->references;
	pthread_mutex_unlock(&pool->lock);
	if (left > 0)
		return;
	sm_snapshot_unref(pool->snapshot);
	sm_fd_close(&pool->hv_fd);
	pthread_cond_destroy(&pool->changed);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

struct sm_pool *sm_pool_ref(struct sm_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->references++;
	pthread_mutex_unlock(&pool->lock);
	return pool;
}

void sm_pool_unref(struct sm_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	unref(pool);
}

void sm_pool_close(struct sm_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->closing = true;
	pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
	pthread_join(pool->filler, NULL);

	pthread_mutex_lock(&pool->lock);
	while (pool->waiting > 0 || pool->making > 0)
		pthread_cond_wait(&pool->changed, &pool->lock);
	while (pool->stats.ready > 0) {
		struct sm_control *control = pool->ready[--pool->stats.ready];
		pthread_mutex_unlock(&pool->lock);
		sm_control_close(control);
		pthread_mutex_lock(&pool->lock);
	}
	unref(pool);
}

/* Wait for a change, at most until the deadline and never long without a look at *cancel. */
static void wait_change(struct sm_pool *pool, uint64_t deadline_us)
{
	uint64_t until = now_us() + 50000;
	if (until > deadline_us)
		until = deadline_us;
	struct timespec when = { .tv_sec = (time_t)(until / 1000000u), .tv_nsec = (long)(until % 1000000u) * 1000 };
	pthread_cond_timedwait(&pool->changed, &pool->lock, &when);
}

static int take(struct sm_pool *pool, int timeout_ms, const atomic_bool *cancel, struct sm_control **ret_control,
                struct sm_error *err)
{
	uint64_t deadline_us = timeout_ms < 0 ? UINT64_MAX : now_us() + (uint64_t)timeout_ms * 1000u;
	for (;;) {
		if (pool->closing || (cancel && atomic_load(cancel)))
			return sm_error_set(err, ECANCELED, "acquire: %s",
			                    pool->closing ? "the pool was closed" : "cancelled");
		if (pool->stats.ready > 0) {
			/* The newest is the warmest in the caches. */
			*ret_control = pool->ready[--pool->stats.ready];
			return 0;
		}
		if (pool->making < pool->waiting && total(pool) < pool->options.max)
			return make(pool, ret_control, err);
		if (now_us() >= deadline_us)
			return sm_error_set(err, ETIMEDOUT,
			                    "acquire: no machine within %d ms (%u of at most %u in use)", timeout_ms,
			                    pool->stats.in_use, pool->options.max);
		uint64_t failures = pool->failures;
		wait_change(pool, deadline_us);
		if (pool->failures > failures) {
			*err = pool->last_failure;
			return -err->code;
		}
	}
}

int sm_pool_acquire(struct sm_pool *pool, int timeout_ms, const atomic_bool *cancel, struct sm_control **ret_control,
                    struct sm_error *err)
{
	pthread_mutex_lock(&pool->lock);
	pool->waiting++;
	int code = take(pool, timeout_ms, cancel, ret_control, err);
	pool->waiting--;
	if (code == 0) {
		pool->stats.in_use++;
		pool->stats.handed_out++;
		pool->references++;
	}
	pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
	return code;
}

void sm_pool_release(struct sm_pool *pool, struct sm_control *control)
{
	sm_control_close(control);
	pthread_mutex_lock(&pool->lock);
	pool->stats.in_use--;
	pthread_cond_broadcast(&pool->changed);
	unref(pool);
}

void sm_pool_stats(struct sm_pool *pool, struct sm_pool_stats *ret)
{
	pthread_mutex_lock(&pool->lock);
	*ret = pool->stats;
	pthread_mutex_unlock(&pool->lock);
}
