#include "oci/archive_stream.h"

#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK     (64u << 10)
#define MAX_BYTES (256ull << 30) /* of the unpacked tar */
#define MAGIC_MAX 6

struct sm_oci_archive_stream {
	struct sm_oci_archive_library lib;
	struct archive *tar;
	locale_t locale; /* names are bytes, whatever locale the program has */
	int fd;
	const char *path;
	const atomic_bool *cancel;
	bool plain;
	uint64_t at; /* in the file */
	uint64_t number;
	struct sm_error err; /* of stream_read */
	char chunk[CHUNK];
};

/* The compression is told by its magic and set, not guessed by the library: exactly one is undone, and no program is
 * run for it. */
static const struct {
	const char *magic;
	size_t len;
	int filter;
} filters[] = {
	{ "\x1f\x8b", 2, ARCHIVE_FILTER_GZIP },
	{ "BZh", 3, ARCHIVE_FILTER_BZIP2 },
	{ "\xfd\x37zXZ\0", 6, ARCHIVE_FILTER_XZ },
	{ "\x28\xb5\x2f\xfd", 4, ARCHIVE_FILTER_ZSTD },
};

static la_ssize_t stream_read(struct archive *tar, void *arg, const void **ret_data)
{
	struct sm_oci_archive_stream *stream = arg;
	ssize_t got = -1;
	*ret_data = stream->chunk;
	if (stream->cancel && atomic_load(stream->cancel))
		sm_error_sys(&stream->err, ECANCELED, "read '%s'", stream->path);
	else if (stream->lib.filter_bytes(tar, 0) > (la_int64_t)MAX_BYTES)
		sm_error_set(&stream->err, EFBIG, "'%s': unpacks to more than %llu bytes", stream->path, MAX_BYTES);
	else
		do
			got = pread(stream->fd, stream->chunk, CHUNK, (off_t)stream->at);
		while (got < 0 && errno == EINTR);
	if (got < 0 && !stream->err.code)
		sm_error_sys(&stream->err, errno, "read '%s'", stream->path);
	if (got < 0)
		stream->lib.set_error(tar, stream->err.code, "%s", stream->err.message);
	else
		stream->at += (uint64_t)got;
	return got;
}

/* Content that nobody wants; what lies behind the end of the file shows at the next read. */
static la_int64_t stream_skip(struct archive *tar, void *arg, la_int64_t len)
{
	struct sm_oci_archive_stream *stream = arg;
	(void)tar;
	if (len < 0 || (uint64_t)len > (uint64_t)INT64_MAX - stream->at)
		return 0;
	stream->at += (uint64_t)len;
	return len;
}

static int failed(struct sm_oci_archive_stream *stream, struct sm_error *err)
{
	const char *why = stream->lib.error_string(stream->tar);
	if (stream->err.code)
		return sm_error_set(err, stream->err.code, "%s", stream->err.message);
	return sm_error_set(err, stream->lib.error_number(stream->tar) == ENOMEM ? ENOMEM : EBADMSG,
	                    "'%s': entry %llu: %s", stream->path, (unsigned long long)stream->number,
	                    why ? why : "not a tar, or damaged");
}

static int start(struct sm_oci_archive_stream *stream, struct sm_error *err)
{
	ssize_t got = pread(stream->fd, stream->chunk, MAGIC_MAX, 0);
	if (got < 0)
		return sm_error_sys(err, errno, "read '%s'", stream->path);
	if (got == 0)
		return sm_error_set(err, EBADMSG, "'%s': empty, not a tar", stream->path);
	stream->locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	if (!stream->locale)
		return sm_error_sys(err, errno, "locale C");
	int code = sm_oci_archive_library_load(&stream->lib, err);
	if (code < 0)
		return code;
	stream->tar = stream->lib.read_new();
	if (!stream->tar)
		return sm_error_sys(err, ENOMEM, "read '%s'", stream->path);
	stream->plain = true;
	for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++)
		if ((size_t)got >= filters[i].len && !memcmp(stream->chunk, filters[i].magic, filters[i].len)) {
			stream->plain = false;
			if (stream->lib.read_append_filter(stream->tar, filters[i].filter) != ARCHIVE_OK)
				return failed(stream, err);
		}
	if (stream->lib.read_support_format_tar(stream->tar) != ARCHIVE_OK ||
	    stream->lib.read_set_read_callback(stream->tar, stream_read) != ARCHIVE_OK ||
	    (stream->plain && stream->lib.read_set_skip_callback(stream->tar, stream_skip) != ARCHIVE_OK) ||
	    stream->lib.read_set_callback_data(stream->tar, stream) != ARCHIVE_OK ||
	    stream->lib.read_open1(stream->tar) != ARCHIVE_OK)
		return failed(stream, err);
	return 0;
}

int sm_oci_archive_stream_open(int fd, const char *path, const atomic_bool *cancel,
                               struct sm_oci_archive_stream **ret_stream, struct sm_error *err)
{
	struct sm_oci_archive_stream *stream = calloc(1, sizeof *stream);
	if (!stream)
		return sm_error_sys(err, ENOMEM, "read '%s'", path);
	stream->fd = fd;
	stream->path = path;
	stream->cancel = cancel;
	int code = start(stream, err);
	if (code < 0) {
		sm_oci_archive_stream_free(stream);
		return code;
	}
	*ret_stream = stream;
	return 0;
}

void sm_oci_archive_stream_free(struct sm_oci_archive_stream *stream)
{
	if (!stream)
		return;
	/* After a failure free alone keeps what the filter holds. */
	if (stream->tar) {
		stream->lib.read_close(stream->tar);
		stream->lib.read_free(stream->tar);
	}
	if (stream->locale)
		freelocale(stream->locale);
	free(stream);
}

const struct sm_oci_archive_library *sm_oci_archive_stream_library(const struct sm_oci_archive_stream *stream)
{
	return &stream->lib;
}

bool sm_oci_archive_stream_is_plain(const struct sm_oci_archive_stream *stream)
{
	return stream->plain;
}

uint64_t sm_oci_archive_stream_number(const struct sm_oci_archive_stream *stream)
{
	return stream->number;
}

int sm_oci_archive_stream_next(struct sm_oci_archive_stream *stream, struct archive_entry **ret_entry,
                               struct sm_error *err)
{
	locale_t before = uselocale(stream->locale);
	int status = stream->lib.read_next_header(stream->tar, ret_entry);
	uselocale(before);
	if (status == ARCHIVE_EOF)
		return 0;
	/* A warning: a part of the header, such as a name, could not be read. */
	if (status != ARCHIVE_OK && status != ARCHIVE_WARN)
		return failed(stream, err);
	stream->number++;
	return 1;
}

uint64_t sm_oci_archive_stream_offset(const struct sm_oci_archive_stream *stream)
{
	return (uint64_t)stream->lib.filter_bytes(stream->tar, 0);
}

int sm_oci_archive_stream_head(struct sm_oci_archive_stream *stream, void *data, size_t len, struct sm_error *err)
{
	la_ssize_t got = stream->lib.read_data(stream->tar, data, len);
	return got < 0 ? failed(stream, err) : (int)got;
}

int sm_oci_archive_stream_content(struct sm_oci_archive_stream *stream, sm_oci_sink sink, void *arg,
                                  struct sm_error *err)
{
	for (;;) {
		const void *data;
		size_t len;
		la_int64_t offset;
		int status = stream->lib.read_data_block(stream->tar, &data, &len, &offset);
		if (status == ARCHIVE_EOF)
			return 0;
		if (status != ARCHIVE_OK)
			return failed(stream, err);
		int code = len ? sink(arg, data, len) : 0;
		if (code < 0)
			return code;
	}
}
