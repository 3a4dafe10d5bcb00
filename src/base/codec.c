#include "base/codec.h"

#include <errno.h>
#include <isa-l/crc.h>
#include <string.h>

#define HEADER_BYTES  16
#define LENGTH_OFFSET 8
#define CRC_OFFSET    12

/* Not a tag any record has: what peek gives for bytes that cannot begin a record. */
#define NO_TAG UINT32_MAX

static void store(uint8_t *out, uint64_t value, size_t len)
{
	for (size_t i = 0; i < len; i++)
		out[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t load(const uint8_t *data, size_t len)
{
	uint64_t value = 0;
	for (size_t i = 0; i < len; i++)
		value |= (uint64_t)data[i] << (8 * i);
	return value;
}

/* zlib's crc32, many times as fast: records lie in records, and a restore checks each. */
static uint32_t checksum(const uint8_t *data, uint32_t len)
{
	return crc32_gzip_refl(0, len ? data : (const uint8_t *)"", len);
}

static void put(struct sm_buf *buf, uint64_t value, size_t len)
{
	uint8_t *room = sm_buf_extend(buf, len);
	if (room)
		store(room, value, len);
}

void sm_put_u8(struct sm_buf *buf, uint8_t value)
{
	put(buf, value, 1);
}

void sm_put_u16(struct sm_buf *buf, uint16_t value)
{
	put(buf, value, 2);
}

void sm_put_u32(struct sm_buf *buf, uint32_t value)
{
	put(buf, value, 4);
}

void sm_put_u64(struct sm_buf *buf, uint64_t value)
{
	put(buf, value, 8);
}

void sm_put_bytes(struct sm_buf *buf, const void *data, size_t len)
{
	if (len > UINT32_MAX && !buf->failed)
		buf->failed = -E2BIG;
	sm_put_u32(buf, (uint32_t)len);
	sm_buf_append(buf, data, len);
}

void sm_put_str(struct sm_buf *buf, const char *str)
{
	sm_put_bytes(buf, str, strlen(str));
}

size_t sm_record_begin(struct sm_buf *buf, uint32_t tag, uint16_t version)
{
	size_t record = buf->len;
	sm_put_u32(buf, tag);
	sm_put_u16(buf, version);
	sm_put_u16(buf, 0);
	sm_put_u64(buf, 0);
	return record;
}

void sm_record_end(struct sm_buf *buf, size_t record)
{
	if (buf->failed)
		return;
	size_t len = buf->len - record - HEADER_BYTES;
	if (len > UINT32_MAX) {
		buf->failed = -E2BIG;
		return;
	}
	uint8_t *header = buf->data + record;
	store(header + LENGTH_OFFSET, len, 4);
	store(header + CRC_OFFSET, checksum(header + HEADER_BYTES, (uint32_t)len), 4);
}

void sm_reader_init(struct sm_reader *reader, const void *data, size_t len)
{
	*reader = (struct sm_reader){ .data = data, .len = len };
}

/* The next len bytes, or NULL and failed. */
static const uint8_t *take(struct sm_reader *reader, size_t len)
{
	if (reader->failed || len > reader->len - reader->pos) {
		reader->failed = true;
		return NULL;
	}
	const uint8_t *data = reader->data + reader->pos;
	reader->pos += len;
	return data;
}

static uint64_t get(struct sm_reader *reader, size_t len)
{
	const uint8_t *data = take(reader, len);
	return data ? load(data, len) : 0;
}

uint8_t sm_get_u8(struct sm_reader *reader)
{
	return (uint8_t)get(reader, 1);
}

uint16_t sm_get_u16(struct sm_reader *reader)
{
	return (uint16_t)get(reader, 2);
}

uint32_t sm_get_u32(struct sm_reader *reader)
{
	return (uint32_t)get(reader, 4);
}

uint64_t sm_get_u64(struct sm_reader *reader)
{
	return get(reader, 8);
}

const void *sm_get_bytes(struct sm_reader *reader, size_t *ret_len)
{
	size_t len = sm_get_u32(reader);
	const void *data = take(reader, len);
	*ret_len = data ? len : 0;
	return data;
}

void sm_get_str(struct sm_reader *reader, char *out, size_t size)
{
	size_t len;
	const void *data = sm_get_bytes(reader, &len);
	if (!data || len >= size || memchr(data, 0, len)) {
		reader->failed = true;
		if (size)
			out[0] = 0;
		return;
	}
	memcpy(out, data, len);
	out[len] = 0;
}

void sm_get_exact(struct sm_reader *reader, void *out, size_t len)
{
	size_t stored;
	const void *data = sm_get_bytes(reader, &stored);
	if (!data || stored != len) {
		reader->failed = true;
		memset(out, 0, len);
		return;
	}
	memcpy(out, data, len);
}

uint32_t sm_record_peek(const struct sm_reader *reader)
{
	if (reader->failed)
		return NO_TAG;
	if (sm_reader_at_end(reader))
		return 0;
	if (reader->len - reader->pos < HEADER_BYTES)
		return NO_TAG;
	uint32_t tag = (uint32_t)load(reader->data + reader->pos, 4);
	return tag ? tag : NO_TAG; /* 0 would read as the end, and left-over bytes would go unseen */
}

/* A tag as it is written in the source, when it is one: for messages. */
static const char *tag_name(uint32_t tag, char out[11])
{
	static const char digits[] = "0123456789abcdef";
	bool readable = true;
	for (int i = 0; i < 4; i++) {
		char c = (char)(tag >> (8 * i));
		out[i] = c;
		readable = readable && c > ' ' && c < 127;
	}
	out[4] = 0;
	if (readable)
		return out;
	out[0] = '0';
	out[1] = 'x';
	for (int i = 0; i < 8; i++)
		out[2 + i] = digits[tag >> (28 - 4 * i) & 15];
	out[10] = 0;
	return out;
}

uint16_t sm_record_version(const struct sm_reader *reader)
{
	struct sm_reader copy = *reader;
	(void)sm_get_u32(&copy);
	return sm_get_u16(&copy);
}

int sm_record_open(struct sm_reader *reader, uint32_t tag, uint16_t version, const char *what,
                   struct sm_reader *ret_record, struct sm_error *err)
{
	char name[11], other[11];
	tag_name(tag, name);
	sm_reader_init(ret_record, NULL, 0);
	ret_record->failed = true;
	if (reader->failed || reader->len - reader->pos < HEADER_BYTES) {
		reader->failed = true;
		return sm_error_set(err, EBADMSG, "%s: record '%s' is cut short", what, name);
	}
	uint32_t found_tag = sm_get_u32(reader);
	uint16_t found_version = sm_get_u16(reader);
	uint16_t flags = sm_get_u16(reader);
	uint32_t len = sm_get_u32(reader);
	uint32_t crc = sm_get_u32(reader);
	const char *fault = NULL;
	if (found_tag != tag) {
		reader->failed = true;
		return sm_error_set(err, EBADMSG, "%s: record '%s' expected, found '%s'", what, name,
		                    tag_name(found_tag, other));
	}
	if (found_version != version) {
		reader->failed = true;
		return sm_error_set(err, EBADMSG, "%s: record '%s' has version %u, this build reads %u", what, name,
		                    found_version, version);
	}
	if (flags) {
		reader->failed = true;
		return sm_error_set(err, EBADMSG, "%s: record '%s' has feature flags 0x%x, this build knows none", what,
		                    name, flags);
	}
	const uint8_t *payload = take(reader, len);
	if (!payload)
		fault = "is cut short";
	else if (!reader->sound && checksum(payload, len) != crc)
		fault = "has a wrong checksum";
	if (fault) {
		reader->failed = true;
		return sm_error_set(err, EBADMSG, "%s: record '%s' %s", what, name, fault);
	}
	sm_reader_init(ret_record, payload, len);
	ret_record->sound = true;
	return 0;
}

int sm_record_close(const struct sm_reader *record, const char *what, struct sm_error *err)
{
	if (record->failed)
		return sm_error_set(err, EBADMSG, "%s: record is too short or holds a bad value", what);
	if (!sm_reader_at_end(record))
		return sm_error_set(err, EBADMSG, "%s: record has %zu bytes left over", what,
		                    record->len - record->pos);
	return 0;
}
