/* Tagged, versioned, CRC-checked records: what plans, device state and control messages are made of.
 *
 * A record is: tag u32, version u16, feature flags u16 (none yet: 0), length u32, crc32 u32 (zlib's, of the payload),
 * payload.  All integers are little-endian.  Records nest as payload.  A reader that meets another tag or version,
 * a short payload, a wrong CRC or left-over bytes refuses the record; nothing is ever skipped. */
#ifndef SM_BASE_CODEC_H
#define SM_BASE_CODEC_H

#include "base/buf.h"
#include "base/error.h"

#define SM_TAG(a, b, c, d) ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)

/* Writing.  Appends go to the buffer; its sticky failure is the only error. */
void sm_put_u8(struct sm_buf *buf, uint8_t value);
void sm_put_u16(struct sm_buf *buf, uint16_t value);
void sm_put_u32(struct sm_buf *buf, uint32_t value);
void sm_put_u64(struct sm_buf *buf, uint64_t value);
void sm_put_bytes(struct sm_buf *buf, const void *data, size_t len); /* u32 length, bytes */
void sm_put_str(struct sm_buf *buf, const char *str);                /* as bytes, without the NUL */

/* Begin a record; returns its offset, to be given to sm_record_end, which fills in length and CRC. */
size_t sm_record_begin(struct sm_buf *buf, uint32_t tag, uint16_t version);
void sm_record_end(struct sm_buf *buf, size_t record);

/* Reading.  A read past the end sets `failed` and gives zeros. */
struct sm_reader {
	const uint8_t *data;
	size_t len;
	size_t pos;
	bool failed;
	bool sound; /* inside a record whose CRC is right, and so are those of the records in it */
};

void sm_reader_init(struct sm_reader *reader, const void *data, size_t len);
uint8_t sm_get_u8(struct sm_reader *reader);
uint16_t sm_get_u16(struct sm_reader *reader);
uint32_t sm_get_u32(struct sm_reader *reader);
uint64_t sm_get_u64(struct sm_reader *reader);
/* Borrowed from the reader's memory; NULL (and failed) when short.  *ret_len may be 0. */
const void *sm_get_bytes(struct sm_reader *reader, size_t *ret_len);
/* Copies into out with NUL; fails when longer than size - 1 or when it holds a NUL byte. */
void sm_get_str(struct sm_reader *reader, char *out, size_t size);
/* Copies exactly len raw bytes (written by sm_put_bytes with the same length). */
void sm_get_exact(struct sm_reader *reader, void *out, size_t len);
static inline bool sm_reader_at_end(const struct sm_reader *reader)
{
	return reader->pos == reader->len;
}

/* The next record's tag; 0 at the end of input alone, and no record's tag where none can begin or a read failed. */
uint32_t sm_record_peek(const struct sm_reader *reader);
/* Its version, likewise; 0: none. */
uint16_t sm_record_version(const struct sm_reader *reader);
/* Open the next record, which must have this tag and version and a sound CRC (its own, or that of one around it).
 * -EBADMSG otherwise, with an error that names `what`. */
int sm_record_open(struct sm_reader *reader, uint32_t tag, uint16_t version, const char *what,
                   struct sm_reader *ret_record, struct sm_error *err);
/* After the fields: refuses a short or over-long payload.  -EBADMSG, naming `what`. */
int sm_record_close(const struct sm_reader *record, const char *what, struct sm_error *err);

#endif
