#include "pool/pool.h"

#include "base/fd.h"
#include "base/thread.h"
#include "base/time.h"
#include "pool/internal.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* ---- life --------------------------------------------------------------------------------------------------- */

/* The last of those who know it has gone. */
static void pool_free(struct sm_pool *pool)
{
	sm_snapshot_unref(pool->snapshot);
	sm_fd_close(&pool->hv_fd);
	pthread_cond_destroy(&pool->changed);
	pthread_mutex_destroy(&pool->lock);
	free(pool->ready);
	free(pool->returned);
	free(pool->options.identity.hook.name);
	free(pool->options.identity.hook.body);
	sm_mounts_wish_done(&pool->mounts);
	free(pool);
}

static void join_threads(struct sm_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->closing = true;
	pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
	while (pool->nthreads > 0)
		pthread_join(pool->threads[--pool->nthreads], NULL);
}

/* As many as could work at once. */
static int start_threads(struct sm_pool *pool, struct sm_error *err)
{
	cpu_set_t set;
	unsigned count = sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
	if (count > SM_POOL_THREADS_MAX)
		count = SM_POOL_THREADS_MAX;
	if (count > pool->options.max)
		count = pool->options.max;
	while (pool->nthreads < count) {
		int code = sm_thread_start(&pool->threads[pool->nthreads], "pool", sm_pool_keep, pool);
		if (code < 0 && pool->nthreads == 0)
			return sm_error_sys(err, code, "pool: start a thread");
		if (code < 0)
			break; /* fewer will do */
		pool->nthreads++;
	}
	return 0;
}

static bool copy_hook(struct sm_pool *pool, const struct sm_agent_hook *hook)
{
	struct sm_agent_hook *copy = &pool->options.identity.hook;
	if (!hook->name)
		return true;
	copy->name = strdup(hook->name);
	copy->body = malloc(hook->len);
	copy->len = hook->len;
	if (copy->body)
		memcpy(copy->body, hook->body, hook->len);
	return copy->name && copy->body;
}

static int copy_mounts(struct sm_pool *pool, const struct sm_mounts_wish *mounts, struct sm_error *err)
{
	pool->options.mounts = &pool->mounts;
	if (mounts)
		return sm_mounts_wish_copy(mounts, &pool->mounts, err);
	return sm_source_mounts_copy(&sm_snapshot_sources(pool->snapshot)->mounts, &pool->mounts.bound, err);
}

const struct sm_mounts_wish *sm_pool_mounts(const struct sm_pool *pool)
{
	return &pool->mounts;
}

int sm_pool_new(struct sm_snapshot *snapshot, int hv_fd, const struct sm_pool_options *options,
                struct sm_pool **ret_pool, struct sm_error *err)
{
	if (options->max < 1 || options->max > SM_POOL_MAX || options->min > options->max)
		return sm_error_set(err, EINVAL, "pool: min %u, max %u: 0 <= min <= max, 1 <= max <= %d", options->min,
		                    options->max, SM_POOL_MAX);
	struct sm_pool *pool = calloc(1, sizeof *pool);
	if (!pool)
		return sm_error_set(err, ENOMEM, "pool: out of memory");
	pool->options = *options;
	pool->options.identity = (struct sm_identity_options){
		.agent = options->identity.agent,
		.timeout_ms = options->identity.timeout_ms,
	};
	pool->references = 1;
	pool->ready = calloc(options->max, sizeof *pool->ready);
	pool->returned = calloc(options->max, sizeof *pool->returned);
	pool->hv_fd = sm_fd_dup(hv_fd);
	pool->snapshot = sm_snapshot_ref(snapshot);
	TAILQ_INIT(&pool->waiting);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&pool->changed, &attr);
	pthread_condattr_destroy(&attr);

	int code = copy_mounts(pool, options->mounts, err);
	if (code < 0)
		sm_error_context(err, "pool");
	else if (!pool->ready || !pool->returned || !copy_hook(pool, &options->identity.hook))
		code = sm_error_set(err, ENOMEM, "pool: out of memory");
	else if (pool->hv_fd < 0)
		code = sm_error_sys(err, pool->hv_fd, "pool");
	else
		code = start_threads(pool, err);
	if (code < 0) {
		pool_free(pool);
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
	if (left == 0)
		pool_free(pool);
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

static void end_all_waits(struct sm_pool *pool, int code, const char *why)
{
	struct sm_pool_waiter *waiter;
	while ((waiter = TAILQ_FIRST(&pool->waiting)) || (waiter = pool->drainer)) {
		sm_error_set(&waiter->err, code, "acquire: %s", why);
		sm_pool_end_wait(pool, waiter);
	}
}

void sm_pool_close(struct sm_pool *pool)
{
	join_threads(pool);
	pthread_mutex_lock(&pool->lock);
	end_all_waits(pool, ECANCELED, "the pool was closed");
	unsigned nready = pool->nready, nreturned = pool->nreturned;
	pool->nready = pool->nreturned = 0;
	pthread_mutex_unlock(&pool->lock);
	/* Nobody puts anything into a closing pool. */
	for (unsigned i = 0; i < nready; i++)
		sm_control_close(pool->ready[i].control);
	for (unsigned i = 0; i < nreturned; i++)
		sm_control_close(pool->returned[i]);
	sm_pool_unref(pool);
}

/* ---- out and back ------------------------------------------------------------------------------------------- */

/* One that is ready and alive.  The lock is released while a dead one is closed. */
static struct sm_control *take_ready(struct sm_pool *pool)
{
	char detail[256];
	while (pool->nready > 0) {
		struct sm_control *control = pool->ready[--pool->nready].control;
		if (sm_control_ended(control, detail) == SM_CONTROL_RUNNING)
			return control;
		pool->stats.failed++;
		pthread_mutex_unlock(&pool->lock);
		sm_control_close(control);
		pthread_mutex_lock(&pool->lock);
	}
	return NULL;
}

int sm_pool_try_acquire(struct sm_pool *pool, struct sm_control **ret_control)
{
	pthread_mutex_lock(&pool->lock);
	bool open = !pool->closing && !pool->draining && TAILQ_EMPTY(&pool->waiting);
	struct sm_control *control = open ? take_ready(pool) : NULL;
	if (control)
		sm_pool_count_out(pool);
	/* Its place is to be filled. */
	if (pool->nready < pool->options.min)
		pthread_cond_signal(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
	*ret_control = control;
	return control ? 0 : -EAGAIN;
}

/* Sleep until the wait is over, with the lock released meanwhile.  False: time is up, or it was cancelled. */
static bool sleep_on(struct sm_pool *pool, const struct sm_pool_waiter *waiter, int timeout_ms, int cancel_fd)
{
	uint64_t deadline_us = timeout_ms < 0 ? UINT64_MAX : sm_time_us() + (uint64_t)timeout_ms * 1000u;
	struct pollfd fds[2] = {
		{ .fd = waiter->event_fd, .events = POLLIN },
		{ .fd = cancel_fd, .events = POLLIN },
	};
	while (!waiter->over) {
		uint64_t now = sm_time_us();
		if (now >= deadline_us || (fds[1].revents & POLLIN))
			return false;
		uint64_t left_ms = (deadline_us - now + 999) / 1000;
		pthread_mutex_unlock(&pool->lock);
		(void)poll(fds, 2, deadline_us == UINT64_MAX ? -1 : (int)left_ms);
		pthread_mutex_lock(&pool->lock);
	}
	return true;
}

static int fail(const struct sm_pool *pool, int timeout_ms, int cancel_fd, struct sm_error *err)
{
	if (cancel_fd >= 0 && sm_fd_wait(cancel_fd, POLLIN, 0) > 0)
		return sm_error_set(err, ECANCELED, "acquire: cancelled");
	return sm_error_set(err, ETIMEDOUT, "acquire: no machine within %d ms (%u of at most %u in use)", timeout_ms,
	                    pool->stats.in_use, pool->options.max);
}

/* At the end of the queue; what there is goes to its head. */
static int wait_for_one(struct sm_pool *pool, int timeout_ms, int cancel_fd, struct sm_control **ret_control,
                        struct sm_error *err)
{
	struct sm_pool_waiter waiter = { .event_fd = sm_fd_event() };
	if (waiter.event_fd < 0)
		return sm_error_sys(err, waiter.event_fd, "acquire");
	TAILQ_INSERT_TAIL(&pool->waiting, &waiter, link);
	pool->nwaiting++;
	struct sm_control *control = TAILQ_FIRST(&pool->waiting) == &waiter ? take_ready(pool) : NULL;
	if (control)
		sm_pool_deliver(pool, control);
	pthread_cond_signal(&pool->changed);
	int code = 0;
	if (!sleep_on(pool, &waiter, timeout_ms, cancel_fd)) {
		code = fail(pool, timeout_ms, cancel_fd, err);
		sm_pool_end_wait(pool, &waiter);
	} else if (!waiter.control) {
		*err = waiter.err;
		code = -err->code;
	}
	*ret_control = waiter.control;
	sm_fd_close(&waiter.event_fd);
	return code;
}

int sm_pool_acquire(struct sm_pool *pool, int timeout_ms, int cancel_fd, struct sm_control **ret_control,
                    struct sm_error *err)
{
	int code = sm_pool_try_acquire(pool, ret_control);
	if (code == 0)
		return 0;
	pthread_mutex_lock(&pool->lock);
	if (pool->closing)
		code = sm_error_set(err, ECANCELED, "acquire: the pool was closed");
	else if (pool->draining)
		code = sm_error_set(err, ESHUTDOWN, "acquire: the pool is drained");
	else
		code = wait_for_one(pool, timeout_ms, cancel_fd, ret_control, err);
	pthread_mutex_unlock(&pool->lock);
	return code;
}

void sm_pool_release(struct sm_pool *pool, struct sm_control *control)
{
	char detail[256];
	/* Whoever else refers to it could go on using it. */
	bool whole = !sm_control_shared(control) && sm_control_ended(control, detail) == SM_CONTROL_RUNNING;
	if (whole && pool->options.reset == SM_POOL_RESET_NEVER)
		whole = sm_control_resume(control, NULL) >= 0;
	pthread_mutex_lock(&pool->lock);
	pool->stats.in_use--;
	bool kept = whole && !pool->closing && !pool->draining && pool->options.reset != SM_POOL_RESET_CLOSE;
	if (kept && pool->options.reset == SM_POOL_RESET_NEVER)
		sm_pool_deliver(pool, control);
	else if (kept)
		pool->returned[pool->nreturned++] = control;
	pthread_cond_signal(&pool->changed);
	if (pool->drainer && pool->stats.in_use == 0)
		sm_pool_end_wait(pool, pool->drainer);
	if (!kept) {
		pthread_mutex_unlock(&pool->lock);
		sm_control_close(control);
		pthread_mutex_lock(&pool->lock);
	}
	unref(pool);
}

/* ---- drain and statistics ----------------------------------------------------------------------------------- */

int sm_pool_drain(struct sm_pool *pool, int timeout_ms, int cancel_fd, struct sm_error *err)
{
	struct sm_pool_waiter waiter = { .event_fd = sm_fd_event() };
	if (waiter.event_fd < 0)
		return sm_error_sys(err, waiter.event_fd, "drain");
	int code = 0;
	pthread_mutex_lock(&pool->lock);
	if (pool->closing || pool->drainer) {
		code = sm_error_set(err, EBUSY, "drain: the pool is being %s", pool->closing ? "closed" : "drained");
	} else {
		end_all_waits(pool, ESHUTDOWN, "the pool is drained");
		pool->draining = true;
		pthread_cond_broadcast(&pool->changed);
		pool->drainer = &waiter;
		if (pool->stats.in_use == 0)
			sm_pool_end_wait(pool, &waiter);
		if (!sleep_on(pool, &waiter, timeout_ms, cancel_fd)) {
			code = sm_error_set(err, ETIMEDOUT, "drain: %u machines are still in use", pool->stats.in_use);
			sm_pool_end_wait(pool, &waiter);
		} else if (waiter.err.code) {
			code = sm_error_set(err, waiter.err.code, "drain: the pool was closed");
		}
	}
	pthread_mutex_unlock(&pool->lock);
	sm_fd_close(&waiter.event_fd);
	return code;
}

static int by_value(const void *a, const void *b)
{
	uint32_t one = *(const uint32_t *)a, other = *(const uint32_t *)b;
	return one < other ? -1 : one > other;
}

static void quantiles(const struct sm_pool_samples *samples, uint32_t *ret_p50, uint32_t *ret_p99)
{
	size_t count = samples->count < SM_POOL_SAMPLES ? (size_t)samples->count : SM_POOL_SAMPLES;
	uint32_t sorted[SM_POOL_SAMPLES];
	if (!count)
		return;
	memcpy(sorted, samples->us, count * sizeof *sorted);
	qsort(sorted, count, sizeof *sorted, by_value);
	*ret_p50 = sorted[(count - 1) / 2];
	*ret_p99 = sorted[(count * 99 + 99) / 100 - 1];
}

void sm_pool_stats(struct sm_pool *pool, struct sm_pool_stats *ret)
{
	pthread_mutex_lock(&pool->lock);
	*ret = pool->stats;
	ret->ready = pool->nready;
	ret->waiting = pool->nwaiting;
	ret->recycling = pool->nreturned + pool->resetting;
	quantiles(&pool->reset, &ret->reset_p50_us, &ret->reset_p99_us);
	quantiles(&pool->recycle, &ret->recycle_p50_us, &ret->recycle_p99_us);
	pthread_mutex_unlock(&pool->lock);
}
