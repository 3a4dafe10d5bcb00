#include "rootfs/gunzip.h"

#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <stdbool.h>
#include <stdlib.h>

struct sm_gunzip {
	sm_gunzip_refill refill;
	void *arg;
	bool within;      /* a member */
	const void *kept; /* packed bytes that come after those that the library has */
	uint32_t kept_len;
	struct inflate_state state;
	uint8_t out[64 << 10];
};

struct sm_gunzip *sm_gunzip_new(sm_gunzip_refill refill, void *arg)
{
	struct sm_gunzip *gunzip = malloc(sizeof *gunzip);
	if (!gunzip)
		return NULL;
	gunzip->refill = refill;
	gunzip->arg = arg;
	gunzip->within = false;
	gunzip->kept_len = 0;
	isal_inflate_init(&gunzip->state);
	gunzip->state.crc_flag = ISAL_GZIP;
	return gunzip;
}

void sm_gunzip_free(struct sm_gunzip *gunzip)
{
	free(gunzip);
}

static const char *explain(int status)
{
	switch (status) {
	case ISAL_INCORRECT_CHECKSUM:
		return "wrong checksum";
	case ISAL_UNSUPPORTED_METHOD:
	case ISAL_INVALID_WRAPPER:
		return "damaged header";
	default:
		return "damaged data";
	}
}

/* 1: there are packed bytes; 0: there are none any more. */
static int fill(struct sm_gunzip *gunzip)
{
	struct inflate_state *state = &gunzip->state;
	const void *data = gunzip->kept;
	ssize_t got = gunzip->kept_len;
	if (state->avail_in)
		return 1;
	gunzip->kept_len = 0;
	if (!got)
		got = gunzip->refill(gunzip->arg, &data);
	if (got <= 0)
		return (int)got;
	state->next_in = (uint8_t *)data; /* only read */
	state->avail_in = (uint32_t)got;
	return 1;
}

/* Between members: 1 when one begins, 0 at the end.  Its magic may come in two pieces. */
static int find_member(struct sm_gunzip *gunzip)
{
	static const uint8_t magic[] = { 0x1f, 0x8b };
	struct inflate_state *state = &gunzip->state;
	for (size_t i = 0; i < sizeof magic; i++) {
		int code = fill(gunzip);
		if (code <= 0)
			return code;
		if (*state->next_in != magic[i])
			return 0;
		state->next_in++;
		state->avail_in--;
	}
	gunzip->kept = state->next_in;
	gunzip->kept_len = state->avail_in;
	isal_inflate_reset(state);
	state->next_in = (uint8_t *)magic;
	state->avail_in = sizeof magic;
	return 1;
}

ssize_t sm_gunzip_read(struct sm_gunzip *gunzip, const void **ret_data, struct sm_error *err)
{
	struct inflate_state *state = &gunzip->state;
	for (;;) {
		if (!gunzip->within) {
			int code = find_member(gunzip);
			if (code <= 0)
				return code;
			gunzip->within = true;
		}
		int code = fill(gunzip);
		if (code < 0)
			return code;
		state->next_out = gunzip->out;
		state->avail_out = sizeof gunzip->out;
		int status = isal_inflate(state);
		if (status != ISAL_DECOMP_OK)
			return sm_error_set(err, EBADMSG, "decompress layer: gzip: %s", explain(status));
		size_t len = sizeof gunzip->out - state->avail_out;
		gunzip->within = state->block_state != ISAL_BLOCK_FINISH;
		if (gunzip->within && !len && !code)
			return sm_error_set(err, EBADMSG, "decompress layer: truncated gzip");
		if (len) {
			*ret_data = gunzip->out;
			return (ssize_t)len;
		}
	}
}
