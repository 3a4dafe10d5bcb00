#include "device/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 64

int sm_ring_init(struct sm_ring *ring, size_t capacity, struct sm_error *err)
{
	if (capacity == 0)
		capacity = SM_RING_DEFAULT_BYTES;
	*ring = (struct sm_ring){ .capacity = capacity, .data = malloc(capacity) };
	if (!ring->data)
		return sm_error_set(err, ENOMEM, "console ring: out of memory");
	int code = pthread_mutex_init(&ring->lock, NULL);
	if (code) {
		free(ring->data);
		ring->data = NULL;
		return sm_error_sys(err, code, "console ring");
	}
	return 0;
}

void sm_ring_done(struct sm_ring *ring)
{
	if (!ring->data)
		return;
	free(ring->data);
	ring->data = NULL;
	pthread_mutex_destroy(&ring->lock);
}

/* The oldest position that the ring still holds. */
static uint64_t start_of(const struct sm_ring *ring)
{
	return ring->end > ring->capacity ? ring->end - ring->capacity : 0;
}

/* At most two pieces: up to the end of the array, and from its start. */
static void copy_in(struct sm_ring *ring, uint64_t position, const uint8_t *data, size_t len)
{
	size_t at = position % ring->capacity, first = ring->capacity - at < len ? ring->capacity - at : len;
	memcpy(ring->data + at, data, first);
	memcpy(ring->data, data + first, len - first);
}

static void copy_out(const struct sm_ring *ring, uint64_t position, void *out, size_t len)
{
	size_t at = position % ring->capacity, first = ring->capacity - at < len ? ring->capacity - at : len;
	memcpy(out, ring->data + at, first);
	memcpy((uint8_t *)out + first, ring->data, len - first);
}

void sm_ring_write(struct sm_ring *ring, const void *data, size_t len)
{
	size_t kept = len < ring->capacity ? len : ring->capacity;
	pthread_mutex_lock(&ring->lock);
	copy_in(ring, ring->end + (len - kept), (const uint8_t *)data + (len - kept), kept);
	ring->end += len;
	pthread_mutex_unlock(&ring->lock);
}

uint64_t sm_ring_end(struct sm_ring *ring)
{
	pthread_mutex_lock(&ring->lock);
	uint64_t end = ring->end;
	pthread_mutex_unlock(&ring->lock);
	return end;
}

void sm_ring_clear(struct sm_ring *ring)
{
	pthread_mutex_lock(&ring->lock);
	ring->end = 0;
	pthread_mutex_unlock(&ring->lock);
}

int sm_ring_read(struct sm_ring *ring, uint64_t *cursor, struct sm_buf *out, uint64_t *ret_lost)
{
	pthread_mutex_lock(&ring->lock);
	uint64_t from = *cursor < ring->end ? *cursor : ring->end, start = start_of(ring), lost = 0;
	if (from < start) {
		lost = start - from;
		from = start;
	}
	size_t len = (size_t)(ring->end - from);
	void *room = sm_buf_extend(out, len);
	if (room) {
		copy_out(ring, from, room, len);
		*cursor = ring->end;
		if (ret_lost)
			*ret_lost = lost;
	}
	pthread_mutex_unlock(&ring->lock);
	return room ? 0 : out->failed;
}

size_t sm_ring_tail(struct sm_ring *ring, char *out, size_t size)
{
	if (size == 0)
		return 0;
	pthread_mutex_lock(&ring->lock);
	uint64_t held = ring->end - start_of(ring);
	size_t len = held < size - 1 ? (size_t)held : size - 1;
	copy_out(ring, ring->end - len, out, len);
	pthread_mutex_unlock(&ring->lock);
	out[len] = 0;
	return len;
}

static uint8_t byte_at(const struct sm_ring *ring, uint64_t position)
{
	return ring->data[position % ring->capacity];
}

static bool is_at(const struct sm_ring *ring, uint64_t position, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (byte_at(ring, position + i) != (uint8_t)text[i])
			return false;
	return true;
}

bool sm_ring_last_line(struct sm_ring *ring, const char *text, char *out, size_t size)
{
	size_t len = strlen(text);
	bool found = false;
	if (size == 0)
		return false;
	out[0] = 0;
	if (len == 0 || len > TEXT_MAX)
		return false;
	pthread_mutex_lock(&ring->lock);
	uint64_t start = start_of(ring);
	for (uint64_t at = ring->end; at >= start + len && !found; at--) {
		uint64_t position = at - len;
		if (!is_at(ring, position, text, len))
			continue;
		found = true;
		size_t used = 0;
		for (; position < ring->end && used < size - 1; position++) {
			uint8_t byte = byte_at(ring, position);
			if (byte == '\n' || byte == '\r')
				break;
			out[used++] = (char)byte;
		}
		out[used] = 0;
	}
	pthread_mutex_unlock(&ring->lock);
	return found;
}
