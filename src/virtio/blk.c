/* A read-only block device (virtio 1.2, 5.2) over a list of segments. */
#include "base/fd.h"
#include "virtio/blk_request.h"
#include "virtio/device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define BATCH       64u        /* requests a wake-up */
#define BATCH_BYTES (4u << 20) /* likewise, looked at between requests */

struct blk {
	struct sm_virtio base;
	uint64_t bytes;
	unsigned nsegments;
	struct sm_disk_segment *segments; /* descriptors and memory are our own */
	bool backed_now;                  /* the driver knows of an empty slot */
};

static struct blk *blk_of(struct sm_virtio *device)
{
	return (struct blk *)device;
}

static void blk_config(struct sm_virtio *device, uint8_t config[SM_VIRTIO_CONFIG_MAX])
{
	const uint64_t capacity = blk_of(device)->bytes / SM_BLK_SECTOR;
	const uint32_t size_max = SM_BLK_SIZE_MAX, seg_max = SM_BLK_SEG_MAX, blk_size = SM_BLK_SECTOR;
	memcpy(config, &capacity, 8);
	memcpy(config + 8, &size_max, 4);
	memcpy(config + 12, &seg_max, 4);
	memcpy(config + 20, &blk_size, 4);
}

/* The first segment that ends after `offset`, or nsegments. */
static unsigned segment_at(const struct blk *blk, uint64_t offset)
{
	unsigned low = 0, high = blk->nsegments;
	while (low < high) {
		unsigned middle = low + (high - low) / 2;
		if (blk->segments[middle].offset + blk->segments[middle].length > offset)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* Disk bytes [offset, offset + len) into the start of the chain's writable part. */
static int blk_read(struct blk *blk, const struct sm_chain *chain, uint64_t offset, uint64_t len)
{
	struct iovec iov[SM_QUEUE_NUM_MAX];
	unsigned index = segment_at(blk, offset);
	for (uint64_t done = 0; done < len;) {
		const struct sm_disk_segment *segment = index < blk->nsegments ? &blk->segments[index] : NULL;
		uint64_t at = offset + done;
		uint64_t take = len - done;
		if (!segment || at < segment->offset) { /* a gap */
			if (segment && take > segment->offset - at)
				take = segment->offset - at;
			if (sm_chain_zero(chain, done, take) != take)
				return -EFAULT;
			done += take;
			continue;
		}
		uint64_t within = at - segment->offset;
		if (take > segment->length - within)
			take = segment->length - within;
		if (segment->fd >= 0) {
			unsigned count = sm_chain_slice(chain, true, done, take, iov);
			int code = sm_blk_pread(segment->fd, iov, count, segment->fd_offset + within);
			if (code < 0)
				return code;
		} else {
			const uint8_t *memory = segment->memory;
			if ((memory ? sm_chain_write(chain, done, memory + within, take)
			            : sm_chain_zero(chain, done, take)) != take)
				return -EFAULT;
		}
		done += take;
		index++;
	}
	return 0;
}

/* Serve one request whose last writable byte takes the status.  *ret_data: bytes written before it. */
static uint8_t serve(struct blk *blk, const struct sm_chain *chain, uint64_t *ret_data)
{
	struct sm_blk_request request;
	uint8_t status = sm_blk_parse(chain, blk->bytes, &request);
	*ret_data = 0;
	if (status != SM_BLK_OK)
		return status;
	switch (request.type) {
	case SM_BLK_IN:
		if (blk_read(blk, chain, request.offset, request.bytes) < 0)
			return SM_BLK_IOERR;
		*ret_data = request.bytes;
		return SM_BLK_OK;
	case SM_BLK_FLUSH:
		return SM_BLK_OK; /* nothing is ever dirty */
	case SM_BLK_GET_ID:
		return sm_blk_serve_id(chain, "supermachine", ret_data);
	default:
		return SM_BLK_IOERR; /* what changes the disk, 5.2.6.2 */
	}
}

static bool blk_process(struct sm_virtio *device)
{
	struct blk *blk = blk_of(device);
	uint64_t bytes = 0;
	unsigned done = 0;
	for (; done < BATCH && bytes < BATCH_BYTES; done++) {
		const struct sm_chain *chain = sm_virtio_pop(device, 0);
		if (!chain)
			break;
		if (!chain->write_bytes) { /* nowhere to say so */
			sm_virtio_broken(device);
			break;
		}
		uint64_t data;
		uint8_t status = serve(blk, chain, &data);
		device->stats.bytes += data;
		if (status != SM_BLK_OK)
			device->stats.errors++;
		bytes += data;
		sm_virtio_push(device, 0, sm_blk_answer(chain, status, data));
	}
	sm_virtio_flush(device, 0);
	return done == BATCH || bytes >= BATCH_BYTES;
}

/* A restored machine must find the disk that it was saved with, whose content is named by digests above; only an empty
 * slot may have got one since. */
static void blk_save(struct sm_virtio *device, struct sm_buf *out)
{
	sm_put_u64(out, blk_of(device)->bytes);
}

static int blk_load(struct sm_virtio *device, struct sm_reader *in, struct sm_error *err)
{
	struct blk *blk = blk_of(device);
	uint64_t bytes = sm_get_u64(in);
	if (bytes && bytes != blk->bytes)
		return sm_error_set(err, EBADMSG, "block device: saved with a disk of %llu bytes, this one has %llu",
		                    (unsigned long long)bytes, (unsigned long long)blk->bytes);
	blk->backed_now = bytes != blk->bytes;
	return 0;
}

static void blk_restored(struct sm_virtio *device)
{
	if (blk_of(device)->backed_now)
		sm_virtio_config_changed(device);
	blk_of(device)->backed_now = false;
}

static void blk_close(struct sm_virtio *device)
{
	struct blk *blk = blk_of(device);
	for (unsigned i = 0; i < blk->nsegments; i++) {
		sm_fd_close(&blk->segments[i].fd);
		free((void *)(uintptr_t)blk->segments[i].memory);
	}
	free(blk->segments);
}

static const struct sm_virtio_ops blk_ops = {
	.id = SM_BLK_DEVICE_ID,
	.nqueues = 1,
	.features = SM_BLK_F_SIZE_MAX | SM_BLK_F_SEG_MAX | SM_BLK_F_RO | SM_BLK_F_BLK_SIZE | SM_BLK_F_FLUSH,
	.config = blk_config,
	.process = blk_process,
	.save = blk_save,
	.load = blk_load,
	.restored = blk_restored,
	.close = blk_close,
};

static int check_disk(const struct sm_disk *disk, struct sm_error *err)
{
	if (disk->bytes % SM_BLK_SECTOR || disk->bytes > INT64_MAX)
		return sm_error_set(err, EINVAL, "block device: a disk of %llu bytes is not whole sectors",
		                    (unsigned long long)disk->bytes);
	uint64_t end = 0;
	for (unsigned i = 0; i < disk->nsegments; i++) {
		const struct sm_disk_segment *segment = &disk->segments[i];
		if (segment->offset < end || segment->offset > disk->bytes || segment->length == 0 ||
		    segment->length > disk->bytes - segment->offset ||
		    (segment->fd >= 0 && segment->fd_offset > INT64_MAX - segment->length))
			return sm_error_set(err, EINVAL, "block device: segment %u does not fit the disk", i);
		end = segment->offset + segment->length;
	}
	return 0;
}

/* nsegments counts what blk_close has to release, so it grows with each copy. */
static int copy_disk(struct blk *blk, const struct sm_disk *disk)
{
	blk->bytes = disk->bytes;
	blk->segments = calloc(disk->nsegments ? disk->nsegments : 1, sizeof *blk->segments);
	if (!blk->segments)
		return -ENOMEM;
	for (unsigned i = 0; i < disk->nsegments; i++) {
		struct sm_disk_segment copy = disk->segments[i];
		if (copy.fd >= 0) {
			copy.memory = NULL;
			copy.fd = sm_fd_dup(copy.fd);
			if (copy.fd < 0)
				return copy.fd;
		} else if (copy.memory) {
			void *memory = malloc(copy.length);
			if (!memory)
				return -ENOMEM;
			copy.memory = memcpy(memory, copy.memory, copy.length);
		}
		blk->segments[blk->nsegments++] = copy;
	}
	return 0;
}

int sm_virtio_blk_new(const struct sm_virtio_env *env, const struct sm_disk *disk, struct sm_virtio **ret,
                      struct sm_error *err)
{
	*ret = NULL;
	int code = disk ? check_disk(disk, err) : 0;
	if (code < 0)
		return code;
	struct blk *blk;
	code = sm_virtio_create(sizeof *blk, env, &blk_ops, &blk, err);
	if (code < 0)
		return code;
	code = disk ? copy_disk(blk, disk) : 0;
	if (code < 0) {
		sm_virtio_free(&blk->base);
		return sm_error_sys(err, code, "block device: copy the disk");
	}
	*ret = &blk->base;
	return 0;
}
