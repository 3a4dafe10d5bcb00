/* A tar from its beginning to its end, unpacked by libarchive.  Used by one thread at a time. */
#ifndef SM_OCI_ARCHIVE_STREAM_H
#define SM_OCI_ARCHIVE_STREAM_H

#include "oci/archive_library.h"
#include "oci/source.h"

#include <stdint.h>

struct sm_oci_archive_stream;

/* fd and path (for messages) are borrowed; the descriptor's position is neither used nor moved, so one serves several.
 */
int sm_oci_archive_stream_open(int fd, const char *path, const atomic_bool *cancel,
                               struct sm_oci_archive_stream **ret_stream, struct sm_error *err);
void sm_oci_archive_stream_free(struct sm_oci_archive_stream *stream); /* NULL is fine */

/* What to ask an entry with. */
const struct sm_oci_archive_library *sm_oci_archive_stream_library(const struct sm_oci_archive_stream *stream);
/* Does the file hold the tar as it is? */
bool sm_oci_archive_stream_is_plain(const struct sm_oci_archive_stream *stream);
/* The number of the entry that `next` will give, from 0. */
uint64_t sm_oci_archive_stream_number(const struct sm_oci_archive_stream *stream);

/* 1 and the next entry, borrowed until the next call; 0 at the end. */
int sm_oci_archive_stream_next(struct sm_oci_archive_stream *stream, struct archive_entry **ret_entry,
                               struct sm_error *err);
/* Where the present entry's content begins in the unpacked tar; asked before any of it is read. */
uint64_t sm_oci_archive_stream_offset(const struct sm_oci_archive_stream *stream);
/* At most len first bytes of the present entry's content, or -errno. */
int sm_oci_archive_stream_head(struct sm_oci_archive_stream *stream, void *data, size_t len, struct sm_error *err);
/* All of the present entry's content.  When the sink fails, *err is left alone. */
int sm_oci_archive_stream_content(struct sm_oci_archive_stream *stream, sm_oci_sink sink, void *arg,
                                  struct sm_error *err);

#endif
