#include "rootfs/out.h"

#include "base/fd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_BYTES (128u << 10)
#define HOLE_BYTES   (64u << 10)

int sm_out_init(struct sm_out *out, int fd, const char *what, uint64_t offset, uint64_t max, struct sm_error *err)
{
	*out = (struct sm_out){ .fd = fd, .what = what, .offset = offset, .max = max };
	out->buffer = malloc(BUFFER_BYTES);
	return out->buffer ? 0 : sm_error_sys(err, ENOMEM, "write '%s'", what);
}

void sm_out_done(struct sm_out *out)
{
	free(out->buffer);
	out->buffer = NULL;
}

static int put(struct sm_out *out, const void *data, size_t len, uint64_t offset, struct sm_error *err)
{
	int code = sm_fd_pwrite_full(out->fd, data, len, offset);
	return code < 0 ? sm_error_sys(err, code, "write '%s'", out->what) : 0;
}

int sm_out_flush(struct sm_out *out, struct sm_error *err)
{
	int code = out->used ? put(out, out->buffer, out->used, out->offset - out->used, err) : 0;
	out->used = 0;
	return code;
}

static int check_room(const struct sm_out *out, uint64_t len, struct sm_error *err)
{
	if (len > out->max || out->offset > out->max - len)
		return sm_error_set(err, EFBIG, "'%s' would grow over its limit of %llu bytes", out->what,
		                    (unsigned long long)out->max);
	return 0;
}

int sm_out_write(struct sm_out *out, const void *data, size_t len, struct sm_error *err)
{
	int code = check_room(out, len, err);
	if (code == 0 && len > BUFFER_BYTES - out->used)
		code = sm_out_flush(out, err);
	if (code < 0)
		return code;
	if (len >= BUFFER_BYTES) {
		code = put(out, data, len, out->offset, err);
	} else if (len) {
		memcpy(out->buffer + out->used, data, len);
		out->used += len;
	}
	out->offset += len;
	return code;
}

int sm_out_zero(struct sm_out *out, uint64_t len, struct sm_error *err)
{
	static const uint8_t zeros[4096];
	if (len >= HOLE_BYTES) {
		int code = check_room(out, len, err);
		if (code == 0)
			code = sm_out_flush(out, err);
		out->offset += len;
		return code;
	}
	while (len) {
		size_t part = len < sizeof zeros ? (size_t)len : sizeof zeros;
		int code = sm_out_write(out, zeros, part, err);
		if (code < 0)
			return code;
		len -= part;
	}
	return 0;
}

int sm_out_align(struct sm_out *out, uint64_t step, struct sm_error *err)
{
	return sm_out_zero(out, -out->offset & (step - 1), err);
}
