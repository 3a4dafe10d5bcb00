/* A read-only block device (virtio 1.2, 5.2) over a list of segments. */
#include "virtio/device.h"

#include "base/fd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define DEVICE_ID   2u
#define SECTOR      512u
#define HEADER      16u
#define SERIAL      20u
#define SEG_MAX     126u         /* data segments of a request: with header and status they fit the queue */
#define SIZE_MAX_   (256u << 10) /* bytes of a segment; both together bound a request */
#define BATCH       64u          /* requests a wake-up */
#define BATCH_BYTES (4u << 20)   /* likewise, looked at between requests */

#define F_SIZE_MAX (UINT64_C(1) << 1)
#define F_SEG_MAX  (UINT64_C(1) << 2)
#define F_RO       (UINT64_C(1) << 5)
#define F_BLK_SIZE (UINT64_C(1) << 6)
#define F_FLUSH    (UINT64_C(1) << 9)

enum { TYPE_IN = 0, TYPE_FLUSH = 4, TYPE_GET_ID = 8 };
enum { STATUS_OK = 0, STATUS_IOERR = 1, STATUS_UNSUPPORTED = 2 };

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
	const uint64_t capacity = blk_of(device)->bytes / SECTOR;
	const uint32_t size_max = SIZE_MAX_, seg_max = SEG_MAX, blk_size = SECTOR;
	memcpy(config, &capacity, 8);
	memcpy(config + 8, &size_max, 4);
	memcpy(config + 12, &seg_max, 4);
	memcpy(config + 20, &blk_size, 4);
}

/* Read a whole run of one file into an iovec, which is used up. */
static int read_file(int fd, struct iovec *iov, unsigned count, uint64_t offset)
{
	while (count) {
		ssize_t got = preadv(fd, iov, (int)count, (off_t)offset);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return -ENODATA; /* shorter than it was when the machine was built */
		offset += (uint64_t)got;
		size_t left = (size_t)got;
		while (count && left >= iov->iov_len) {
			left -= iov->iov_len;
			iov++;
			count--;
		}
		if (count) {
			iov->iov_base = (uint8_t *)iov->iov_base + left;
			iov->iov_len -= left;
		}
	}
	return 0;
}

static void copy_memory(const struct iovec *iov, unsigned count, const uint8_t *memory)
{
	for (unsigned i = 0; i < count; i++) {
		if (memory) {
			memcpy(iov[i].iov_base, memory, iov[i].iov_len);
			memory += iov[i].iov_len;
		} else {
			memset(iov[i].iov_base, 0, iov[i].iov_len);
		}
	}
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
			copy_memory(iov, sm_chain_slice(chain, true, done, take, iov), NULL);
			done += take;
			continue;
		}
		uint64_t within = at - segment->offset;
		if (take > segment->length - within)
			take = segment->length - within;
		unsigned count = sm_chain_slice(chain, true, done, take, iov);
		if (segment->fd >= 0) {
			int code = read_file(segment->fd, iov, count, segment->fd_offset + within);
			if (code < 0)
				return code;
		} else {
			copy_memory(iov, count, segment->memory ? (const uint8_t *)segment->memory + within : NULL);
		}
		done += take;
		index++;
	}
	return 0;
}

static bool too_large(const struct sm_chain *chain)
{
	if (chain->nwrite > SEG_MAX + 1)
		return true;
	for (unsigned i = 0; i < chain->nwrite; i++)
		if (chain->iov[chain->nread + i].iov_len > SIZE_MAX_)
			return true;
	return false;
}

/* Serve one request whose last writable byte takes the status.  *ret_data: bytes written before it. */
static uint8_t serve(struct blk *blk, const struct sm_chain *chain, uint64_t *ret_data)
{
	struct {
		uint32_t type, reserved;
		uint64_t sector;
	} header;
	_Static_assert(sizeof header == HEADER, "virtio_blk_req");
	const uint64_t room = chain->write_bytes - 1;
	*ret_data = 0;
	if (sm_chain_read(chain, 0, &header, sizeof header) != sizeof header)
		return STATUS_IOERR;
	switch (header.type) {
	case TYPE_IN:
		if (room % SECTOR || too_large(chain))
			return STATUS_IOERR;
		if (header.sector > blk->bytes / SECTOR || room > blk->bytes - header.sector * SECTOR)
			return STATUS_IOERR;
		if (blk_read(blk, chain, header.sector * SECTOR, room) < 0)
			return STATUS_IOERR;
		*ret_data = room;
		return STATUS_OK;
	case TYPE_FLUSH:
		return STATUS_OK; /* nothing is ever dirty */
	case TYPE_GET_ID: {
		static const char serial[SERIAL] = "supermachine";
		if (room < sizeof serial)
			return STATUS_IOERR;
		*ret_data = sm_chain_write(chain, 0, serial, sizeof serial);
		return STATUS_OK;
	}
	case 1: /* OUT, and discard and write zeroes, which change the disk: 5.2.6.2 */
	case 11:
	case 13:
		return STATUS_IOERR;
	default:
		return STATUS_UNSUPPORTED;
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
		sm_chain_write(chain, chain->write_bytes - 1, &status, 1);
		device->stats.bytes += data;
		if (status != STATUS_OK)
			device->stats.errors++;
		bytes += data;
		/* What is written without a gap from the start on, 2.7.8.2. */
		sm_virtio_push(device, 0, (uint32_t)(data + (data == chain->write_bytes - 1)));
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
	.id = DEVICE_ID,
	.nqueues = 1,
	.features = F_SIZE_MAX | F_SEG_MAX | F_RO | F_BLK_SIZE | F_FLUSH,
	.config = blk_config,
	.process = blk_process,
	.save = blk_save,
	.load = blk_load,
	.restored = blk_restored,
	.close = blk_close,
};

static int check_disk(const struct sm_disk *disk, struct sm_error *err)
{
	if (disk->bytes % SECTOR || disk->bytes > INT64_MAX)
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
