/* A device's life apart from its registers: wake-ups, interrupts, state. */
#include "virtio/device.h"

#include "base/fd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

static void count_kicks(struct sm_virtio *device)
{
	uint64_t count = sm_fd_event_take(device->kick_fd);
	/* One that is counted and not yet in there is so the next time. */
	uint64_t own = atomic_load(&device->self_kicks);
	own = own < count ? own : count;
	atomic_fetch_sub(&device->self_kicks, own);
	device->stats.kicks += count - own;
}

/* The first chain: from now on its threads watch. */
static void start_workers(struct sm_virtio *device)
{
	if (!sm_workers_wanted(device))
		return;
	if (sm_workers_start(device) < 0) {
		sm_virtio_broken(device);
		return;
	}
	sm_loop_remove(device->kick);
	device->kick = NULL;
}

static void kicked(void *arg, uint32_t events)
{
	(void)events;
	struct sm_virtio *device = arg;
	pthread_mutex_lock(&device->lock);
	if (!device->closing) {
		count_kicks(device);
		if (device->ops->wake)
			device->ops->wake(device);
		if (device->ops->serve)
			start_workers(device);
		else if (sm_virtio_running(device) && device->ops->process(device))
			sm_virtio_wake(device);
	}
	pthread_mutex_unlock(&device->lock);
}

int sm_virtio_create(size_t size, const struct sm_virtio_env *env, const struct sm_virtio_ops *ops, void *ret_device,
                     struct sm_error *err)
{
	struct sm_virtio *device = calloc(1, size);
	if (!device)
		return sm_error_sys(err, ENOMEM, "make virtio device %u", ops->id);
	device->ops = ops;
	device->env = *env;
	for (unsigned i = 0; i < ops->nqueues; i++)
		device->queues[i].memory = env->memory;
	device->kick_fd = sm_fd_event();
	if (device->kick_fd < 0) {
		int code = device->kick_fd;
		free(device);
		return sm_error_sys(err, code, "make virtio device %u: eventfd", ops->id);
	}
	pthread_mutex_init(&device->lock, NULL);
	int code = ops->serve ? sm_workers_init(device) : 0;
	if (code == 0)
		code = sm_loop_add(env->loop, device->kick_fd, EPOLLIN, kicked, device, &device->kick);
	if (code < 0) {
		if (ops->serve)
			sm_workers_done(device);
		pthread_mutex_destroy(&device->lock);
		sm_fd_close(&device->kick_fd);
		free(device);
		return sm_error_sys(err, code, "make virtio device %u: watch notifications", ops->id);
	}
	memcpy(ret_device, &device, sizeof device);
	return 0;
}

void sm_virtio_free(struct sm_virtio *device)
{
	if (!device)
		return;
	/* From here on handlers return at once, so what close walks through stands still. */
	pthread_mutex_lock(&device->lock);
	device->closing = true;
	struct sm_loop_source *kick = device->kick;
	if (device->ops->serve)
		sm_workers_stop(device);
	pthread_mutex_unlock(&device->lock);
	sm_loop_remove(kick);
	if (device->ops->serve)
		sm_workers_done(device);
	if (device->ops->close)
		device->ops->close(device);
	sm_fd_close(&device->kick_fd);
	pthread_mutex_destroy(&device->lock);
	free(device);
}

int sm_virtio_kick_fd(const struct sm_virtio *device)
{
	return device->kick_fd;
}

uint64_t sm_virtio_features(const struct sm_virtio *device)
{
	return device->ops->features | SM_VIRTIO_F_VERSION_1 | SM_VIRTIO_F_EVENT_IDX | SM_VIRTIO_F_INDIRECT_DESC;
}

void sm_virtio_wake(struct sm_virtio *device)
{
	atomic_fetch_add(&device->self_kicks, 1);
	sm_fd_event_raise(device->kick_fd);
}

void sm_virtio_interrupt(struct sm_virtio *device, uint32_t status)
{
	atomic_fetch_or(&device->interrupt_status, status);
	atomic_fetch_add_explicit(&device->interrupts, 1, memory_order_relaxed);
	sm_line_raise(&device->env.line);
}

void sm_virtio_config_changed(struct sm_virtio *device)
{
	device->config_generation++;
	if (device->status & SM_VIRTIO_DRIVER_OK)
		sm_virtio_interrupt(device, SM_VIRTIO_INTERRUPT_CONFIG);
}

void sm_virtio_broken(struct sm_virtio *device)
{
	device->stats.errors++;
	if (device->status & SM_VIRTIO_NEEDS_RESET)
		return;
	device->status |= SM_VIRTIO_NEEDS_RESET;
	if (device->status & SM_VIRTIO_DRIVER_OK)
		sm_virtio_interrupt(device, SM_VIRTIO_INTERRUPT_CONFIG);
}

void sm_virtio_reset(struct sm_virtio *device)
{
	for (unsigned i = 0; i < device->ops->nqueues; i++)
		sm_queue_reset(&device->queues[i]);
	device->status = 0;
	device->driver_features = 0;
	device->device_features_sel = device->driver_features_sel = device->queue_sel = device->shm_sel = 0;
	atomic_store(&device->interrupt_status, 0);
	if (device->ops->serve)
		sm_workers_reset(device);
	else if (device->ops->reset)
		device->ops->reset(device);
}

void sm_virtio_pause(struct sm_virtio *device)
{
	if (!device->ops->serve)
		return;
	pthread_mutex_lock(&device->lock);
	sm_workers_pause(device);
	pthread_mutex_unlock(&device->lock);
}

void sm_virtio_resume(struct sm_virtio *device)
{
	if (!device->ops->serve)
		return;
	pthread_mutex_lock(&device->lock);
	sm_workers_resume(device);
	pthread_mutex_unlock(&device->lock);
}

void sm_virtio_forget(struct sm_virtio *device)
{
	pthread_mutex_lock(&device->lock);
	sm_virtio_reset(device);
	if (device->ops->forget)
		device->ops->forget(device);
	device->config_generation = 0;
	atomic_store(&device->self_kicks, 0);
	sm_fd_event_take(device->kick_fd);
	device->stats = (struct sm_virtio_stats){ 0 };
	atomic_store(&device->interrupts, 0);
	pthread_mutex_unlock(&device->lock);
}

int sm_virtio_back(struct sm_virtio *device, const struct sm_backing *backing, struct sm_error *err)
{
	if (!device->ops->back)
		return sm_error_set(err, ENOTSUP, "virtio device %u has nothing behind it", device->ops->id);
	sm_virtio_pause(device);
	pthread_mutex_lock(&device->lock);
	int code = device->ops->back(device, backing, err);
	pthread_mutex_unlock(&device->lock);
	sm_virtio_resume(device);
	return code;
}

int sm_virtio_start_queue(struct sm_virtio *device, struct sm_queue *queue)
{
	queue->event_idx = device->driver_features & SM_VIRTIO_F_EVENT_IDX;
	queue->indirect = device->driver_features & SM_VIRTIO_F_INDIRECT_DESC;
	return sm_queue_start(queue);
}

bool sm_virtio_take(struct sm_virtio *device, unsigned queue, struct sm_chain *ret_chain)
{
	if (!sm_virtio_running(device) || !device->queues[queue].ready)
		return false;
	int code = sm_queue_pop(&device->queues[queue], ret_chain);
	if (code < 0)
		sm_virtio_broken(device);
	return code > 0;
}

void sm_virtio_give(struct sm_virtio *device, unsigned queue, uint16_t head, uint32_t written)
{
	if (sm_queue_push(&device->queues[queue], head, written) < 0)
		sm_virtio_broken(device);
	device->stats.requests++;
}

struct sm_chain *sm_virtio_pop(struct sm_virtio *device, unsigned queue)
{
	return sm_virtio_take(device, queue, &device->chain) ? &device->chain : NULL;
}

void sm_virtio_push(struct sm_virtio *device, unsigned queue, uint32_t written)
{
	sm_virtio_give(device, queue, device->chain.head, written);
}

void sm_virtio_flush(struct sm_virtio *device, unsigned queue)
{
	if (device->queues[queue].ready && sm_queue_wants_interrupt(&device->queues[queue]))
		sm_virtio_interrupt(device, SM_VIRTIO_INTERRUPT_USED);
}

void sm_virtio_restored(struct sm_virtio *device)
{
	pthread_mutex_lock(&device->lock);
	if (atomic_load(&device->interrupt_status))
		sm_line_raise(&device->env.line);
	if (device->ops->restored)
		device->ops->restored(device);
	if (sm_virtio_running(device))
		sm_virtio_wake(device);
	pthread_mutex_unlock(&device->lock);
}

void sm_virtio_stats(struct sm_virtio *device, struct sm_virtio_stats *ret)
{
	pthread_mutex_lock(&device->lock);
	/* Threads count nothing; a notification that is taken here has perhaps woken nobody yet. */
	if (device->ops->serve && !device->kick) {
		count_kicks(device);
		if (sm_workers_wanted(device))
			sm_virtio_wake(device);
	}
	*ret = device->stats;
	pthread_mutex_unlock(&device->lock);
	ret->interrupts = atomic_load_explicit(&device->interrupts, memory_order_relaxed);
}
