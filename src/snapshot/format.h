/* meta: the snapshot's own record.  Private to this room. */
#ifndef SM_SNAPSHOT_FORMAT_H
#define SM_SNAPSHOT_FORMAT_H

#include "base/error.h"
#include "base/sha256.h"
#include "plan/plan.h"
#include "snapshot/sources.h"

#include <stdint.h>
#include <sys/stat.h>

/* A file beside meta. */
struct sm_format_file {
	uint64_t bytes;
	char sha256[SM_SHA256_HEX + 1]; /* over offset and content of every page that is not zero */
	uint64_t inode, mtime_ns, ctime_ns;
};

struct sm_format_meta {
	struct sm_plan plan;
	struct sm_sources sources; /* disks only */
	struct sm_format_file ram, state;
	uint64_t ram_data_bytes;
	uint8_t *metadata; /* owned */
	size_t metadata_len;
};

void sm_format_meta_done(struct sm_format_meta *meta);

/* get refuses another version by name: snapshots are tied to the program that wrote them. */
void sm_format_put(struct sm_buf *buf, const struct sm_format_meta *meta);
int sm_format_get(const void *data, size_t len, struct sm_format_meta *ret_meta, struct sm_error *err);

/* FOLDER/meta. */
int sm_format_read(const char *folder, struct sm_format_meta *ret_meta, struct sm_error *err);

/* Size and stamp of an open file; the hash is left alone. */
int sm_format_stamp(int fd, struct sm_format_file *file, struct sm_error *err);
int sm_format_hash(int fd, char out[SM_SHA256_HEX + 1], struct sm_error *err);
/* Compare an open file with what meta says; `name` is for the message. */
int sm_format_check(int fd, const char *name, const struct sm_format_file *expected, bool verify, struct sm_error *err);

#endif
