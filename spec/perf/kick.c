/* kick ROUNDS: what a request costs besides its work.  A device that only answers is kicked, and its interrupt awaited,
 * ROUNDS times; a line each: microseconds where the loop serves it, where threads of its own do, and where a thread
 * would that the loop wakes (two threads that pass an eventfd on: what this is instead of). */
#include "base/fd.h"
#include "base/thread.h"
#include "virtio/device.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define NUM  16u
#define RING 0x10000u

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "kick: %s\n", what);
	exit(1);
}

static void no_config(struct sm_virtio *device, uint8_t config[SM_VIRTIO_CONFIG_MAX])
{
	(void)device, (void)config;
}

static bool by_loop(struct sm_virtio *device)
{
	while (sm_virtio_pop(device, 0))
		sm_virtio_push(device, 0, 0);
	sm_virtio_flush(device, 0);
	return false;
}

static int by_thread(struct sm_virtio *device, unsigned queue, const struct sm_chain *chain,
                     struct sm_virtio_served *ret)
{
	(void)device, (void)queue, (void)chain, (void)ret;
	return 0;
}

static const struct sm_virtio_ops loop_ops = { .id = 1, .nqueues = 1, .config = no_config, .process = by_loop };
static const struct sm_virtio_ops thread_ops = { .id = 1, .nqueues = 1, .config = no_config, .serve = by_thread };

struct driven {
	struct sm_memory *memory;
	struct sm_virtio *device;
	int irq_fd;
	uint16_t avail;
};

static void set(struct driven *driven, uint64_t offset, uint32_t value)
{
	sm_virtio_mmio_write(driven->device, offset, 4, value);
}

static struct driven drive(struct sm_loop *loop, const struct sm_virtio_ops *ops)
{
	const struct sm_plan plan = { .nram = 1, .ram = { { 0, 16 * SM_MIB } } };
	struct driven driven = { .irq_fd = sm_fd_event() };
	if (driven.irq_fd < 0 || sm_memory_new(&plan, NULL, 0, &driven.memory, NULL) < 0)
		fail("memory");
	const struct sm_virtio_env env = {
		.memory = driven.memory,
		.loop = loop,
		.line = sm_fd_event_line(driven.irq_fd),
	};
	if (sm_virtio_create(sizeof *driven.device, &env, ops, &driven.device, NULL) < 0)
		fail("device");
	const struct {
		uint64_t offset;
		uint32_t value;
	} up[] = { { 0x70, 3 },
		   { 0x24, 1 },
		   { 0x20, 1 },
		   { 0x70, 11 },
		   { 0x38, NUM },
		   { 0x80, RING },
		   { 0x90, RING + 0x1000 },
		   { 0xa0, RING + 0x2000 },
		   { 0x44, 1 },
		   { 0x70, 15 } };
	for (size_t i = 0; i < sizeof up / sizeof *up; i++)
		set(&driven, up[i].offset, up[i].value);
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} descriptor = { .addr = 0x100000, .len = 16, .flags = 2 };
	sm_memory_write(driven.memory, RING, &descriptor, sizeof descriptor);
	return driven;
}

static double now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void await(int fd)
{
	if (!(sm_fd_wait(fd, POLLIN, 10000) & POLLIN))
		fail("nothing came");
	sm_fd_event_take(fd);
}

static double request(struct driven *driven)
{
	uint16_t *idx = sm_memory_at_write(driven->memory, RING + 0x1002, 2);
	double start = now_us();
	__atomic_store_n(idx, ++driven->avail, __ATOMIC_SEQ_CST);
	set(driven, SM_VIRTIO_QUEUE_NOTIFY, 0);
	await(driven->irq_fd);
	return now_us() - start;
}

/* The loop's thread, and one that it wakes. */
struct relay {
	int from, to;
};

static void *relay(void *arg)
{
	const struct relay *relay = arg;
	for (;;) {
		await(relay->from);
		sm_fd_event_raise(relay->to);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int rounds = argc == 2 ? atoi(argv[1]) : 0;
	struct sm_loop *loop;
	if (rounds < 1 || sm_loop_new(&loop, NULL) < 0 || sm_loop_start(loop, NULL) < 0)
		fail("usage: kick ROUNDS");
	struct driven looped = drive(loop, &loop_ops), threaded = drive(loop, &thread_ops);
	int fds[3] = { sm_fd_event(), sm_fd_event(), sm_fd_event() };
	static struct relay relays[2];
	pthread_t thread;
	for (int i = 0; i < 2; i++) {
		relays[i] = (struct relay){ fds[i], fds[i + 1] };
		if (sm_thread_start(&thread, "relay", relay, &relays[i]) < 0)
			fail("thread");
	}
	for (int i = 0; i < rounds; i++) {
		double one = request(&looped), other = request(&threaded), start = now_us();
		sm_fd_event_raise(fds[0]);
		await(fds[2]);
		printf("%.2f %.2f %.2f\n", one, other, now_us() - start);
		usleep(200); /* as a guest would: everybody is asleep again */
	}
	fflush(stdout);
	_exit(0);
}
