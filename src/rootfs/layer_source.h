/* A layer's bytes as the tar reader sees them: decompressed (gzip, zstd, bzip2, xz, or plain), hashed, and counted. */
#ifndef SM_ROOTFS_LAYER_SOURCE_H
#define SM_ROOTFS_LAYER_SOURCE_H

#include "base/error.h"
#include "base/sha256.h"
#include "oci/archive_library.h"
#include "rootfs/layer.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct sm_gunzip;

struct sm_layer_source {
	const struct sm_rootfs_tar *tar; /* borrowed */
	const atomic_bool *cancel[2];
	struct sm_gunzip *gunzip;
	struct archive *unpack; /* other packings; both NULL: plain */
	struct sm_oci_archive_library lib;
	bool ended; /* nothing is left */
	struct sm_sha256 *hash;
	uint64_t bytes; /* decompressed so far */
	uint64_t max;
	size_t head;         /* bytes of the buffer that were read to tell the compression, not yet given out */
	struct sm_error err; /* of the failure, when code is set there */
	uint8_t buffer[64 << 10];
};

/* At most `max` decompressed bytes; any of the flags (each may be NULL) ends it early. */
int sm_layer_source_open(struct sm_layer_source *source, const struct sm_rootfs_tar *tar, uint64_t max,
                         const atomic_bool *const cancel[2], struct sm_error *err);
void sm_layer_source_close(struct sm_layer_source *source);

/* The next decompressed bytes, borrowed until the next call; 0 at the end; negative with source->err set. */
ssize_t sm_layer_source_read(struct sm_layer_source *source, const void **ret_data);

#endif
