#include "rootfs/layer_source.h"

#include "rootfs/gunzip.h"

#include <errno.h>
#include <string.h>

static ssize_t read_some(struct sm_layer_source *source)
{
	for (;;) {
		for (size_t i = 0; i < 2; i++)
			if (source->cancel[i] && atomic_load_explicit(source->cancel[i], memory_order_relaxed))
				return sm_error_sys(&source->err, ECANCELED, "read layer");
		ssize_t got = source->tar->read(source->tar->arg, source->buffer, sizeof source->buffer);
		if (got >= 0)
			return got;
		if (got != -EINTR)
			return sm_error_sys(&source->err, (int)got, "read layer");
	}
}

/* The packed bytes: first what was read to tell the compression. */
static ssize_t read_packed(void *arg, const void **ret_data)
{
	struct sm_layer_source *source = arg;
	ssize_t got = (ssize_t)source->head;
	source->head = 0;
	*ret_data = source->buffer;
	return got ? got : read_some(source);
}

static la_ssize_t unpack_read(struct archive *unpack, void *arg, const void **ret_data)
{
	struct sm_layer_source *source = arg;
	ssize_t got = read_packed(source, ret_data);
	if (got < 0)
		source->lib.set_error(unpack, source->err.code, "%s", source->err.message);
	return got;
}

static int unpack_failed(struct sm_layer_source *source, const char *why)
{
	if (!source->err.code)
		sm_error_set(&source->err, source->lib.error_number(source->unpack) == ENOMEM ? ENOMEM : EBADMSG,
		             "decompress layer: %s", why ? why : "damaged");
	return -source->err.code;
}

#define GZIP ARCHIVE_FILTER_GZIP /* not the library's: see rootfs/gunzip.h */

/* The compression is told by its magic and set, not guessed by the library: exactly one is undone. */
static int unpack_open(struct sm_layer_source *source, int filter)
{
	struct archive_entry *entry;
	if (filter == GZIP) {
		source->gunzip = sm_gunzip_new(read_packed, source);
		return source->gunzip ? 0 : sm_error_sys(&source->err, ENOMEM, "decompress layer");
	}
	int code = sm_oci_archive_library_load(&source->lib, &source->err);
	if (code < 0)
		return code;
	source->unpack = source->lib.read_new();
	if (!source->unpack)
		return sm_error_sys(&source->err, ENOMEM, "decompress layer");
	if (source->lib.read_append_filter(source->unpack, filter) != ARCHIVE_OK ||
	    source->lib.read_support_format_raw(source->unpack) != ARCHIVE_OK)
		return unpack_failed(source, source->lib.error_string(source->unpack));
	/* Of what gives not one byte the library says that it knows no such format. */
	if (source->lib.read_open(source->unpack, source, NULL, unpack_read, NULL) != ARCHIVE_OK ||
	    source->lib.read_next_header(source->unpack, &entry) != ARCHIVE_OK)
		return unpack_failed(source, "damaged, cut short or empty");
	return 0;
}

/* What a layer is packed with is read off its first bytes; its media type may lie. */
static int find_filter(const uint8_t *head, size_t len)
{
	static const struct {
		uint8_t magic[6];
		uint8_t len;
		int filter;
	} known[] = {
		{ { 0x1f, 0x8b }, 2, GZIP },
		{ { 0x28, 0xb5, 0x2f, 0xfd }, 4, ARCHIVE_FILTER_ZSTD },
		{ { 'B', 'Z', 'h' }, 3, ARCHIVE_FILTER_BZIP2 },
		{ { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6, ARCHIVE_FILTER_XZ },
	};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (len >= known[i].len && !memcmp(head, known[i].magic, known[i].len))
			return known[i].filter;
	/* zstd's skippable frames may come first: 0x184d2a50 to 0x184d2a5f (RFC 8878, 3.1.2) */
	if (len >= 4 && (head[0] & 0xf0) == 0x50 && !memcmp(head + 1, "\x2a\x4d\x18", 3))
		return ARCHIVE_FILTER_ZSTD;
	return ARCHIVE_FILTER_NONE;
}

int sm_layer_source_open(struct sm_layer_source *source, const struct sm_rootfs_tar *tar, uint64_t max,
                         const atomic_bool *const cancel[2], struct sm_error *err)
{
	source->tar = tar;
	memcpy(source->cancel, cancel, sizeof source->cancel);
	source->gunzip = NULL;
	source->unpack = NULL;
	source->ended = false;
	source->bytes = source->head = 0;
	source->max = max;
	source->err = (struct sm_error){ 0 };
	source->hash = sm_sha256_new();
	if (!source->hash)
		return sm_error_sys(err, ENOMEM, "hash layer");
	ssize_t got = read_some(source);
	int code = got < 0 ? (int)got : 0;
	if (got > 0)
		source->head = (size_t)got;
	int filter = find_filter(source->buffer, source->head);
	if (code == 0 && filter != ARCHIVE_FILTER_NONE)
		code = unpack_open(source, filter);
	if (code < 0) {
		*err = source->err;
		sm_layer_source_close(source);
	}
	return code;
}

void sm_layer_source_close(struct sm_layer_source *source)
{
	/* After a failure free alone keeps what the filter holds. */
	if (source->unpack) {
		source->lib.read_close(source->unpack);
		source->lib.read_free(source->unpack);
	}
	source->unpack = NULL;
	sm_gunzip_free(source->gunzip);
	source->gunzip = NULL;
	sm_sha256_free(source->hash);
	source->hash = NULL;
}

ssize_t sm_layer_source_read(struct sm_layer_source *source, const void **ret_data)
{
	size_t len = 0;
	if (source->err.code)
		return -source->err.code;
	if (!source->unpack && !source->ended) {
		ssize_t got = source->gunzip ? sm_gunzip_read(source->gunzip, ret_data, &source->err)
		                             : read_packed(source, ret_data);
		if (got < 0)
			return got;
		source->ended = !got;
		len = (size_t)got;
	}
	while (source->unpack && !source->ended && !len) {
		la_int64_t offset;
		int status = source->lib.read_data_block(source->unpack, ret_data, &len, &offset);
		source->ended = status == ARCHIVE_EOF;
		if (status == ARCHIVE_EOF)
			len = 0;
		else if (status != ARCHIVE_OK)
			return unpack_failed(source, source->lib.error_string(source->unpack));
	}
	source->bytes += len;
	if (source->bytes > source->max)
		return sm_error_set(&source->err, EFBIG, "the layer unpacks to more than %llu bytes",
		                    (unsigned long long)source->max);
	sm_sha256_update(source->hash, *ret_data, len);
	return (ssize_t)len;
}
