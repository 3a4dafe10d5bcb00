#include "oci/source.h"

#include "oci/store.h"

#include <errno.h>
#include <string.h>

int sm_oci_source_collect(void *buf, const void *data, size_t len)
{
	int code = sm_buf_append(buf, data, len);
	return code == -E2BIG ? -EFBIG : code;
}

int sm_oci_source_collect_again(void *buf)
{
	sm_buf_clear(buf);
	return 0;
}

int sm_oci_source_fetch(struct sm_oci_source *source, const struct sm_oci_store *store, bool manifest,
                        const struct sm_oci_descriptor *descriptor, struct sm_buf *ret, struct sm_error *err)
{
	const char *what = manifest ? "manifest" : "config";
	const char *digest = descriptor->digest;
	char found[SM_OCI_DIGEST_SIZE], media_type[SM_OCI_MEDIA_TYPE_SIZE];
	if (descriptor->size > ret->max)
		return sm_error_set(err, EFBIG, "%s %s: %llu bytes, more than %zu", what, digest,
		                    (unsigned long long)descriptor->size, ret->max);
	if (sm_oci_store_read(store, digest, ret, NULL) == 0 && ret->len == descriptor->size)
		return 0;
	sm_buf_clear(ret);

	/* A byte more than announced shows that it is too long. */
	size_t max = ret->max;
	ret->max = (size_t)descriptor->size + 1;
	struct sm_error own = { 0 };
	int code;
	if (manifest)
		code = source->ops->manifest(source, digest, ret, media_type, &own);
	else
		code = source->ops->blob(source, digest, sm_oci_source_collect, ret, &own);
	ret->max = max;
	if (code == -EFBIG)
		return sm_error_set(err, EBADMSG, "%s %s: more than its %llu bytes", what, digest,
		                    (unsigned long long)descriptor->size);
	if (code < 0)
		return own.code ? sm_error_set(err, own.code, "%s %s: %s", what, digest, own.message)
		                : sm_error_sys(err, code, "%s %s", what, digest);
	if (ret->len != descriptor->size)
		return sm_error_set(err, EBADMSG, "%s %s: %zu bytes where %llu were announced", what, digest, ret->len,
		                    (unsigned long long)descriptor->size);
	if ((code = sm_oci_digest_of(ret->data, ret->len, found)) < 0)
		return sm_error_sys(err, code, "%s %s", what, digest);
	if (strcmp(found, digest))
		return sm_error_set(err, EBADMSG, "%s %s: its bytes have digest %s", what, digest, found);
	return 0;
}
