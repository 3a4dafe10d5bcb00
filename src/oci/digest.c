#include "oci/digest.h"

#include "base/sha256.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char prefix[] = "sha256:";

int sm_oci_digest_check(const char *text, const char *what, struct sm_error *err)
{
	size_t head = sizeof prefix - 1;
	if (strncmp(text, prefix, head)) {
		size_t algorithm = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789+._-");
		if (algorithm && algorithm < 32 && text[algorithm] == ':')
			return sm_error_set(err, EOPNOTSUPP, "%s: digest algorithm %.*s is not supported, only sha256",
			                    what, (int)algorithm, text);
		return sm_error_set(err, EBADMSG, "%s: not a digest: '%.100s'", what, text);
	}
	if (strspn(text + head, "0123456789abcdef") != SM_SHA256_HEX || text[head + SM_SHA256_HEX])
		return sm_error_set(err, EBADMSG, "%s: digest '%.100s' is not sha256: and 64 lower-case hex digits",
		                    what, text);
	return 0;
}

const char *sm_oci_digest_hex(const char *digest)
{
	return digest + sizeof prefix - 1;
}

int sm_oci_digest_of(const void *data, size_t len, char out[SM_OCI_DIGEST_SIZE])
{
	char hex[SM_SHA256_HEX + 1];
	int code = sm_sha256_hex(data, len, hex);
	if (code < 0)
		return code;
	snprintf(out, SM_OCI_DIGEST_SIZE, "%s%s", prefix, hex);
	return 0;
}
