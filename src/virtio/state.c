/* Saving and loading: the transport's state and queues, then the device's part, as one record. */
#include "virtio/device.h"

#include <errno.h>

#define RECORD_TAG     SM_TAG('V', 'D', 'E', 'V')
#define RECORD_VERSION 1

#define STATUS_KNOWN \
	(SM_VIRTIO_ACKNOWLEDGE | SM_VIRTIO_DRIVER | SM_VIRTIO_DRIVER_OK | SM_VIRTIO_FEATURES_OK | \
	 SM_VIRTIO_NEEDS_RESET | SM_VIRTIO_FAILED)

int sm_virtio_save(struct sm_virtio *device, struct sm_buf *out, struct sm_error *err)
{
	pthread_mutex_lock(&device->lock);
	size_t record = sm_record_begin(out, RECORD_TAG, RECORD_VERSION);
	sm_put_u32(out, device->ops->id);
	sm_put_u32(out, device->status);
	sm_put_u32(out, atomic_load(&device->interrupt_status));
	sm_put_u32(out, device->config_generation);
	sm_put_u64(out, device->driver_features);
	sm_put_u32(out, device->device_features_sel);
	sm_put_u32(out, device->driver_features_sel);
	sm_put_u32(out, device->queue_sel);
	sm_put_u32(out, device->ops->nqueues);
	for (unsigned i = 0; i < device->ops->nqueues; i++) {
		const struct sm_queue *queue = &device->queues[i];
		sm_put_u8(out, queue->ready);
		sm_put_u16(out, queue->num);
		sm_put_u64(out, queue->desc);
		sm_put_u64(out, queue->avail);
		sm_put_u64(out, queue->used);
		sm_put_u16(out, queue->next_avail);
		sm_put_u16(out, queue->next_used);
		sm_put_u16(out, queue->signalled);
	}
	if (device->ops->save)
		device->ops->save(device, out);
	sm_record_end(out, record);
	unsigned id = device->ops->id;
	pthread_mutex_unlock(&device->lock);
	if (sm_buf_failed(out))
		return sm_error_sys(err, out->failed, "save virtio device %u", id);
	return 0;
}

static int load_queue(struct sm_virtio *device, unsigned index, struct sm_reader *in, struct sm_error *err)
{
	struct sm_queue *queue = &device->queues[index];
	uint8_t ready = sm_get_u8(in);
	queue->num = sm_get_u16(in);
	queue->desc = sm_get_u64(in);
	queue->avail = sm_get_u64(in);
	queue->used = sm_get_u64(in);
	queue->next_avail = sm_get_u16(in);
	queue->next_used = sm_get_u16(in);
	queue->signalled = sm_get_u16(in);
	if (ready > 1 || (ready && !(device->status & SM_VIRTIO_FEATURES_OK)))
		return sm_error_set(err, EBADMSG, "virtio device %u: queue %u is ready too early", device->ops->id,
		                    index);
	if (ready && sm_virtio_start_queue(device, queue) < 0)
		return sm_error_set(err, EBADMSG, "virtio device %u: queue %u has a bad size or address",
		                    device->ops->id, index);
	return 0;
}

static int load_fields(struct sm_virtio *device, struct sm_reader *in, struct sm_error *err)
{
	unsigned id = device->ops->id;
	uint32_t saved_id = sm_get_u32(in);
	if (saved_id != id)
		return sm_error_set(err, EBADMSG, "virtio device %u: the state is of device %u", id, saved_id);
	device->status = sm_get_u32(in);
	uint32_t interrupt_status = sm_get_u32(in);
	device->config_generation = sm_get_u32(in);
	device->driver_features = sm_get_u64(in);
	device->device_features_sel = sm_get_u32(in);
	device->driver_features_sel = sm_get_u32(in);
	device->queue_sel = sm_get_u32(in);
	uint32_t nqueues = sm_get_u32(in);
	if (device->status & ~STATUS_KNOWN)
		return sm_error_set(err, EBADMSG, "virtio device %u: unknown status 0x%x", id, device->status);
	if (interrupt_status & ~(SM_VIRTIO_INTERRUPT_USED | SM_VIRTIO_INTERRUPT_CONFIG))
		return sm_error_set(err, EBADMSG, "virtio device %u: unknown interrupt status 0x%x", id,
		                    interrupt_status);
	atomic_store(&device->interrupt_status, interrupt_status);
	bool features_ok = device->status & SM_VIRTIO_FEATURES_OK;
	if ((device->status & SM_VIRTIO_DRIVER_OK) && !features_ok)
		return sm_error_set(err, EBADMSG, "virtio device %u: status 0x%x cannot be", id, device->status);
	/* Before FEATURES_OK a driver may have written anything. */
	if (features_ok && ((device->driver_features & ~sm_virtio_features(device)) ||
	                    !(device->driver_features & SM_VIRTIO_F_VERSION_1)))
		return sm_error_set(err, EBADMSG, "virtio device %u: features 0x%llx are not offered", id,
		                    (unsigned long long)device->driver_features);
	if (nqueues != device->ops->nqueues)
		return sm_error_set(err, EBADMSG, "virtio device %u: state of %u queues, this build has %u", id,
		                    nqueues, device->ops->nqueues);
	for (unsigned i = 0; i < nqueues; i++) {
		int code = load_queue(device, i, in, err);
		if (code < 0)
			return code;
	}
	return device->ops->load ? device->ops->load(device, in, err) : 0;
}

int sm_virtio_load(struct sm_virtio *device, struct sm_reader *in, struct sm_error *err)
{
	struct sm_reader record;
	int code = sm_record_open(in, RECORD_TAG, RECORD_VERSION, "virtio device", &record, err);
	if (code < 0)
		return code;
	pthread_mutex_lock(&device->lock);
	code = load_fields(device, &record, err);
	if (code == 0)
		code = sm_record_close(&record, "virtio device", err);
	if (code < 0)
		sm_virtio_reset(device); /* nothing of a refused state stays */
	pthread_mutex_unlock(&device->lock);
	return code;
}
