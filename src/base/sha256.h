/* SHA-256 by libcrypto (FIPS 180-4), incremental. */
#ifndef SM_BASE_SHA256_H
#define SM_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SM_SHA256_BYTES 32
#define SM_SHA256_HEX   64

struct sm_sha256; /* one running hash; not shared between threads */

struct sm_sha256 *sm_sha256_new(void); /* NULL: out of memory */
void sm_sha256_free(struct sm_sha256 *hash);
void sm_sha256_update(struct sm_sha256 *hash, const void *data, size_t len);
/* Ends the hash and readies it for the next one.  out: 64 lower-case hex digits and NUL. */
void sm_sha256_final(struct sm_sha256 *hash, char out[SM_SHA256_HEX + 1]);

/* One-shot. */
int sm_sha256_hex(const void *data, size_t len, char out[SM_SHA256_HEX + 1]);

#endif
