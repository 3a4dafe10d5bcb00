/* What a pool's threads do: machines made, put back, and closed when nobody wants them. */
#include "base/fd.h"
#include "base/time.h"
#include "pool/internal.h"
#include "pool/restore.h"

#include <string.h>
#include <time.h>

static void add_sample(struct sm_pool_samples *samples, uint64_t us)
{
	samples->us[samples->count++ % SM_POOL_SAMPLES] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

void sm_pool_end_wait(struct sm_pool *pool, struct sm_pool_waiter *waiter)
{
	if (waiter == pool->drainer) {
		pool->drainer = NULL;
	} else {
		TAILQ_REMOVE(&pool->waiting, waiter, link);
		pool->nwaiting--;
	}
	waiter->over = true;
	sm_fd_event_raise(waiter->event_fd);
}

void sm_pool_count_out(struct sm_pool *pool)
{
	pool->stats.in_use++;
	pool->stats.handed_out++;
	pool->references++;
}

void sm_pool_deliver(struct sm_pool *pool, struct sm_control *control)
{
	struct sm_pool_waiter *first = TAILQ_FIRST(&pool->waiting);
	if (!first) {
		pool->ready[pool->nready++] = (struct sm_pool_ready){ control, sm_time_us() };
		/* Somebody has to close it again, one day. */
		pthread_cond_signal(&pool->changed);
		return;
	}
	first->control = control;
	sm_pool_count_out(pool);
	sm_pool_end_wait(pool, first);
}

/* All that follow are called with the lock held; it is released meanwhile. */

/* Restore, resume, identity. */
static void make(struct sm_pool *pool)
{
	struct sm_control *control = NULL;
	struct sm_error err = { 0 };
	pool->making++;
	pthread_mutex_unlock(&pool->lock);

	uint64_t start = sm_time_us();
	const struct sm_restore_options options = {
		.transport = pool->options.transport,
		.hv_fd = pool->hv_fd,
		.mounts = &pool->mounts,
		.identity = pool->options.identity,
	};
	int code = sm_restore(pool->snapshot, &options, &control, &err);
	uint64_t took = sm_time_us() - start;

	pthread_mutex_lock(&pool->lock);
	pool->making--;
	pool->failing = code < 0;
	if (code >= 0) {
		pool->stats.restored++;
		pool->stats.restore_us = took;
		sm_pool_deliver(pool, control);
		return;
	}
	pool->stats.failed++;
	/* The others' own restores may fare better. */
	struct sm_pool_waiter *first = TAILQ_FIRST(&pool->waiting);
	if (first) {
		first->err = err;
		sm_pool_end_wait(pool, first);
	}
}

static void recycle(struct sm_pool *pool)
{
	struct sm_control *control = pool->returned[0];
	struct sm_control_reset reset;
	memmove(pool->returned, pool->returned + 1, --pool->nreturned * sizeof *pool->returned);
	pool->resetting++;
	pthread_mutex_unlock(&pool->lock);

	uint64_t start = sm_time_us();
	int code = sm_control_reset(control, &reset, NULL);
	if (code >= 0)
		code = sm_control_resume(control, NULL);
	if (code >= 0)
		code = sm_mounts_add(control, &pool->mounts.added, pool->options.identity.agent,
		                     &(struct sm_agent_wait){ .timeout_ms = pool->options.identity.timeout_ms }, NULL);
	if (code >= 0)
		code = sm_identity_renew(control, &pool->options.identity, NULL);
	if (code < 0)
		sm_control_close(control);
	uint64_t took = sm_time_us() - start;

	pthread_mutex_lock(&pool->lock);
	pool->resetting--;
	if (code < 0) {
		pool->stats.failed++;
		return;
	}
	pool->stats.recycled++;
	add_sample(&pool->reset, reset.total_us);
	add_sample(&pool->recycle, took);
	sm_pool_deliver(pool, control);
}

static void close_oldest(struct sm_pool *pool)
{
	struct sm_control *control = pool->ready[0].control;
	memmove(pool->ready, pool->ready + 1, --pool->nready * sizeof *pool->ready);
	pthread_mutex_unlock(&pool->lock);
	sm_control_close(control);
	pthread_mutex_lock(&pool->lock);
}

static bool is_wanted(const struct sm_pool *pool)
{
	unsigned coming = pool->making + pool->resetting + pool->nreturned;
	if (pool->draining || pool->nready + coming + pool->stats.in_use >= pool->options.max)
		return false;
	return pool->nwaiting > coming || (!pool->failing && pool->nready + coming < pool->options.min);
}

/* When the ready machine that nobody wanted for longest is to be closed; UINT64_MAX: never. */
static uint64_t idle_at_us(const struct sm_pool *pool)
{
	if (pool->options.idle_ms < 0 || pool->nready <= pool->options.min)
		return UINT64_MAX;
	return pool->ready[0].since_us + (uint64_t)pool->options.idle_ms * 1000u;
}

static void wait_until(struct sm_pool *pool, uint64_t until_us)
{
	struct timespec when = { .tv_sec = (time_t)(until_us / 1000000u),
		                 .tv_nsec = (long)(until_us % 1000000u) * 1000 };
	if (until_us == UINT64_MAX)
		pthread_cond_wait(&pool->changed, &pool->lock);
	else
		pthread_cond_timedwait(&pool->changed, &pool->lock, &when);
}

void *sm_pool_keep(void *arg)
{
	struct sm_pool *pool = arg;

	pthread_mutex_lock(&pool->lock);
	while (!pool->closing) {
		uint64_t idle_us = idle_at_us(pool);
		if (pool->draining && pool->nready > 0)
			close_oldest(pool);
		else if (pool->nreturned > 0)
			recycle(pool);
		else if (is_wanted(pool))
			make(pool);
		else if (idle_us <= sm_time_us())
			close_oldest(pool);
		else
			wait_until(pool, idle_us);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}
