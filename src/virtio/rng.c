/* The entropy device (virtio 1.2, 5.4): the host kernel's random bytes, straight into guest buffers. */
#include "virtio/device.h"

#include <errno.h>
#include <sys/random.h>

#define DEVICE_ID   4u
#define CHAIN_BYTES (64u << 10)  /* given for one request, which may ask for more */
#define BATCH       64u          /* requests a wake-up */
#define BATCH_BYTES (256u << 10) /* bytes a wake-up */

static void rng_config(struct sm_virtio *device, uint8_t config[SM_VIRTIO_CONFIG_MAX])
{
	(void)device;
	(void)config;
}

/* The host's pool is ready long before a machine can be started, so this does not wait. */
static size_t fill(const struct sm_chain *chain)
{
	struct iovec iov[SM_QUEUE_NUM_MAX];
	unsigned count = sm_chain_slice(chain, true, 0, CHAIN_BYTES, iov);
	size_t total = 0;
	for (unsigned i = 0; i < count; i++) {
		for (size_t done = 0; done < iov[i].iov_len;) {
			ssize_t got = getrandom((uint8_t *)iov[i].iov_base + done, iov[i].iov_len - done, 0);
			if (got < 0 && errno == EINTR)
				continue;
			if (got < 0)
				return total;
			done += (size_t)got;
			total += (size_t)got;
		}
	}
	return total;
}

static bool rng_process(struct sm_virtio *device)
{
	size_t bytes = 0;
	unsigned done = 0;
	for (; done < BATCH && bytes < BATCH_BYTES; done++) {
		const struct sm_chain *chain = sm_virtio_pop(device, 0);
		if (!chain)
			break;
		size_t got = fill(chain);
		if (got == 0)
			device->stats.errors++;
		bytes += got;
		device->stats.bytes += got;
		sm_virtio_push(device, 0, (uint32_t)got);
	}
	sm_virtio_flush(device, 0);
	return done == BATCH || bytes >= BATCH_BYTES;
}

static const struct sm_virtio_ops rng_ops = {
	.id = DEVICE_ID,
	.nqueues = 1,
	.config = rng_config,
	.process = rng_process,
};

int sm_virtio_rng_new(const struct sm_virtio_env *env, struct sm_virtio **ret, struct sm_error *err)
{
	*ret = NULL;
	return sm_virtio_create(sizeof(struct sm_virtio), env, &rng_ops, ret, err);
}
