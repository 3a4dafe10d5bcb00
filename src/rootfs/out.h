/* A file written from front to back through one buffer, with a hard maximum. */
#ifndef SM_ROOTFS_OUT_H
#define SM_ROOTFS_OUT_H

#include "base/error.h"

#include <stdint.h>

struct sm_out {
	int fd;           /* borrowed */
	const char *what; /* for messages; borrowed */
	uint64_t offset;  /* where the next byte goes */
	uint64_t max;
	uint8_t *buffer;
	size_t used; /* bytes of the buffer that wait at offset - used */
};

int sm_out_init(struct sm_out *out, int fd, const char *what, uint64_t offset, uint64_t max, struct sm_error *err);
void sm_out_done(struct sm_out *out); /* frees; does not write; safe on a zeroed one */

int sm_out_write(struct sm_out *out, const void *data, size_t len, struct sm_error *err);
/* Zeros; long ones become a hole. */
int sm_out_zero(struct sm_out *out, uint64_t len, struct sm_error *err);
/* Zeros up to a multiple of `step`, a power of two. */
int sm_out_align(struct sm_out *out, uint64_t step, struct sm_error *err);
int sm_out_flush(struct sm_out *out, struct sm_error *err);

#endif
