/* The traditional memory balloon (virtio 1.2, 5.5) with free page reporting. */
#include "virtio/device.h"

#include <errno.h>
#include <string.h>

#define DEVICE_ID      5u
#define PAGE_SHIFT     12
#define F_DEFLATE_OOM  (UINT64_C(1) << 2)
#define F_REPORTING    (UINT64_C(1) << 5)
#define CONFIG_ACTUAL  4u
#define BATCH          64u          /* chains a wake-up and queue */
#define BATCH_PAGES    4096u        /* inflated pages a wake-up, and most of a chain */
#define BATCH_REPORTED (256u << 20) /* bytes discarded a wake-up, looked at between chains */
#define FRAMES         256u         /* page frame numbers looked at together */

enum {
	QUEUE_INFLATE,
	QUEUE_DEFLATE,
	/* Drivers disagree on whether the queues of features that are not offered are counted (5.5.2), but with
	 * reporting the only feature that has a queue, every further one is the reporting queue. */
	QUEUE_REPORTING_FIRST,
	QUEUES = 5,
};

struct balloon {
	struct sm_virtio base;
	uint32_t num_pages; /* that the guest shall give */
	uint32_t actual;    /* that it says it has given */
};

static struct balloon *balloon_of(struct sm_virtio *device)
{
	return (struct balloon *)device;
}

static void balloon_config(struct sm_virtio *device, uint8_t config[SM_VIRTIO_CONFIG_MAX])
{
	memcpy(config, &balloon_of(device)->num_pages, 4);
	memcpy(config + CONFIG_ACTUAL, &balloon_of(device)->actual, 4);
}

static void balloon_config_write(struct sm_virtio *device, unsigned offset, const uint8_t *data, unsigned size)
{
	if (offset == CONFIG_ACTUAL && size == 4)
		memcpy(&balloon_of(device)->actual, data, 4);
}

/* Guests mostly give ascending or descending neighbours, so runs of them go in one call. */
static void discard_frames(struct balloon *balloon, const uint32_t *frames, unsigned count)
{
	struct sm_virtio *device = &balloon->base;
	for (unsigned i = 0; i < count;) {
		uint64_t low = frames[i], high = frames[i];
		unsigned next = i + 1;
		for (; next < count; next++) {
			if (frames[next] == high + 1)
				high++;
			else if (low && frames[next] == low - 1)
				low--;
			else
				break;
		}
		uint64_t bytes = (high - low + 1) << PAGE_SHIFT;
		if (sm_memory_discard(device->env.memory, low << PAGE_SHIFT, bytes) < 0)
			device->stats.errors++;
		else
			device->stats.bytes += bytes;
		i = next;
	}
}

static bool inflate(struct balloon *balloon)
{
	struct sm_virtio *device = &balloon->base;
	unsigned pages = 0, done = 0;
	for (; done < BATCH && pages < BATCH_PAGES; done++) {
		const struct sm_chain *chain = sm_virtio_pop(device, QUEUE_INFLATE);
		if (!chain)
			break;
		uint64_t offset = 0;
		uint32_t frames[FRAMES];
		size_t got;
		while (offset < BATCH_PAGES * sizeof *frames &&
		       (got = sm_chain_read(chain, offset, frames, sizeof frames)) >= sizeof *frames) {
			discard_frames(balloon, frames, (unsigned)(got / sizeof *frames));
			offset += got;
			pages += (unsigned)(got / sizeof *frames);
		}
		if (offset < chain->read_bytes)
			device->stats.errors++;
		sm_virtio_push(device, QUEUE_INFLATE, 0);
	}
	sm_virtio_flush(device, QUEUE_INFLATE);
	return done == BATCH || pages >= BATCH_PAGES;
}

/* A page that was given back is there again on its first touch. */
static bool deflate(struct balloon *balloon)
{
	struct sm_virtio *device = &balloon->base;
	unsigned done = 0;
	for (; done < BATCH && sm_virtio_pop(device, QUEUE_DEFLATE); done++)
		sm_virtio_push(device, QUEUE_DEFLATE, 0);
	sm_virtio_flush(device, QUEUE_DEFLATE);
	return done == BATCH;
}

/* Each writable part is a run of free pages, 5.5.6.7. */
static bool report(struct balloon *balloon, unsigned queue)
{
	struct sm_virtio *device = &balloon->base;
	uint64_t bytes = 0;
	unsigned done = 0;
	for (; done < BATCH && bytes < BATCH_REPORTED; done++) {
		const struct sm_chain *chain = sm_virtio_pop(device, queue);
		if (!chain)
			break;
		for (unsigned i = chain->nread; i < chain->nread + chain->nwrite && bytes < BATCH_REPORTED; i++) {
			uint64_t len = chain->iov[i].iov_len;
			if (sm_memory_discard(device->env.memory, chain->gpa[i], len) < 0)
				device->stats.errors++;
			bytes += len;
		}
		sm_virtio_push(device, queue, 0);
	}
	device->stats.bytes += bytes;
	sm_virtio_flush(device, queue);
	return done == BATCH || bytes >= BATCH_REPORTED;
}

static bool balloon_process(struct sm_virtio *device)
{
	struct balloon *balloon = balloon_of(device);
	bool more = inflate(balloon);
	more |= deflate(balloon);
	if (device->driver_features & F_REPORTING)
		for (unsigned queue = QUEUE_REPORTING_FIRST; queue < QUEUES; queue++)
			more |= report(balloon, queue);
	return more;
}

/* What the host wants outlives a reset, what the guest gave does not. */
static void balloon_reset(struct sm_virtio *device)
{
	balloon_of(device)->actual = 0;
}

static void balloon_save(struct sm_virtio *device, struct sm_buf *out)
{
	sm_put_u32(out, balloon_of(device)->num_pages);
	sm_put_u32(out, balloon_of(device)->actual);
}

static int balloon_load(struct sm_virtio *device, struct sm_reader *in, struct sm_error *err)
{
	(void)err; /* any two numbers will do */
	balloon_of(device)->num_pages = sm_get_u32(in);
	balloon_of(device)->actual = sm_get_u32(in);
	return 0;
}

static const struct sm_virtio_ops balloon_ops = {
	.id = DEVICE_ID,
	.nqueues = QUEUES,
	.features = F_DEFLATE_OOM | F_REPORTING,
	.config = balloon_config,
	.config_write = balloon_config_write,
	.process = balloon_process,
	.reset = balloon_reset,
	.save = balloon_save,
	.load = balloon_load,
};

int sm_virtio_balloon_new(const struct sm_virtio_env *env, struct sm_virtio **ret, struct sm_error *err)
{
	*ret = NULL;
	struct balloon *balloon;
	int code = sm_virtio_create(sizeof *balloon, env, &balloon_ops, &balloon, err);
	if (code < 0)
		return code;
	*ret = &balloon->base;
	return 0;
}

int sm_virtio_balloon_set(struct sm_virtio *device, uint32_t pages)
{
	if (device->ops != &balloon_ops)
		return -ENOTSUP;
	if (pages > sm_memory_bytes(device->env.memory) >> PAGE_SHIFT)
		return -EINVAL;
	pthread_mutex_lock(&device->lock);
	if (balloon_of(device)->num_pages != pages) {
		balloon_of(device)->num_pages = pages;
		sm_virtio_config_changed(device);
	}
	pthread_mutex_unlock(&device->lock);
	return 0;
}

uint32_t sm_virtio_balloon_actual(struct sm_virtio *device)
{
	if (device->ops != &balloon_ops)
		return 0;
	pthread_mutex_lock(&device->lock);
	uint32_t actual = balloon_of(device)->actual;
	pthread_mutex_unlock(&device->lock);
	return actual;
}
