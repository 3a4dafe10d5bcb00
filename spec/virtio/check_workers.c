/* check_workers NAME: one check of a device whose requests block until they are told to go on. */
#include "../base/check.h"
#include "base/fd.h"
#include "virtio/device.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/eventfd.h>

#define NUM    16u
#define QUEUES 2u
#define WAIT   10000 /* ms, for what never comes */

struct slow {
	struct sm_virtio base;
	atomic_uint inside, most, resets;
	int moved_fd, leave_fd; /* somebody came or went; leave: one lets one go */
	bool fails;
};

static struct {
	struct sm_memory *memory;
	struct sm_loop *loop;
	int irq_fd;
	struct slow *slow;
	uint16_t avail[QUEUES];
} world;

static void slow_config(struct sm_virtio *device, uint8_t config[SM_VIRTIO_CONFIG_MAX])
{
	(void)device, (void)config;
}

static int slow_serve(struct sm_virtio *device, unsigned queue, const struct sm_chain *chain,
                      struct sm_virtio_served *ret)
{
	struct slow *slow = (struct slow *)device;
	(void)queue;
	unsigned now = atomic_fetch_add(&slow->inside, 1) + 1, most = atomic_load(&slow->most);
	while (now > most && !atomic_compare_exchange_weak(&slow->most, &most, now))
		;
	sm_fd_event_raise(slow->moved_fd);
	uint64_t one;
	CHECK(sm_fd_read_full(slow->leave_fd, &one, sizeof one) == 0);
	ret->written = (uint32_t)sm_chain_write(chain, 0, "done", 4);
	ret->bytes = 4;
	atomic_fetch_sub(&slow->inside, 1);
	sm_fd_event_raise(slow->moved_fd);
	return slow->fails ? -EPROTO : 0;
}

static void slow_reset(struct sm_virtio *device)
{
	struct slow *slow = (struct slow *)device;
	CHECK(atomic_load(&slow->inside) == 0);
	atomic_fetch_add(&slow->resets, 1);
}

static const struct sm_virtio_ops slow_ops = {
	.id = 26,
	.nqueues = QUEUES,
	.config = slow_config,
	.serve = slow_serve,
	.reset = slow_reset,
};

static uint64_t queue_at(unsigned queue)
{
	return 0x10000 * (queue + 1);
}

static void set(uint64_t offset, uint32_t value)
{
	sm_virtio_mmio_write(&world.slow->base, offset, 4, value);
}

/* As a driver comes up; its rings begin anew. */
static void drive(void)
{
	set(0x70, 1);
	set(0x70, 3);
	set(0x24, 1);
	set(0x20, 1); /* VERSION_1 */
	set(0x70, 11);
	for (unsigned i = 0; i < QUEUES; i++) {
		CHECK(sm_memory_zero(world.memory, queue_at(i), 0x3000) == 0);
		world.avail[i] = 0;
		set(0x30, i);
		set(0x38, NUM);
		set(0x80, (uint32_t)queue_at(i));
		set(0x90, (uint32_t)queue_at(i) + 0x1000);
		set(0xa0, (uint32_t)queue_at(i) + 0x2000);
		set(0x44, 1);
	}
	set(0x70, 15);
}

static void offer(unsigned queue)
{
	const uint16_t slot = world.avail[queue] % NUM;
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} desc = { .addr = 0x100000 + 0x10000 * queue + 64u * slot, .len = 16, .flags = 2 };
	CHECK(sm_memory_write(world.memory, queue_at(queue) + 16u * slot, &desc, sizeof desc) == 0);
	CHECK(sm_memory_write(world.memory, queue_at(queue) + 0x1004 + 2u * slot, &slot, 2) == 0);
	uint16_t *idx = sm_memory_at_write(world.memory, queue_at(queue) + 0x1002, 2);
	__atomic_store_n(idx, ++world.avail[queue], __ATOMIC_SEQ_CST);
	set(SM_VIRTIO_QUEUE_NOTIFY, queue);
}

static uint16_t used(unsigned queue)
{
	const uint16_t *idx = sm_memory_at_read(world.memory, queue_at(queue) + 0x2002, 2);
	return __atomic_load_n(idx, __ATOMIC_SEQ_CST);
}

static void wait_used(unsigned queue, uint16_t count)
{
	while (used(queue) != count) {
		CHECK(sm_fd_wait(world.irq_fd, POLLIN, WAIT) & POLLIN);
		sm_fd_event_take(world.irq_fd);
	}
}

static void wait_inside(unsigned count)
{
	while (atomic_load(&world.slow->inside) != count) {
		CHECK(sm_fd_wait(world.slow->moved_fd, POLLIN, WAIT) & POLLIN);
		sm_fd_event_take(world.slow->moved_fd);
	}
}

static void leave(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		sm_fd_event_raise(world.slow->leave_fd);
}

static void start(void)
{
	struct sm_plan plan = { .nram = 1, .ram = { { 0, 16 * SM_MIB } } };
	CHECK(sm_memory_new(&plan, NULL, 0, &world.memory, NULL) == 0);
	CHECK(sm_loop_new(&world.loop, NULL) == 0 && sm_loop_start(world.loop, NULL) == 0);
	world.irq_fd = sm_fd_event();
	const struct sm_virtio_env env = {
		.memory = world.memory,
		.loop = world.loop,
		.line = sm_fd_event_line(world.irq_fd),
	};
	CHECK(sm_virtio_create(sizeof *world.slow, &env, &slow_ops, &world.slow, NULL) == 0);
	world.slow->moved_fd = sm_fd_event();
	world.slow->leave_fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
	CHECK(world.irq_fd >= 0 && world.slow->moved_fd >= 0 && world.slow->leave_fd >= 0);
	drive();
}

static void stop(void)
{
	sm_virtio_free(&world.slow->base);
	sm_loop_free(world.loop);
	sm_memory_free(world.memory);
}

/* Until the loop has seen what came before. */
static void turned(void *arg, uint32_t events)
{
	(void)events;
	sm_fd_event_take(((int *)arg)[0]);
	sm_fd_event_raise(((int *)arg)[1]);
}

static void turn_loop(void)
{
	int fds[2] = { sm_fd_event(), sm_fd_event() };
	struct sm_loop_source *source;
	CHECK(sm_loop_add(world.loop, fds[0], POLLIN, turned, fds, &source) == 0);
	for (unsigned i = 0; i < 3; i++) {
		sm_fd_event_raise(fds[0]);
		CHECK(sm_fd_wait(fds[1], POLLIN, WAIT) & POLLIN);
		sm_fd_event_take(fds[1]);
	}
	sm_loop_remove(source);
	sm_fd_close(&fds[0]);
	sm_fd_close(&fds[1]);
}

/* Of devices. */
static unsigned threads(void)
{
	unsigned count = 0;
	DIR *dir = opendir("/proc/self/task");
	CHECK(dir);
	for (struct dirent *entry; (entry = readdir(dir));) {
		char path[300], name[16] = "";
		snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
		FILE *file = fopen(path, "r");
		if (file) {
			count += fgets(name, sizeof name, file) && !strcmp(name, "virtio\n");
			fclose(file);
		}
	}
	closedir(dir);
	return count;
}

/* One that was joined may still be listed for a moment. */
static void wait_no_threads(void)
{
	for (unsigned i = 0; threads() && i < WAIT; i++)
		CHECK(poll(NULL, 0, 1) == 0);
	CHECK(threads() == 0);
}

/* ---- checks ------------------------------------------------------------------------------------------------- */

static void check_lazy(void)
{
	start();
	set(SM_VIRTIO_QUEUE_NOTIFY, 0); /* of nothing */
	sm_virtio_restored(&world.slow->base);
	turn_loop();
	CHECK(threads() == 0 && world.slow->base.workers.nthreads == 0);
	offer(0);
	leave(1);
	wait_used(0, 1);
	CHECK(threads() == 2); /* and one more, for what may come meanwhile */
	stop();
	wait_no_threads();
}

static void check_parallel(void)
{
	start();
	for (unsigned i = 0; i < SM_WORKERS_MAX + 3; i++)
		offer(i % QUEUES);
	wait_inside(SM_WORKERS_MAX);
	/* The rest waits for its turn. */
	CHECK(world.slow->base.workers.nthreads == SM_WORKERS_MAX);
	leave(SM_WORKERS_MAX + 3);
	wait_used(0, (SM_WORKERS_MAX + 4) / 2);
	wait_used(1, (SM_WORKERS_MAX + 3) / 2);
	CHECK(atomic_load(&world.slow->most) == SM_WORKERS_MAX);
	struct sm_virtio_stats stats;
	sm_virtio_stats(&world.slow->base, &stats);
	CHECK(stats.requests == SM_WORKERS_MAX + 3 && stats.bytes == 4 * stats.requests && stats.errors == 0);
	stop();
}

/* A slow request holds nobody up, whenever the next one comes. */
static void check_behind(void)
{
	start();
	offer(0);
	wait_inside(1);
	offer(1);
	wait_inside(2);
	offer(0);
	wait_inside(3);
	leave(3);
	wait_used(0, 2);
	wait_used(1, 1);
	stop();
}

/* Statistics take the counter that threads wait for. */
static void check_kicks(void)
{
	start();
	struct sm_virtio_stats stats = { 0 };
	for (unsigned i = 1; i <= 2000; i++) {
		leave(1);
		offer(0);
		sm_virtio_stats(&world.slow->base, &stats);
		wait_used(0, (uint16_t)i);
	}
	sm_virtio_stats(&world.slow->base, &stats);
	CHECK(stats.kicks == 2000 && stats.requests == 2000);
	stop();
}

static void *pause_device(void *arg)
{
	sm_virtio_pause(&world.slow->base);
	sm_fd_event_raise(*(int *)arg);
	return NULL;
}

static void check_pause(void)
{
	pthread_t thread;
	int paused_fd = sm_fd_event();
	start();
	offer(0);
	offer(1);
	wait_inside(2);
	CHECK(pthread_create(&thread, NULL, pause_device, &paused_fd) == 0);
	leave(1);
	wait_inside(1);
	while (used(0) + used(1) != 1)
		sched_yield();
	/* One is still inside. */
	CHECK(sm_fd_wait(paused_fd, POLLIN, 0) == 0);
	leave(1);
	CHECK(sm_fd_wait(paused_fd, POLLIN, WAIT) & POLLIN);
	pthread_join(thread, NULL);
	CHECK(used(0) == 1 && used(1) == 1);
	sm_virtio_pause(&world.slow->base); /* nests */
	offer(0);
	turn_loop();
	sm_virtio_resume(&world.slow->base);
	CHECK(atomic_load(&world.slow->inside) == 0);
	struct sm_buf state SM_BUF_CLEANUP;
	sm_buf_init(&state, 1 << 20);
	CHECK(sm_virtio_save(&world.slow->base, &state, NULL) == 0);
	CHECK(atomic_load(&world.slow->inside) == 0 && used(0) == 1);
	sm_virtio_resume(&world.slow->base);
	leave(1);
	wait_used(0, 2);
	stop();
	sm_fd_close(&paused_fd);
}

/* A vCPU is held up for a moment only, and the old driver's requests are completed nowhere. */
static void check_reset(void)
{
	start();
	offer(0);
	offer(1);
	wait_inside(2);
	set(0x70, 0);
	CHECK(sm_virtio_mmio_read(&world.slow->base, 0x70, 4) == 0);
	CHECK(atomic_load(&world.slow->resets) == 0 && atomic_load(&world.slow->inside) == 2);
	drive();
	offer(0);
	turn_loop();
	/* Not before the device was reset, too. */
	CHECK(atomic_load(&world.slow->inside) == 2);
	leave(1);
	wait_inside(1);
	CHECK(atomic_load(&world.slow->resets) == 0);
	leave(2);
	wait_used(0, 1);
	CHECK(used(1) == 0 && atomic_load(&world.slow->resets) == 1);
	struct sm_virtio_stats stats;
	sm_virtio_stats(&world.slow->base, &stats);
	CHECK(stats.requests == 1);
	/* With nobody inside it is at once. */
	set(0x70, 0);
	CHECK(atomic_load(&world.slow->resets) == 2);
	stop();
}

/* A ring that is taken away alone, and comes again elsewhere in its course. */
static void check_ring(void)
{
	start();
	offer(0);
	offer(1);
	wait_inside(2);
	set(0x30, 0);
	set(0x44, 0);
	leave(2);
	wait_used(1, 1);
	while (atomic_load(&world.slow->inside))
		sched_yield();
	sm_virtio_pause(&world.slow->base);
	CHECK(used(0) == 0 && !(sm_virtio_mmio_read(&world.slow->base, 0x70, 4) & SM_VIRTIO_NEEDS_RESET));
	sm_virtio_resume(&world.slow->base);
	stop();
}

static void *free_device(void *arg)
{
	sm_virtio_free(&world.slow->base);
	sm_fd_event_raise(*(int *)arg);
	return NULL;
}

static void check_free(void)
{
	pthread_t thread;
	int freed_fd = sm_fd_event();
	start();
	const int leave_fd = world.slow->leave_fd;
	for (unsigned i = 0; i < SM_WORKERS_MAX + 2; i++)
		offer(0);
	wait_inside(SM_WORKERS_MAX);
	CHECK(pthread_create(&thread, NULL, free_device, &freed_fd) == 0);
	for (bool stopping = false; !stopping; sched_yield()) {
		pthread_mutex_lock(&world.slow->base.lock);
		stopping = world.slow->base.workers.stopping;
		pthread_mutex_unlock(&world.slow->base.lock);
	}
	/* Now nobody takes another one, so as many are let go as are inside. */
	for (unsigned i = 0; i < SM_WORKERS_MAX; i++) {
		CHECK(sm_fd_wait(freed_fd, POLLIN, 0) == 0);
		sm_fd_event_raise(leave_fd);
	}
	CHECK(sm_fd_wait(freed_fd, POLLIN, WAIT) & POLLIN);
	pthread_join(thread, NULL);
	CHECK(used(0) == SM_WORKERS_MAX);
	sm_loop_free(world.loop);
	wait_no_threads();
	sm_memory_free(world.memory);
	sm_fd_close(&freed_fd);
}

static void check_broken(void)
{
	start();
	world.slow->fails = true;
	offer(0);
	leave(1);
	while (!(sm_virtio_mmio_read(&world.slow->base, 0x70, 4) & SM_VIRTIO_NEEDS_RESET))
		sched_yield();
	CHECK(used(0) == 1);
	offer(0);
	turn_loop();
	CHECK(atomic_load(&world.slow->inside) == 0);
	stop();
}

int main(int argc, char **argv)
{
	static const struct check checks[] = {
		{ "lazy", check_lazy },   { "parallel", check_parallel }, { "behind", check_behind },
		{ "kicks", check_kicks }, { "pause", check_pause },       { "reset", check_reset },
		{ "ring", check_ring },   { "free", check_free },         { "broken", check_broken },
		{ NULL, NULL },
	};
	return check_main(checks, argc, argv);
}
