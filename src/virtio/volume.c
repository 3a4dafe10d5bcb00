/* A writable block device (virtio 1.2, 5.2) over a file, with or without an overlay.  Its requests block, so they are
 * served by threads of the device, many at once. */
#include "virtio/blk_request.h"
#include "virtio/device.h"
#include "virtio/medium.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_WRITEBACK 32u
#define RANGES_MAX       16u        /* of a discard, or of zeros to write */
#define RANGE_SECTORS    (1u << 21) /* of one of them */
#define RANGE_UNMAP      1u
#define BLOCK_EXP        3 /* an overlay's block, and a file system's: 8 sectors */

/* struct virtio_blk_discard_write_zeroes */
struct range {
	uint64_t sector;
	uint32_t sectors;
	uint32_t flags;
};

struct volume {
	struct sm_virtio base;
	struct sm_medium medium; /* changes only while no request is served */
	char serial[SM_BLK_SERIAL + 1];
	_Atomic uint8_t writeback; /* as the driver wants it */
	_Atomic bool durable;      /* each write is to be on the disk before its answer */
	bool backed_now;           /* the driver knows of an empty slot */
	bool late;                 /* backed after it was built: that is gone when the machine is reset */
	int emptied;               /* what came of that for the overlay */
};

static struct volume *volume_of(struct sm_virtio *device)
{
	return (struct volume *)device;
}

/* 5.2.5: struct virtio_blk_config */
static void volume_config(struct sm_virtio *device, uint8_t config[SM_VIRTIO_CONFIG_MAX])
{
	struct volume *volume = volume_of(device);
	const struct {
		uint64_t capacity;
		uint32_t size_max, seg_max;
		uint16_t cylinders;
		uint8_t heads, sectors;
		uint32_t blk_size;
		uint8_t physical_block_exp, alignment_offset;
		uint16_t min_io_size;
		uint32_t opt_io_size;
		uint8_t writeback, unused;
		uint16_t num_queues;
		uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
		uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
		uint8_t write_zeroes_may_unmap, unused1[3];
	} values = {
		.capacity = volume->medium.bytes / SM_BLK_SECTOR,
		.size_max = SM_BLK_SIZE_MAX,
		.seg_max = SM_BLK_SEG_MAX,
		.blk_size = SM_BLK_SECTOR,
		.physical_block_exp = BLOCK_EXP,
		.min_io_size = 1 << BLOCK_EXP,
		.writeback = volume->writeback,
		.max_discard_sectors = RANGE_SECTORS,
		.max_discard_seg = RANGES_MAX,
		.discard_sector_alignment = 1 << BLOCK_EXP,
		.max_write_zeroes_sectors = RANGE_SECTORS,
		.max_write_zeroes_seg = RANGES_MAX,
		.write_zeroes_may_unmap = 1,
	};
	_Static_assert(sizeof values <= SM_VIRTIO_CONFIG_MAX, "virtio_blk_config");
	memcpy(config, &values, sizeof values);
}

/* Without flushes, or where the driver wants no cache, what is answered is on the disk: 5.2.6.2. */
static void settle_cache(struct volume *volume)
{
	const uint64_t features = volume->base.driver_features;
	volume->durable = features & SM_BLK_F_CONFIG_WCE ? !volume->writeback : !(features & SM_BLK_F_FLUSH);
}

static void volume_config_write(struct sm_virtio *device, unsigned offset, const uint8_t *data, unsigned size)
{
	struct volume *volume = volume_of(device);
	if (offset != CONFIG_WRITEBACK || size != 1 || !(device->driver_features & SM_BLK_F_CONFIG_WCE))
		return;
	volume->writeback = data[0] != 0;
	settle_cache(volume);
}

static void volume_start(struct sm_virtio *device)
{
	const uint64_t features = device->driver_features;
	if ((features & SM_BLK_F_CONFIG_WCE) && !(features & SM_BLK_F_FLUSH))
		volume_of(device)->writeback = 0; /* 5.2.5.2 */
	settle_cache(volume_of(device));
}

/* ---- requests ----------------------------------------------------------------------------------------------- */

static int change_ranges(struct volume *volume, bool discard, const struct range *ranges, unsigned count)
{
	int code = 0;
	for (unsigned i = 0; i < count && code >= 0; i++) {
		uint64_t offset = ranges[i].sector * SM_BLK_SECTOR;
		uint64_t bytes = (uint64_t)ranges[i].sectors * SM_BLK_SECTOR;
		code = discard ? sm_medium_discard(&volume->medium, offset, bytes)
		               : sm_medium_zero(&volume->medium, offset, bytes, ranges[i].flags & RANGE_UNMAP);
	}
	return code;
}

/* All of them are looked at before the first has an effect. */
static uint8_t check_ranges(const struct volume *volume, bool discard, const struct range *ranges, unsigned count)
{
	const uint64_t sectors = volume->medium.bytes / SM_BLK_SECTOR;
	for (unsigned i = 0; i < count; i++)
		if (ranges[i].flags & ~(discard ? 0 : RANGE_UNMAP))
			return SM_BLK_UNSUPPORTED;
	for (unsigned i = 0; i < count; i++)
		if (ranges[i].sectors > RANGE_SECTORS || ranges[i].sector > sectors ||
		    ranges[i].sectors > sectors - ranges[i].sector)
			return SM_BLK_IOERR;
	return SM_BLK_OK;
}

static int finish_write(struct volume *volume, int code)
{
	return code >= 0 && volume->durable ? sm_medium_flush(&volume->medium) : code;
}

static uint8_t serve_ranges(struct volume *volume, const struct sm_chain *chain, const struct sm_blk_request *request,
                            int *ret_code)
{
	struct range ranges[RANGES_MAX];
	const bool discard = request->type == SM_BLK_DISCARD;
	if (request->bytes == 0 || request->bytes % sizeof *ranges || request->bytes > sizeof ranges)
		return SM_BLK_IOERR;
	if (sm_chain_read(chain, SM_BLK_HEADER, ranges, (size_t)request->bytes) != request->bytes)
		return SM_BLK_IOERR;
	unsigned count = (unsigned)(request->bytes / sizeof *ranges);
	uint8_t status = check_ranges(volume, discard, ranges, count);
	if (status == SM_BLK_OK)
		*ret_code = finish_write(volume, change_ranges(volume, discard, ranges, count));
	return status;
}

/* *ret_code: what the host made of it. */
static uint8_t serve(struct volume *volume, const struct sm_chain *chain, uint64_t *ret_data, uint64_t *ret_bytes,
                     int *ret_code)
{
	struct sm_blk_request request;
	uint8_t status = sm_blk_parse(chain, volume->medium.bytes, &request);
	if (status != SM_BLK_OK)
		return status;
	if (volume->medium.readonly &&
	    (request.type == SM_BLK_OUT || request.type == SM_BLK_DISCARD || request.type == SM_BLK_WRITE_ZEROES))
		return SM_BLK_IOERR;
	switch (request.type) {
	case SM_BLK_IN:
		*ret_code = sm_medium_read(&volume->medium, chain, request.offset, request.bytes);
		*ret_data = *ret_code < 0 ? 0 : request.bytes;
		*ret_bytes = request.bytes;
		return SM_BLK_OK;
	case SM_BLK_OUT:
		*ret_code = finish_write(
		    volume, sm_medium_write(&volume->medium, chain, SM_BLK_HEADER, request.offset, request.bytes));
		*ret_bytes = request.bytes;
		return SM_BLK_OK;
	case SM_BLK_FLUSH:
		*ret_code = sm_medium_flush(&volume->medium);
		return SM_BLK_OK;
	case SM_BLK_GET_ID:
		return sm_blk_serve_id(chain, volume->serial, ret_data);
	default:
		return serve_ranges(volume, chain, &request, ret_code);
	}
}

static int volume_serve(struct sm_virtio *device, unsigned queue, const struct sm_chain *chain,
                        struct sm_virtio_served *ret)
{
	(void)queue;
	if (!chain->write_bytes)
		return -EPROTO; /* nowhere to say so */
	uint64_t data = 0;
	int code = 0;
	uint8_t status = serve(volume_of(device), chain, &data, &ret->bytes, &code);
	if (code < 0)
		status = SM_BLK_IOERR;
	ret->full = code == -ENOSPC || code == -EDQUOT || code == -EFBIG;
	ret->failed = status != SM_BLK_OK;
	if (ret->failed)
		ret->bytes = 0;
	ret->written = sm_blk_answer(chain, status, data);
	return 0;
}

/* ---- life --------------------------------------------------------------------------------------------------- */

static void volume_reset(struct sm_virtio *device)
{
	struct volume *volume = volume_of(device);
	volume->writeback = 1;
	volume->durable = false;
}

/* What clones write is their own, and what a slot was given later is not of the machine. */
static void volume_forget(struct sm_virtio *device)
{
	struct volume *volume = volume_of(device);
	if (volume->late)
		sm_medium_done(&volume->medium);
	volume->late = volume->backed_now = false;
	volume->emptied = sm_medium_empty(&volume->medium); /* whether it can go on is asked at the load */
}

static void volume_save(struct sm_virtio *device, struct sm_buf *out)
{
	sm_put_u64(out, volume_of(device)->medium.bytes);
	sm_put_u8(out, volume_of(device)->writeback);
}

/* As with a read-only disk: only an empty slot may have got one since. */
static int volume_load(struct sm_virtio *device, struct sm_reader *in, struct sm_error *err)
{
	struct volume *volume = volume_of(device);
	uint64_t bytes = sm_get_u64(in);
	uint8_t writeback = sm_get_u8(in);
	if (bytes && bytes != volume->medium.bytes)
		return sm_error_set(err, EBADMSG, "volume: saved with %llu bytes, this one has %llu",
		                    (unsigned long long)bytes, (unsigned long long)volume->medium.bytes);
	if (writeback > 1)
		return sm_error_set(err, EBADMSG, "volume: cache mode %u", writeback);
	if (volume->emptied < 0)
		return sm_error_sys(err, volume->emptied, "volume: empty the overlay");
	volume->writeback = writeback;
	settle_cache(volume);
	volume->backed_now = bytes != volume->medium.bytes;
	return 0;
}

static void volume_restored(struct sm_virtio *device)
{
	if (volume_of(device)->backed_now)
		sm_virtio_config_changed(device);
	volume_of(device)->backed_now = false;
}

static int check_volume(const struct sm_volume *volume, struct sm_error *err)
{
	if (volume->bytes == 0 || volume->bytes % SM_VOLUME_SECTOR || volume->bytes > INT64_MAX)
		return sm_error_set(err, EINVAL, "volume %u: %llu bytes are not whole sectors", volume->index,
		                    (unsigned long long)volume->bytes);
	return 0;
}

static int volume_back(struct sm_virtio *device, const struct sm_backing *backing, struct sm_error *err)
{
	struct volume *volume = volume_of(device);
	struct sm_medium medium;
	if (!backing->volume)
		return sm_error_set(err, ENOTSUP, "%s: a volume is needed", volume->serial);
	if (volume->medium.bytes)
		return sm_error_set(err, EBUSY, "%s: there is one already", volume->serial);
	int code = check_volume(backing->volume, err);
	if (code < 0)
		return code;
	code = sm_medium_init(&medium, backing->volume);
	if (code < 0) {
		sm_medium_done(&medium);
		return sm_error_sys(err, code, "%s", volume->serial);
	}
	volume->medium = medium;
	volume->late = true;
	sm_virtio_config_changed(device);
	return 0;
}

static void volume_close(struct sm_virtio *device)
{
	sm_medium_done(&volume_of(device)->medium);
}

#define FEATURES (SM_BLK_F_SIZE_MAX | SM_BLK_F_SEG_MAX | SM_BLK_F_BLK_SIZE | SM_BLK_F_FLUSH | SM_BLK_F_TOPOLOGY)
#define OPS \
	.id = SM_BLK_DEVICE_ID, .nqueues = 1, .config = volume_config, .config_write = volume_config_write, \
	.start = volume_start, .serve = volume_serve, .reset = volume_reset, .forget = volume_forget, \
	.save = volume_save, .load = volume_load, .restored = volume_restored, .back = volume_back, \
	.close = volume_close

static const struct sm_virtio_ops writable_ops = {
	OPS,
	.features = FEATURES | SM_BLK_F_CONFIG_WCE | SM_BLK_F_DISCARD | SM_BLK_F_WRITE_ZEROES,
};
static const struct sm_virtio_ops readonly_ops = { OPS, .features = FEATURES | SM_BLK_F_RO };

int sm_virtio_volume_new(const struct sm_virtio_env *env, unsigned index, const struct sm_volume *volume,
                         struct sm_virtio **ret, struct sm_error *err)
{
	*ret = NULL;
	int code = volume ? check_volume(volume, err) : 0;
	if (code < 0)
		return code;
	struct volume *device;
	code = sm_virtio_create(sizeof *device, env,
	                        volume && volume->readonly && !volume->as_writable ? &readonly_ops : &writable_ops,
	                        &device, err);
	if (code < 0)
		return code;
	snprintf(device->serial, sizeof device->serial, "sm-volume-%u", index);
	volume_reset(&device->base);
	code = sm_medium_init(&device->medium, volume);
	if (code < 0) {
		sm_virtio_free(&device->base);
		return sm_error_sys(err, code, "volume %u", index);
	}
	*ret = &device->base;
	return 0;
}

static bool is_volume(const struct sm_virtio *device)
{
	return device->ops == &writable_ops || device->ops == &readonly_ops;
}

/* Nothing is put behind a slot, or taken away, while somebody copies: both are up to the control thread. */
static struct sm_medium *medium_of(struct sm_virtio *device)
{
	return is_volume(device) && volume_of(device)->medium.bytes ? &volume_of(device)->medium : NULL;
}

static int say(int code, const char *what, struct sm_error *err)
{
	return code < 0 ? sm_error_sys(err, code, "%s", what) : 0;
}

int sm_virtio_volume_track(struct sm_virtio *device, struct sm_error *err)
{
	struct sm_medium *medium = medium_of(device);
	return say(medium ? sm_medium_track(medium) : -ENODEV, "track changes", err);
}

int sm_virtio_volume_copy(struct sm_virtio *device, int fd, uint64_t *offset, uint64_t max_bytes, struct sm_error *err)
{
	struct sm_medium *medium = medium_of(device);
	return say(medium ? sm_medium_copy(medium, fd, offset, max_bytes) : -ENODEV, "copy", err);
}

int sm_virtio_volume_finish(struct sm_virtio *device, int fd, uint64_t *ret_bytes, struct sm_error *err)
{
	struct sm_medium *medium = medium_of(device);
	return say(medium ? sm_medium_finish(medium, fd, ret_bytes) : -ENODEV, "copy what has changed", err);
}

void sm_virtio_volume_untrack(struct sm_virtio *device)
{
	struct sm_medium *medium = medium_of(device);
	if (medium)
		sm_medium_untrack(medium);
}

bool sm_virtio_volume_get(struct sm_virtio *device, struct sm_volume *ret)
{
	if (!is_volume(device))
		return false;
	pthread_mutex_lock(&device->lock);
	const struct sm_medium *medium = &volume_of(device)->medium;
	*ret = (struct sm_volume){
		.fd = -1,
		.overlay_fd = -1,
		.readonly = medium->readonly,
		.as_writable = medium->readonly && device->ops == &writable_ops,
		.bytes = medium->bytes,
	};
	pthread_mutex_unlock(&device->lock);
	return ret->bytes > 0;
}
