/* meta: the snapshot's own record.  Private to this room. */
#ifndef SM_SNAPSHOT_FORMAT_H
#define SM_SNAPSHOT_FORMAT_H

#include "base/error.h"
#include "base/sha256.h"
#include "memory/source.h"
#include "plan/plan.h"
#include "snapshot/sources.h"

#include <limits.h>
#include <stdint.h>
#include <sys/stat.h>

/* A file beside meta. */
struct sm_format_file {
	uint64_t bytes;
	char sha256[SM_SHA256_HEX + 1]; /* over offset and content of every page that is not zero */
	uint64_t inode, mtime_ns, ctime_ns;
};

/* The content of a volume. */
struct sm_format_volume {
	unsigned index;             /* of its slot */
	bool readonly, as_writable; /* as in plan/volume.h */
	struct sm_format_file file;
};

struct sm_format_meta {
	struct sm_plan plan;
	struct sm_sources sources; /* disks and mounts only */
	struct sm_format_file ram, state;
	uint64_t ram_data_bytes;
	char host[256]; /* where it was made: sm_format_host */
	/* What it was restored from, when it has only what differs from that; "": it is whole. */
	char parent[PATH_MAX];                 /* absolute */
	char parent_sha256[SM_SHA256_HEX + 1]; /* of the parent's meta */
	struct sm_memory_extents extents;      /* which RAM is its own */
	unsigned nvolumes;
	struct sm_format_volume volumes[SM_PLAN_SLOTS_MAX]; /* in slot order */
	uint8_t *metadata;                                  /* owned */
	size_t metadata_len;
	char sha256[SM_SHA256_HEX + 1]; /* of all this, as sm_format_read found it */
};

void sm_format_meta_done(struct sm_format_meta *meta);

/* get reads versions 1 and 2 too, and refuses others by name. */
void sm_format_put(struct sm_buf *buf, const struct sm_format_meta *meta);
int sm_format_get(const void *data, size_t len, struct sm_format_meta *ret_meta, struct sm_error *err);

/* FOLDER/meta. */
int sm_format_read(const char *folder, struct sm_format_meta *ret_meta, struct sm_error *err);

/* Size and stamp of an open file; the hash is left alone. */
int sm_format_stamp(int fd, struct sm_format_file *file, struct sm_error *err);
int sm_format_hash(int fd, char out[SM_SHA256_HEX + 1], struct sm_error *err);
/* Compare an open file with what meta says; `name` is for the message. */
int sm_format_check(int fd, const char *name, const struct sm_format_file *expected, bool verify, struct sm_error *err);

/* "CPU MODEL, Linux RELEASE" of this host. */
void sm_format_host(char out[256]);

/* The same for people and tools, as JSON; nothing here reads it. */
int sm_format_manifest(const struct sm_format_meta *meta, char **ret_text, struct sm_error *err);

#endif
