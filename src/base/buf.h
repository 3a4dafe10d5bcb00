/* A growable byte buffer with a hard maximum.  The first failed append is remembered, so a run of
 * appends is checked once at the end (sm_buf_failed). */
#ifndef SM_BASE_BUF_H
#define SM_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sm_buf {
	uint8_t *data;
	size_t len;
	size_t cap;
	size_t max; /* appends past this fail with -E2BIG */
	int failed; /* 0, or the negative errno of the first append that failed */
};

void sm_buf_init(struct sm_buf *buf, size_t max);
void sm_buf_done(struct sm_buf *buf);  /* frees; safe on a zeroed buffer and twice */
void sm_buf_clear(struct sm_buf *buf); /* length 0, memory kept, failure forgotten */

/* Memory for `cap` bytes in all, at once: what is appended within it is never copied elsewhere.  0 or -ENOMEM. */
int sm_buf_reserve(struct sm_buf *buf, size_t cap);
/* As done, with the memory overwritten first: for what nobody may find in it.  Reserve, or growth leaves copies. */
void sm_buf_wipe(struct sm_buf *buf);

/* Each returns 0, -E2BIG past the maximum, or -ENOMEM, and is a no-op after a failure. */
int sm_buf_append(struct sm_buf *buf, const void *data, size_t len);
int sm_buf_append_zero(struct sm_buf *buf, size_t len);
int sm_buf_append_str(struct sm_buf *buf, const char *str);
int sm_buf_printf(struct sm_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Room for `len` bytes at the end, counted as appended; NULL on failure. */
void *sm_buf_extend(struct sm_buf *buf, size_t len);

/* Drop `len` bytes from the front (len <= buf->len). */
void sm_buf_consume(struct sm_buf *buf, size_t len);

/* The content as a NUL-terminated string (the NUL is not counted), or NULL on failure.  Borrowed. */
const char *sm_buf_str(struct sm_buf *buf);

static inline bool sm_buf_failed(const struct sm_buf *buf)
{
	return buf->failed != 0;
}

#define SM_BUF_CLEANUP __attribute__((cleanup(sm_buf_done)))
#define SM_BUF_WIPED   __attribute__((cleanup(sm_buf_wipe)))

#endif
