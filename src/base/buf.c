#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAP 64

void sm_buf_init(struct sm_buf *buf, size_t max)
{
	*buf = (struct sm_buf){ .max = max };
}

void sm_buf_done(struct sm_buf *buf)
{
	free(buf->data);
	*buf = (struct sm_buf){ .max = buf->max };
}

void sm_buf_wipe(struct sm_buf *buf)
{
	if (buf->data)
		explicit_bzero(buf->data, buf->cap);
	sm_buf_done(buf);
}

void sm_buf_clear(struct sm_buf *buf)
{
	buf->len = 0;
	buf->failed = 0;
}

/* The content's maximum is the callers' business. */
int sm_buf_reserve(struct sm_buf *buf, size_t cap)
{
	if (cap <= buf->cap)
		return 0;
	size_t grown = buf->cap ? buf->cap : FIRST_CAP;
	while (grown < cap)
		grown = grown > SIZE_MAX / 2 ? cap : grown * 2;
	uint8_t *data = realloc(buf->data, grown);
	if (!data)
		return buf->failed = -ENOMEM;
	buf->data = data;
	buf->cap = grown;
	return 0;
}

void *sm_buf_extend(struct sm_buf *buf, size_t len)
{
	if (buf->failed)
		return NULL;
	if (buf->len > buf->max || len > buf->max - buf->len) {
		buf->failed = -E2BIG;
		return NULL;
	}
	/* At least one byte, so that success is never NULL. */
	if (sm_buf_reserve(buf, buf->len + len ? buf->len + len : 1) < 0)
		return NULL;
	void *room = buf->data + buf->len;
	buf->len += len;
	return room;
}

int sm_buf_append(struct sm_buf *buf, const void *data, size_t len)
{
	void *room = sm_buf_extend(buf, len);
	if (room && len)
		memcpy(room, data, len);
	return buf->failed;
}

int sm_buf_append_zero(struct sm_buf *buf, size_t len)
{
	void *room = sm_buf_extend(buf, len);
	if (room && len)
		memset(room, 0, len);
	return buf->failed;
}

int sm_buf_append_str(struct sm_buf *buf, const char *str)
{
	return sm_buf_append(buf, str, strlen(str));
}

int sm_buf_printf(struct sm_buf *buf, const char *format, ...)
{
	if (buf->failed)
		return buf->failed;
	va_list args;
	va_start(args, format);
	int len = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (len < 0)
		return buf->failed = -EINVAL;
	/* vsnprintf ends with a NUL, which has to have room but does not count. */
	if (sm_buf_reserve(buf, buf->len + (size_t)len + 1) < 0)
		return buf->failed;
	char *room = sm_buf_extend(buf, (size_t)len);
	if (!room)
		return buf->failed;
	va_start(args, format);
	vsnprintf(room, (size_t)len + 1, format, args);
	va_end(args);
	return 0;
}

void sm_buf_consume(struct sm_buf *buf, size_t len)
{
	if (len > buf->len)
		len = buf->len;
	buf->len -= len;
	if (len && buf->len)
		memmove(buf->data, buf->data + len, buf->len);
}

const char *sm_buf_str(struct sm_buf *buf)
{
	if (buf->failed || sm_buf_reserve(buf, buf->len + 1) < 0)
		return NULL;
	buf->data[buf->len] = 0;
	return (const char *)buf->data;
}
