/* Where an image comes from: one interface for layouts, archives, folders and registries.  A source is used by one
 * thread. */
#ifndef SM_OCI_SOURCE_H
#define SM_OCI_SOURCE_H

#include "base/buf.h"
#include "oci/manifest.h"
#include "oci/reference.h"

#include <stdatomic.h>

#define SM_OCI_MEDIA_TYPE_SIZE 160

/* Takes bytes as they come.  A negative result ends the transfer and is passed on; the sink has told why
 * in an error of its own. */
typedef int (*sm_oci_sink)(void *arg, const void *data, size_t len);

struct sm_oci_source {
	const struct sm_oci_source_ops *ops;
};

/* A blob's way from a source that can have many under way.  All on the source's thread. */
struct sm_oci_transfer {
	const char *digest;
	uint64_t size;
	uint64_t offset; /* bytes that are there already */
	sm_oci_sink sink;
	int (*restart)(void *arg); /* the bytes that follow begin at 0, not at the offset */
	void *arg;
	/* How it ended.  A sink's or restart's failure is `code` with err left alone; -ERANGE: the source got the range
	 * wrong, so ask for all. */
	int code;
	struct sm_error err;
	size_t place;           /* the source's: who gave it */
	bool transient;         /* asking again may help (oci/retry.h) ... */
	unsigned retry_after_s; /* ... but not before */
	void *state;            /* the source's */
};

struct sm_oci_source_ops {
	/* The reference's manifest or index (digest NULL), or one by its digest, into ret (its max is the
	 * cap); not verified.  ret_media_type: what the source says it is, or "". */
	int (*manifest)(struct sm_oci_source *source, const char *digest, struct sm_buf *ret,
	                char ret_media_type[SM_OCI_MEDIA_TYPE_SIZE], struct sm_error *err);
	/* The digest that the reference's manifest or index has by the source's word, or ""; NULL in a source where
	 * asking saves nothing. */
	int (*peek)(struct sm_oci_source *source, char ret_digest[SM_OCI_DIGEST_SIZE], struct sm_error *err);
	/* A blob's bytes, not verified.  When the sink fails, *err is left alone. */
	int (*blob)(struct sm_oci_source *source, const char *digest, sm_oci_sink sink, void *arg,
	            struct sm_error *err);
	void (*free)(struct sm_oci_source *source);
	/* NULL in a source that gives one blob at a time.  step moves all transfers on and waits, at most timeout_ms
	 * (negative: no limit), for one that has ended, which it gives; NULL when wake_fd (-1: none) is readable or
	 * time is up.  -ECANCELED.  stop ends a transfer that has not. */
	int (*start)(struct sm_oci_source *source, struct sm_oci_transfer *transfer, struct sm_error *err);
	int (*step)(struct sm_oci_source *source, int wake_fd, int timeout_ms, struct sm_oci_transfer **ret_ended,
	            struct sm_error *err);
	void (*stop)(struct sm_oci_source *source, struct sm_oci_transfer *transfer);
	/* Nothing good came of a transfer: is there somebody else for a start of its digest to ask?  From then on it
	 * does.  NULL: never. */
	bool (*another)(struct sm_oci_source *source, const struct sm_oci_transfer *transfer,
	                const struct sm_error *why);
};

struct sm_oci_source_options {
	bool insecure;        /* http:// to other machines too */
	const char *ca_file;  /* PEM certificates to trust and no others; NULL: the system's and certs.h */
	const char *username; /* both or neither: to the reference's host, instead of oci/credentials.h */
	const char *password;
	const char *config;        /* see oci/registries.h; NULL: the user's */
	const atomic_bool *cancel; /* NULL: never */
	int cancel_fd;     /* with cancel: readable once it is set; -1: none, then it is looked at twice a second */
	unsigned stall_ms; /* a transfer of less than 1 KiB/s for so long has failed; whole seconds, 0: a minute */
	unsigned retries;  /* of what is transient (oci/retry.h) */
};

/* A folder or a tar, by the reference's kind. */
int sm_oci_layout_open(const struct sm_oci_reference *reference, const struct sm_oci_source_options *options,
                       struct sm_oci_source **ret, struct sm_error *err);
int sm_oci_docker_archive_open(const struct sm_oci_reference *reference, const struct sm_oci_source_options *options,
                               struct sm_oci_source **ret, struct sm_error *err);
int sm_oci_dir_open(const struct sm_oci_reference *reference, const struct sm_oci_source_options *options,
                    struct sm_oci_source **ret, struct sm_error *err);
int sm_oci_registry_open(const struct sm_oci_reference *reference, const struct sm_oci_source_options *options,
                         struct sm_oci_source **ret, struct sm_error *err);

/* A sink that appends to a struct sm_buf; -EFBIG past its maximum. */
int sm_oci_source_collect(void *buf, const void *data, size_t len);
/* Its restart. */
int sm_oci_source_collect_again(void *buf);

/* What a descriptor names, whole in memory and verified, from the store if it is there.  `manifest` asks
 * for a manifest or index, otherwise for a blob.  ret's max is the cap. */
struct sm_oci_store;
int sm_oci_source_fetch(struct sm_oci_source *source, const struct sm_oci_store *store, bool manifest,
                        const struct sm_oci_descriptor *descriptor, struct sm_buf *ret, struct sm_error *err);

#endif
