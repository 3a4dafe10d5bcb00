/* Where an image comes from: one interface for layouts and registries.  A source is used by one thread. */
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

struct sm_oci_source_ops {
	/* The reference's manifest or index (digest NULL), or one by its digest, into ret (its max is the
	 * cap); not verified.  ret_media_type: what the source says it is, or "". */
	int (*manifest)(struct sm_oci_source *source, const char *digest, struct sm_buf *ret,
	                char ret_media_type[SM_OCI_MEDIA_TYPE_SIZE], struct sm_error *err);
	/* A blob's bytes, not verified.  When the sink fails, *err is left alone. */
	int (*blob)(struct sm_oci_source *source, const char *digest, sm_oci_sink sink, void *arg,
	            struct sm_error *err);
	void (*free)(struct sm_oci_source *source);
};

struct sm_oci_source_options {
	bool insecure;        /* http:// to other machines too */
	const char *ca_file;  /* PEM certificates to trust and no others; NULL: the system's and certs.h */
	const char *username; /* both or neither: to the reference's host, instead of oci/credentials.h */
	const char *password;
	const char *config;        /* see oci/registries.h; NULL: the user's */
	const atomic_bool *cancel; /* NULL: never */
};

int sm_oci_layout_open(const struct sm_oci_reference *reference, const struct sm_oci_source_options *options,
                       struct sm_oci_source **ret, struct sm_error *err);
int sm_oci_registry_open(const struct sm_oci_reference *reference, const struct sm_oci_source_options *options,
                         struct sm_oci_source **ret, struct sm_error *err);

/* A sink that appends to a struct sm_buf; -EFBIG past its maximum. */
int sm_oci_source_collect(void *buf, const void *data, size_t len);

/* What a descriptor names, whole in memory and verified, from the store if it is there.  `manifest` asks
 * for a manifest or index, otherwise for a blob.  ret's max is the cap. */
struct sm_oci_store;
int sm_oci_source_fetch(struct sm_oci_source *source, const struct sm_oci_store *store, bool manifest,
                        const struct sm_oci_descriptor *descriptor, struct sm_buf *ret, struct sm_error *err);

#endif
