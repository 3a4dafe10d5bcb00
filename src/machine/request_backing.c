/* What is behind slots, as bytes. */
#include "machine/request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum segment_source { SEGMENT_ZERO, SEGMENT_MEMORY, SEGMENT_FILE };

#define SEGMENTS_MAX 1024u

void sm_request_put_disk(struct sm_message *request, const struct sm_disk *disk)
{
	struct sm_buf *body = &request->body;
	sm_put_u64(body, disk->bytes);
	sm_put_u32(body, disk->nsegments);
	for (unsigned i = 0; i < disk->nsegments; i++) {
		const struct sm_disk_segment *segment = &disk->segments[i];
		sm_put_u64(body, segment->offset);
		sm_put_u64(body, segment->length);
		if (segment->fd >= 0) {
			sm_put_u8(body, SEGMENT_FILE);
			sm_message_put_fd(request, segment->fd);
			sm_put_u64(body, segment->fd_offset);
		} else if (segment->memory) {
			sm_put_u8(body, SEGMENT_MEMORY);
			sm_put_bytes(body, segment->memory, segment->length);
		} else {
			sm_put_u8(body, SEGMENT_ZERO);
		}
	}
}

int sm_request_get_disk(struct sm_reader *in, const struct sm_message *request, struct sm_disk *ret_disk)
{
	ret_disk->bytes = sm_get_u64(in);
	uint32_t count = sm_get_u32(in);
	if (in->failed || count > SEGMENTS_MAX)
		return -EBADMSG;
	struct sm_disk_segment *segments = calloc(count ? count : 1, sizeof *segments);
	if (!segments)
		return -ENOMEM;
	ret_disk->nsegments = count;
	ret_disk->segments = segments;
	for (uint32_t i = 0; i < count; i++) {
		struct sm_disk_segment *segment = &segments[i];
		segment->offset = sm_get_u64(in);
		segment->length = sm_get_u64(in);
		segment->fd = -1;
		size_t len;
		switch (sm_get_u8(in)) {
		case SEGMENT_FILE:
			segment->fd = sm_message_get_fd(in, request);
			segment->fd_offset = sm_get_u64(in);
			break;
		case SEGMENT_MEMORY:
			segment->memory = sm_get_bytes(in, &len);
			if (segment->memory && len != segment->length)
				in->failed = true;
			break;
		case SEGMENT_ZERO:
			break;
		default:
			in->failed = true;
		}
	}
	return in->failed ? -EBADMSG : 0;
}

void sm_request_put_volume(struct sm_message *request, const struct sm_volume *volume)
{
	sm_put_u32(&request->body, volume->index);
	sm_message_put_fd(request, volume->fd);
	sm_message_put_fd(request, volume->overlay_fd);
	sm_put_u8(&request->body, volume->readonly);
	sm_put_u8(&request->body, volume->as_writable);
	sm_put_u64(&request->body, volume->bytes);
}

int sm_request_get_volume(struct sm_reader *in, const struct sm_message *request, struct sm_volume *ret)
{
	ret->index = sm_get_u32(in);
	ret->fd = sm_message_get_fd(in, request);
	ret->overlay_fd = sm_message_get_fd(in, request);
	ret->readonly = sm_get_u8(in) != 0;
	ret->as_writable = sm_get_u8(in) != 0;
	ret->bytes = sm_get_u64(in);
	return in->failed ? -EBADMSG : 0;
}

/* ---- mounts ------------------------------------------------------------------------------------------------- */

/* A text that may be absent. */
static void put_text(struct sm_buf *body, const char *text)
{
	sm_put_u8(body, text != NULL);
	sm_put_str(body, text ? text : "");
}

static const char *get_text(struct sm_reader *in, char *out, size_t size)
{
	bool there = sm_get_u8(in) != 0;
	sm_get_str(in, out, size);
	return there ? out : NULL;
}

void sm_request_put_mount(struct sm_message *request, const struct sm_mount *mount)
{
	struct sm_buf *body = &request->body;
	put_text(body, mount->tag);
	sm_message_put_fd(request, mount->root_fd);
	put_text(body, mount->only);
	sm_put_u8(body, mount->readonly);
	sm_put_u8(body, mount->writeback);
	sm_put_u8(body, mount->host_locks);
	sm_put_u8(body, mount->dax);
	sm_put_u8(body, (uint8_t)mount->symlinks);
	sm_put_u8(body, (uint8_t)mount->cache);
	sm_put_u8(body, (uint8_t)mount->owners);
	sm_put_bytes(body, mount->ranges, mount->nranges * sizeof *mount->ranges);
	put_text(body, mount->xattrs);
}

int sm_request_get_mount(struct sm_reader *in, const struct sm_message *request, struct sm_request_backing *ret)
{
	struct sm_mount *mount = &ret->mount;
	mount->tag = get_text(in, ret->tag, sizeof ret->tag);
	mount->root_fd = sm_message_get_fd(in, request);
	mount->only = get_text(in, ret->only, sizeof ret->only);
	mount->readonly = sm_get_u8(in) != 0;
	mount->writeback = sm_get_u8(in) != 0;
	mount->host_locks = sm_get_u8(in) != 0;
	mount->dax = sm_get_u8(in) != 0;
	mount->symlinks = sm_get_u8(in);
	mount->cache = sm_get_u8(in);
	mount->owners = sm_get_u8(in);
	size_t len = 0;
	const void *ranges = sm_get_bytes(in, &len);
	if (!in->failed && len <= sizeof mount->ranges && len % sizeof *mount->ranges == 0) {
		mount->nranges = (unsigned)(len / sizeof *mount->ranges);
		memcpy(mount->ranges, ranges, len);
	} else {
		in->failed = true;
	}
	mount->xattrs = get_text(in, ret->xattrs, sizeof ret->xattrs);
	return in->failed ? -EBADMSG : 0;
}

/* ---- either ------------------------------------------------------------------------------------------------- */

enum backing { BACKING_NONE, BACKING_DISK, BACKING_VOLUME, BACKING_MOUNT };

void sm_request_put_backing(struct sm_message *request, const struct sm_backing *backing)
{
	sm_put_u8(&request->body, backing->disk     ? BACKING_DISK
	                          : backing->volume ? BACKING_VOLUME
	                          : backing->mount  ? BACKING_MOUNT
	                                            : BACKING_NONE);
	if (backing->disk)
		sm_request_put_disk(request, backing->disk);
	else if (backing->volume)
		sm_request_put_volume(request, backing->volume);
	else if (backing->mount)
		sm_request_put_mount(request, backing->mount);
}

int sm_request_get_backing(struct sm_reader *in, const struct sm_message *request, struct sm_request_backing *ret,
                           struct sm_backing *ret_backing)
{
	int code;
	*ret = (struct sm_request_backing){ 0 };
	*ret_backing = (struct sm_backing){ 0 };
	switch (sm_get_u8(in)) {
	case BACKING_DISK:
		code = sm_request_get_disk(in, request, &ret->disk);
		ret_backing->disk = &ret->disk;
		break;
	case BACKING_VOLUME:
		code = sm_request_get_volume(in, request, &ret->volume);
		ret_backing->volume = &ret->volume;
		break;
	case BACKING_MOUNT:
		code = sm_request_get_mount(in, request, ret);
		ret_backing->mount = &ret->mount;
		break;
	default:
		code = -EBADMSG;
	}
	if (code < 0)
		sm_request_backing_done(ret);
	return code;
}

void sm_request_backing_done(struct sm_request_backing *backing)
{
	free((void *)(uintptr_t)backing->disk.segments);
	backing->disk.segments = NULL;
}
