/* The MMIO transport's registers: virtio 1.2, 4.2.2. */
#include "virtio/device.h"

#include "base/fd.h"

#include <string.h>

#define MAGIC     0x74726976u /* "virt" */
#define VERSION   2u
#define VENDOR_ID 0x4d53u /* "SM" */

enum {
	REG_MAGIC = 0x000,
	REG_VERSION = 0x004,
	REG_DEVICE_ID = 0x008,
	REG_VENDOR_ID = 0x00c,
	REG_DEVICE_FEATURES = 0x010,
	REG_DEVICE_FEATURES_SEL = 0x014,
	REG_DRIVER_FEATURES = 0x020,
	REG_DRIVER_FEATURES_SEL = 0x024,
	REG_QUEUE_SEL = 0x030,
	REG_QUEUE_NUM_MAX = 0x034,
	REG_QUEUE_NUM = 0x038,
	REG_QUEUE_READY = 0x044,
	REG_QUEUE_NOTIFY = SM_VIRTIO_QUEUE_NOTIFY,
	REG_INTERRUPT_STATUS = 0x060,
	REG_INTERRUPT_ACK = 0x064,
	REG_STATUS = 0x070,
	REG_QUEUE_DESC_LOW = 0x080,
	REG_QUEUE_DESC_HIGH = 0x084,
	REG_QUEUE_DRIVER_LOW = 0x090,
	REG_QUEUE_DRIVER_HIGH = 0x094,
	REG_QUEUE_DEVICE_LOW = 0x0a0,
	REG_QUEUE_DEVICE_HIGH = 0x0a4,
	REG_SHM_SEL = 0x0ac,
	REG_SHM_LEN_LOW = 0x0b0,
	REG_SHM_LEN_HIGH = 0x0b4,
	REG_SHM_BASE_LOW = 0x0b8,
	REG_SHM_BASE_HIGH = 0x0bc,
	REG_CONFIG_GENERATION = 0x0fc,
	REG_CONFIG = 0x100,
};

/* The selected queue, or NULL for one that the device does not have. */
static struct sm_queue *selected(struct sm_virtio *device)
{
	return device->queue_sel < device->ops->nqueues ? &device->queues[device->queue_sel] : NULL;
}

static uint64_t config_read(struct sm_virtio *device, uint64_t offset, unsigned size)
{
	uint8_t config[SM_VIRTIO_CONFIG_MAX + 8] = { 0 };
	uint64_t value = 0;
	if (offset >= SM_VIRTIO_CONFIG_MAX)
		return 0;
	device->ops->config(device, config);
	memcpy(&value, config + offset, size);
	return value;
}

/* All ones: no such region, 4.2.2. */
static uint64_t shm_read(const struct sm_virtio *device, uint64_t value)
{
	return device->shm_sel == 0 && device->shm.bytes ? value : UINT64_MAX;
}

static uint32_t register_read(struct sm_virtio *device, uint64_t offset)
{
	struct sm_queue *queue = selected(device);
	switch (offset) {
	case REG_MAGIC:
		return MAGIC;
	case REG_VERSION:
		return VERSION;
	case REG_DEVICE_ID:
		return device->ops->id;
	case REG_VENDOR_ID:
		return VENDOR_ID;
	case REG_DEVICE_FEATURES:
		if (device->device_features_sel > 1)
			return 0;
		return (uint32_t)(sm_virtio_features(device) >> (32 * device->device_features_sel));
	case REG_QUEUE_NUM_MAX:
		return queue ? SM_QUEUE_NUM_MAX : 0;
	case REG_QUEUE_READY:
		return queue && queue->ready;
	case REG_STATUS:
		return device->status;
	case REG_SHM_LEN_LOW:
		return (uint32_t)shm_read(device, device->shm.bytes);
	case REG_SHM_LEN_HIGH:
		return (uint32_t)(shm_read(device, device->shm.bytes) >> 32);
	case REG_SHM_BASE_LOW:
		return (uint32_t)shm_read(device, device->shm.gpa);
	case REG_SHM_BASE_HIGH:
		return (uint32_t)(shm_read(device, device->shm.gpa) >> 32);
	case REG_CONFIG_GENERATION:
		return device->config_generation;
	default:
		return 0;
	}
}

uint64_t sm_virtio_mmio_read(struct sm_virtio *device, uint64_t offset, unsigned size)
{
	if (size != 1 && size != 2 && size != 4 && size != 8)
		return 0;
	if (offset < REG_CONFIG && (size != 4 || offset % 4))
		return 0;
	/* Read in every interrupt: not behind a device that is busy. */
	if (offset == REG_INTERRUPT_STATUS)
		return atomic_load(&device->interrupt_status);
	pthread_mutex_lock(&device->lock);
	uint64_t value =
	    offset < REG_CONFIG ? register_read(device, offset) : config_read(device, offset - REG_CONFIG, size);
	pthread_mutex_unlock(&device->lock);
	return value;
}

static void status_write(struct sm_virtio *device, uint32_t value)
{
	if (value == 0) {
		sm_virtio_reset(device);
		return;
	}
	/* Bits are only added; DEVICE_NEEDS_RESET is the device's. */
	uint32_t added =
	    value & ~device->status &
	    (SM_VIRTIO_ACKNOWLEDGE | SM_VIRTIO_DRIVER | SM_VIRTIO_FEATURES_OK | SM_VIRTIO_DRIVER_OK | SM_VIRTIO_FAILED);
	if (added & SM_VIRTIO_FEATURES_OK) {
		uint64_t unknown = device->driver_features & ~sm_virtio_features(device);
		if (unknown || !(device->driver_features & SM_VIRTIO_F_VERSION_1))
			added &= ~SM_VIRTIO_FEATURES_OK; /* the driver reads it back: 3.1.1 */
	}
	device->status |= added;
	if (!(device->status & SM_VIRTIO_FEATURES_OK))
		device->status &= ~SM_VIRTIO_DRIVER_OK;
	if (!(added & device->status & SM_VIRTIO_DRIVER_OK))
		return;
	if (device->ops->start)
		device->ops->start(device);
	sm_virtio_wake(device); /* for buffers that were there before */
}

static void driver_features_write(struct sm_virtio *device, uint32_t value)
{
	if ((device->status & SM_VIRTIO_FEATURES_OK) || device->driver_features_sel > 1)
		return;
	unsigned shift = 32 * device->driver_features_sel;
	device->driver_features &= ~(UINT64_C(0xffffffff) << shift);
	device->driver_features |= (uint64_t)value << shift;
}

static void queue_ready_write(struct sm_virtio *device, struct sm_queue *queue, uint32_t value)
{
	if (!(value & 1)) {
		sm_queue_reset(queue);
		return;
	}
	if (queue->ready || !(device->status & SM_VIRTIO_FEATURES_OK))
		return;
	if (sm_virtio_start_queue(device, queue) < 0) {
		sm_virtio_broken(device);
		return;
	}
	if (device->status & SM_VIRTIO_DRIVER_OK)
		sm_virtio_wake(device);
}

static void set_low(uint64_t *address, uint32_t value)
{
	*address = (*address & ~UINT64_C(0xffffffff)) | value;
}

static void set_high(uint64_t *address, uint32_t value)
{
	*address = (*address & UINT64_C(0xffffffff)) | (uint64_t)value << 32;
}

static void queue_write(struct sm_virtio *device, struct sm_queue *queue, uint64_t offset, uint32_t value)
{
	if (offset == REG_QUEUE_READY) {
		queue_ready_write(device, queue, value);
		return;
	}
	if (queue->ready)
		return;
	switch (offset) {
	case REG_QUEUE_NUM:
		/* Too large stays too large, and is refused when the queue is made ready. */
		queue->num = value > UINT16_MAX ? UINT16_MAX : (uint16_t)value;
		break;
	case REG_QUEUE_DESC_LOW:
		set_low(&queue->desc, value);
		break;
	case REG_QUEUE_DESC_HIGH:
		set_high(&queue->desc, value);
		break;
	case REG_QUEUE_DRIVER_LOW:
		set_low(&queue->avail, value);
		break;
	case REG_QUEUE_DRIVER_HIGH:
		set_high(&queue->avail, value);
		break;
	case REG_QUEUE_DEVICE_LOW:
		set_low(&queue->used, value);
		break;
	case REG_QUEUE_DEVICE_HIGH:
		set_high(&queue->used, value);
		break;
	default:
		break;
	}
}

static void register_write(struct sm_virtio *device, uint64_t offset, uint32_t value)
{
	struct sm_queue *queue = selected(device);
	switch (offset) {
	case REG_DEVICE_FEATURES_SEL:
		device->device_features_sel = value;
		break;
	case REG_DRIVER_FEATURES_SEL:
		device->driver_features_sel = value;
		break;
	case REG_DRIVER_FEATURES:
		driver_features_write(device, value);
		break;
	case REG_QUEUE_SEL:
		device->queue_sel = value;
		break;
	case REG_SHM_SEL:
		device->shm_sel = value;
		break;
	case REG_STATUS:
		status_write(device, value);
		break;
	default:
		if (queue)
			queue_write(device, queue, offset, value);
		break;
	}
}

void sm_virtio_mmio_write(struct sm_virtio *device, uint64_t offset, unsigned size, uint64_t value)
{
	if (size != 1 && size != 2 && size != 4 && size != 8)
		return;
	if (offset < REG_CONFIG && (size != 4 || offset % 4))
		return;
	if (offset == REG_QUEUE_NOTIFY) {
		sm_fd_event_raise(device->kick_fd);
		return;
	}
	if (offset == REG_INTERRUPT_ACK) {
		atomic_fetch_and(&device->interrupt_status, ~(uint32_t)value);
		return;
	}
	pthread_mutex_lock(&device->lock);
	if (offset < REG_CONFIG) {
		register_write(device, offset, (uint32_t)value);
	} else if (device->ops->config_write && offset - REG_CONFIG <= SM_VIRTIO_CONFIG_MAX - size) {
		uint8_t data[8];
		memcpy(data, &value, sizeof data);
		device->ops->config_write(device, (unsigned)(offset - REG_CONFIG), data, size);
	}
	pthread_mutex_unlock(&device->lock);
}
