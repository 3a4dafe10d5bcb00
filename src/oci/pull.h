/* Pull: from a reference to an image whose every blob is in the store and verified. */
#ifndef SM_OCI_PULL_H
#define SM_OCI_PULL_H

#include "oci/feed.h"
#include "oci/image.h"
#include "oci/reference.h"

#include <stdatomic.h>

#define SM_OCI_BLOB_MAX_BYTES ((uint64_t)16 << 30) /* default cap of one layer */
#define SM_OCI_PARALLEL       4
#define SM_OCI_PARALLEL_MAX   64

enum sm_oci_pull_policy {
	SM_OCI_PULL_ALWAYS,  /* ask the source what a tag means now; a digest that is stored needs no asking */
	SM_OCI_PULL_MISSING, /* only when the store does not know the reference */
	SM_OCI_PULL_NEVER,   /* only from the store */
};

enum sm_oci_progress_state {
	SM_OCI_PROGRESS_WAITING, /* another process fetches it */
	SM_OCI_PROGRESS_FETCHING,
	SM_OCI_PROGRESS_RETRYING, /* it broke off, and is asked for again in a moment */
	SM_OCI_PROGRESS_DONE,     /* in the store; this and REUSED are a blob's last */
	SM_OCI_PROGRESS_REUSED,   /* was there already, or another process has fetched it */
	SM_OCI_PROGRESS_FAILED,
};

/* Of one layer.  Told at each change of state, and of bytes ten times a second at most. */
struct sm_oci_progress {
	unsigned index; /* from 0, in the order of the manifest; a layer that is in it twice is told of once */
	enum sm_oci_progress_state state;
	const char *digest; /* borrowed while the pull runs */
	uint64_t done, total;
};

struct sm_oci_pull_options {
	const char *reference; /* see oci/reference.h */
	const char *store;     /* folder; NULL: the user's */
	const char *platform;  /* see oci/platform.h; NULL: linux on the host's architecture */
	enum sm_oci_pull_policy policy;
	bool insecure;        /* http:// to other machines too; certificates are checked regardless */
	const char *ca_file;  /* PEM; NULL: the system's and those of oci/certs.h */
	const char *username; /* both or neither; NULL: see oci/credentials.h */
	const char *password;
	const char *config;        /* see oci/registries.h; NULL: the user's */
	uint64_t blob_max_bytes;   /* cap of one layer; 0: SM_OCI_BLOB_MAX_BYTES */
	unsigned parallel;         /* layers at once; 0: SM_OCI_PARALLEL */
	unsigned retries;          /* of what is transient, in a row (oci/retry.h) */
	unsigned stall_ms;         /* see sm_oci_source_options */
	const atomic_bool *cancel; /* NULL: never */
	int cancel_fd;             /* with cancel: readable once it is set; -1: none, then seen within a second */
	/* Called on the pull's thread; must not block. */
	void (*on_progress)(void *arg, const struct sm_oci_progress *progress);
	void *progress_arg;
	const struct sm_oci_pull_reader *reader; /* NULL: none */
};

/* Who reads the layers while they come in.  On the pull's thread.  begin is called once, when the image is known,
 * unless all of it is in the store; the feeds are good until end returns, which waits for those who read, and by then
 * has nothing more to wait for.  Both are called, or neither; the image is the pull's. */
struct sm_oci_pull_reader {
	void (*begin)(void *arg, struct sm_oci_image *image, struct sm_oci_feeds *feeds);
	void (*end)(void *arg);
	void *arg;
};

struct sm_oci_pull_stats {
	uint64_t fetched_bytes; /* of layers */
	uint64_t reused_bytes;
	uint64_t resumed_bytes; /* of the fetched layers: what an earlier pull had left of them */
	unsigned fetched_layers;
	unsigned reused_layers; /* were in the store, or came by another process */
	unsigned retries;
};

/* Blocks; any thread.  On failure whole verified blobs stay in the store, of others what came from a registry so far,
 * for the next pull to go on from, and no reference is changed.  ret_stats may be NULL.  Errors by code: -EINVAL
 * reference or platform, -ENOENT tag or blob, -EBADMSG digest, size or format, -ENOEXEC platform, -EOPNOTSUPP schema 1
 * or an artifact, -EFBIG caps, -EACCES login. */
int sm_oci_pull(const struct sm_oci_pull_options *options, struct sm_oci_image **ret_image,
                struct sm_oci_pull_stats *ret_stats, struct sm_error *err);

#endif
