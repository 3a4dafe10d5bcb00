/* An image's layers into the store: several at once, each continued where it broke off, each fetched by one process. */
#ifndef SM_OCI_FETCH_H
#define SM_OCI_FETCH_H

#include "oci/feed.h"
#include "oci/image.h"
#include "oci/source.h"

struct sm_oci_progress;

struct sm_oci_fetch_options {
	unsigned parallel;       /* at least 1 */
	unsigned retries;        /* in a row, without progress */
	uint64_t blob_max_bytes; /* of one layer */
	const atomic_bool *cancel;
	int cancel_fd;                                                          /* as in sm_oci_source_options */
	void (*on_progress)(void *arg, const struct sm_oci_progress *progress); /* oci/pull.h; NULL: nobody listens */
	void *progress_arg;
	struct sm_oci_feeds *feeds; /* of these layers; NULL: nobody reads them yet */
};

struct sm_oci_pull_stats;

/* The first failure ends them all.  What came of the others stays for the next pull. */
int sm_oci_fetch(struct sm_oci_source *source, const struct sm_oci_store *store, const struct sm_oci_layer *layers,
                 size_t count, const struct sm_oci_fetch_options *options, struct sm_oci_pull_stats *stats,
                 struct sm_error *err);

#endif
