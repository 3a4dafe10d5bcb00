#include "virtio/workers.h"

#include "base/fd.h"
#include "base/thread.h"
#include "virtio/device.h"

#include <errno.h>
#include <sys/epoll.h>
#include <time.h>

/* How long a vCPU waits in its write to the status register. */
#define RESET_WAIT_NS 100000000L

int sm_workers_init(struct sm_virtio *device)
{
	struct sm_workers *workers = &device->workers;
	workers->poll_fd = epoll_create1(EPOLL_CLOEXEC);
	workers->stop_fd = sm_fd_event();
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&workers->changed, &attr);
	pthread_condattr_destroy(&attr);
	if (workers->poll_fd < 0 || workers->stop_fd < 0)
		return -EMFILE;
	/* By edges: each notification wakes one, although nobody takes the counter down.  The end wakes all. */
	struct epoll_event kick = { .events = EPOLLIN | EPOLLET }, stop = { .events = EPOLLIN };
	if (epoll_ctl(workers->poll_fd, EPOLL_CTL_ADD, device->kick_fd, &kick) < 0 ||
	    epoll_ctl(workers->poll_fd, EPOLL_CTL_ADD, workers->stop_fd, &stop) < 0)
		return -errno;
	return 0;
}

void sm_workers_done(struct sm_virtio *device)
{
	struct sm_workers *workers = &device->workers;
	/* A thread is only ever started by the loop, which is through, or by one with a lower number. */
	for (unsigned i = 0; i < workers->nthreads; i++)
		pthread_join(workers->threads[i], NULL);
	sm_fd_close(&workers->poll_fd);
	sm_fd_close(&workers->stop_fd);
	pthread_cond_destroy(&workers->changed);
}

/* Asks the driver to notify of what comes after. */
static bool more(struct sm_virtio *device)
{
	bool found = false;
	for (unsigned i = 0; i < device->ops->nqueues && sm_virtio_running(device); i++) {
		struct sm_queue *queue = &device->queues[i];
		found |= queue->ready && sm_queue_arm(queue) != queue->next_avail;
	}
	return found;
}

bool sm_workers_wanted(struct sm_virtio *device)
{
	return more(device) || (device->ops->again && device->ops->again(device, NULL, NULL));
}

/* From the next queue on, so that none waits for another's whole load. */
static bool take(struct sm_virtio *device, struct sm_chain *chain, unsigned *queue)
{
	const struct sm_workers *workers = &device->workers;
	if (workers->paused || workers->stopping || workers->reset_due)
		return false;
	if (device->ops->tend)
		device->ops->tend(device);
	if (device->ops->again && device->ops->again(device, chain, queue))
		return true;
	for (unsigned i = 0; i < device->ops->nqueues; i++) {
		*queue = (*queue + 1) % device->ops->nqueues;
		if (sm_virtio_take(device, *queue, chain))
			return true;
	}
	return false;
}

static void make_reset(struct sm_virtio *device)
{
	device->workers.reset_due = false;
	if (device->ops->reset)
		device->ops->reset(device);
	pthread_cond_broadcast(&device->workers.changed);
	if (sm_virtio_running(device))
		sm_virtio_wake(device);
}

static void serve(struct sm_virtio *device, unsigned queue, const struct sm_chain *chain)
{
	struct sm_workers *workers = &device->workers;
	struct sm_virtio_served served = { 0 };
	const uint64_t generation = device->queues[queue].generation;
	workers->inside++;
	if (more(device))
		sm_virtio_wake(device);
	if (workers->idle == 0)
		(void)sm_workers_start(device); /* without it what comes next waits for this one */
	pthread_mutex_unlock(&device->lock);
	int code = device->ops->serve(device, queue, chain, &served);
	pthread_mutex_lock(&device->lock);
	/* What an older driver gave, or this one for a ring that it has taken away, is not completed. */
	if (!served.kept && generation == device->queues[queue].generation) {
		device->stats.bytes += served.bytes;
		device->stats.errors += served.failed;
		device->stats.full += served.full;
		sm_virtio_give(device, queue, chain->head, served.written);
		if (code < 0)
			sm_virtio_broken(device);
		sm_virtio_flush(device, queue);
	}
	if (--workers->inside > 0)
		return;
	if (workers->reset_due)
		make_reset(device);
	pthread_cond_broadcast(&workers->changed);
}

static void *work(void *arg)
{
	struct sm_virtio *device = arg;
	struct sm_workers *workers = &device->workers;
	struct sm_chain chain;
	unsigned queue = 0;
	pthread_mutex_lock(&device->lock);
	while (!workers->stopping) {
		if (take(device, &chain, &queue)) {
			serve(device, queue, &chain);
			continue;
		}
		struct epoll_event event;
		workers->idle++;
		pthread_mutex_unlock(&device->lock);
		(void)epoll_wait(workers->poll_fd, &event, 1, -1);
		pthread_mutex_lock(&device->lock);
		workers->idle--;
	}
	pthread_mutex_unlock(&device->lock);
	return NULL;
}

int sm_workers_start(struct sm_virtio *device)
{
	struct sm_workers *workers = &device->workers;
	if (workers->nthreads == SM_WORKERS_MAX || workers->stopping)
		return 0;
	int code = sm_thread_start(&workers->threads[workers->nthreads], "virtio", work, device);
	if (code < 0)
		return workers->nthreads ? 0 : code;
	workers->nthreads++;
	return 0;
}

void sm_workers_stop(struct sm_virtio *device)
{
	device->workers.stopping = true;
	sm_fd_event_raise(device->workers.stop_fd);
}

void sm_workers_pause(struct sm_virtio *device)
{
	device->workers.paused++;
	while (device->workers.inside)
		pthread_cond_wait(&device->workers.changed, &device->lock);
	if (device->workers.paused == 1 && device->ops->pause)
		device->ops->pause(device, true);
}

void sm_workers_resume(struct sm_virtio *device)
{
	if (--device->workers.paused > 0)
		return;
	if (device->ops->pause)
		device->ops->pause(device, false);
	if (sm_workers_wanted(device))
		sm_virtio_wake(device);
}

void sm_workers_reset(struct sm_virtio *device)
{
	struct sm_workers *workers = &device->workers;
	struct timespec until;
	workers->reset_due = true;
	if (workers->inside == 0) {
		make_reset(device);
		return;
	}
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += RESET_WAIT_NS;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_nsec -= 1000000000L;
		until.tv_sec++;
	}
	while (workers->reset_due && pthread_cond_timedwait(&workers->changed, &device->lock, &until) != ETIMEDOUT)
		;
}
