#include "base/sha256.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdlib.h>

struct sm_sha256 {
	EVP_MD_CTX *ctx;
	bool failed;
};

struct sm_sha256 *sm_sha256_new(void)
{
	struct sm_sha256 *hash = calloc(1, sizeof *hash);
	if (!hash)
		return NULL;
	hash->ctx = EVP_MD_CTX_new();
	if (!hash->ctx || EVP_DigestInit_ex(hash->ctx, EVP_sha256(), NULL) != 1) {
		sm_sha256_free(hash);
		return NULL;
	}
	return hash;
}

void sm_sha256_free(struct sm_sha256 *hash)
{
	if (!hash)
		return;
	EVP_MD_CTX_free(hash->ctx);
	free(hash);
}

void sm_sha256_update(struct sm_sha256 *hash, const void *data, size_t len)
{
	if (EVP_DigestUpdate(hash->ctx, data, len) != 1)
		hash->failed = true;
}

static void to_hex(const uint8_t bytes[SM_SHA256_BYTES], char out[SM_SHA256_HEX + 1])
{
	static const char digits[] = "0123456789abcdef";
	for (size_t i = 0; i < SM_SHA256_BYTES; i++) {
		*out++ = digits[bytes[i] >> 4];
		*out++ = digits[bytes[i] & 15];
	}
	*out = 0;
}

void sm_sha256_final(struct sm_sha256 *hash, char out[SM_SHA256_HEX + 1])
{
	uint8_t bytes[SM_SHA256_BYTES];
	if (EVP_DigestFinal_ex(hash->ctx, bytes, NULL) != 1)
		hash->failed = true;
	/* A hash that failed is empty: it equals no digest. */
	if (hash->failed)
		out[0] = 0;
	else
		to_hex(bytes, out);
	hash->failed = EVP_DigestInit_ex(hash->ctx, EVP_sha256(), NULL) != 1;
}

int sm_sha256_hex(const void *data, size_t len, char out[SM_SHA256_HEX + 1])
{
	uint8_t bytes[SM_SHA256_BYTES];
	out[0] = 0;
	if (EVP_Digest(data, len, bytes, NULL, EVP_sha256(), NULL) != 1)
		return -ENOMEM;
	to_hex(bytes, out);
	return 0;
}
