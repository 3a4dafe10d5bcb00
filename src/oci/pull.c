#include "oci/pull.h"

#include "oci/fetch.h"
#include "oci/resolve.h"
#include "oci/source.h"
#include "oci/store_lock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pull {
	const struct sm_oci_pull_options *options;
	struct sm_oci_reference reference;
	char name[SM_OCI_REFERENCE_TEXT]; /* the reference's one spelling */
	struct sm_oci_platform platform;
	struct sm_oci_store store;
	struct sm_oci_store_lock lock;
	struct sm_oci_source *source;
	struct sm_oci_pull_stats stats;
};

static int prepare(struct pull *pull, struct sm_error *err)
{
	const struct sm_oci_pull_options *options = pull->options;
	int code = sm_oci_reference_parse(options->reference, &pull->reference, err);
	if (code < 0)
		return code;
	if (pull->reference.kind != SM_OCI_REFERENCE_REGISTRY) {
		/* The same folder or file is the same reference from wherever it is named. */
		char absolute[PATH_MAX];
		if (realpath(pull->reference.path, absolute))
			memcpy(pull->reference.path, absolute, sizeof absolute);
	}
	sm_oci_reference_format(&pull->reference, pull->name);
	if ((code = sm_oci_platform_parse(options->platform, &pull->platform, err)) < 0 ||
	    (code = sm_oci_store_init(&pull->store, options->store, err)) < 0)
		return code;
	return sm_oci_store_lock(&pull->store, SM_OCI_LOCK_SHARED, options->cancel, &pull->lock, err);
}

static int from_store(struct pull *pull, struct sm_oci_image **ret_image, struct sm_error *err)
{
	char digest[SM_OCI_DIGEST_SIZE];
	int code = sm_oci_store_ref_get(&pull->store, pull->name, &pull->platform, digest, NULL, err);
	if (code < 0 ||
	    (code = sm_oci_image_load(&pull->store, pull->name, &pull->platform, digest, ret_image, err)) < 0)
		return code;
	size_t count;
	const struct sm_oci_layer *layers = sm_oci_image_get_layers(*ret_image, &count);
	for (size_t i = 0; i < count; i++)
		pull->stats.reused_bytes += layers[i].size;
	pull->stats.reused_layers = (unsigned)count;
	return 0;
}

static int open_source(struct pull *pull, struct sm_error *err)
{
	struct sm_oci_source_options options = {
		.insecure = pull->options->insecure,
		.ca_file = pull->options->ca_file,
		.username = pull->options->username,
		.password = pull->options->password,
		.config = pull->options->config,
		.cancel = pull->options->cancel,
		.cancel_fd = pull->options->cancel_fd,
		.stall_ms = pull->options->stall_ms,
		.retries = pull->options->retries,
	};
	switch (pull->reference.kind) {
	case SM_OCI_REFERENCE_LAYOUT:
	case SM_OCI_REFERENCE_OCI_ARCHIVE:
		return sm_oci_layout_open(&pull->reference, &options, &pull->source, err);
	case SM_OCI_REFERENCE_DOCKER_ARCHIVE:
		return sm_oci_docker_archive_open(&pull->reference, &options, &pull->source, err);
	case SM_OCI_REFERENCE_DIR:
		return sm_oci_dir_open(&pull->reference, &options, &pull->source, err);
	case SM_OCI_REFERENCE_REGISTRY:
		break;
	}
	return sm_oci_registry_open(&pull->reference, &options, &pull->source, err);
}

static int fetch(struct pull *pull, struct sm_oci_image *image, struct sm_error *err)
{
	const struct sm_oci_pull_options *options = pull->options;
	const struct sm_oci_pull_reader *reader = options->reader;
	size_t count;
	const struct sm_oci_layer *layers = sm_oci_image_get_layers(image, &count);
	struct sm_oci_fetch_options fetch_options = {
		.parallel = options->parallel ? options->parallel : SM_OCI_PARALLEL,
		.retries = options->retries,
		.blob_max_bytes = options->blob_max_bytes ? options->blob_max_bytes : SM_OCI_BLOB_MAX_BYTES,
		.cancel = options->cancel,
		.cancel_fd = options->cancel ? options->cancel_fd : -1,
		.on_progress = options->on_progress,
		.progress_arg = options->progress_arg,
		.feeds = reader ? sm_oci_feeds_new(layers, count) : NULL,
	};
	if (reader && !fetch_options.feeds)
		return sm_error_sys(err, ENOMEM, "layers");
	if (reader)
		reader->begin(reader->arg, image, fetch_options.feeds);
	int code = sm_oci_fetch(pull->source, &pull->store, layers, count, &fetch_options, &pull->stats, err);
	if (reader) {
		sm_oci_feeds_end(fetch_options.feeds);
		reader->end(reader->arg);
	}
	sm_oci_feeds_free(fetch_options.feeds);
	return code;
}

/* A sound copy that is there already costs no write. */
static int keep(const struct pull *pull, const char *digest, const struct sm_buf *content, struct sm_error *err)
{
	SM_BUF_CLEANUP struct sm_buf stored;
	sm_buf_init(&stored, content->max);
	if (sm_oci_store_read(&pull->store, digest, &stored, NULL) == 0)
		return 0;
	return sm_oci_store_put(&pull->store, digest, content->data, content->len, err);
}

static int remember(const struct pull *pull, const char *digest, const char *root, struct sm_error *err)
{
	char known[SM_OCI_DIGEST_SIZE], known_root[SM_OCI_DIGEST_SIZE];
	if (sm_oci_store_ref_get(&pull->store, pull->name, &pull->platform, known, known_root, NULL) == 0 &&
	    !strcmp(known, digest) && !strcmp(known_root, root))
		return 0;
	return sm_oci_store_ref_set(&pull->store, pull->name, &pull->platform, digest, root, err);
}

/* By the source's word the reference names what it named before; what that led to was verified then, and is here. */
static bool is_unchanged(struct pull *pull, struct sm_oci_image **ret_image)
{
	char digest[SM_OCI_DIGEST_SIZE], root[SM_OCI_DIGEST_SIZE], now[SM_OCI_DIGEST_SIZE];
	if (!pull->source->ops->peek || pull->reference.digest[0] ||
	    sm_oci_store_ref_get(&pull->store, pull->name, &pull->platform, digest, root, NULL) < 0 || !*root ||
	    from_store(pull, ret_image, NULL) < 0)
		return false;
	if (pull->source->ops->peek(pull->source, now, NULL) == 0 && !strcmp(now, root))
		return true;
	sm_oci_image_unref(*ret_image);
	*ret_image = NULL;
	pull->stats = (struct sm_oci_pull_stats){ 0 };
	return false;
}

/* The manifest goes in last, after all it names, and the reference after the manifest. */
static int from_source(struct pull *pull, struct sm_oci_image **ret_image, struct sm_error *err)
{
	SM_OCI_RESOLVED_CLEANUP struct sm_oci_resolved found = { 0 };
	struct sm_oci_image *image = NULL;
	int code = open_source(pull, err);
	if (!code && is_unchanged(pull, ret_image))
		return 0;
	if (code < 0 ||
	    (code = sm_oci_resolve(pull->source, &pull->store, pull->reference.digest, &pull->platform, &found, err)) <
	        0 ||
	    (code = sm_oci_image_new(&pull->store, pull->name, &pull->platform, found.digest, &found.parsed,
	                             found.config.data, found.config.len, &image, err)) < 0)
		return code;
	if ((code = fetch(pull, image, err)) < 0 ||
	    (code = keep(pull, sm_oci_image_get_config_digest(image), &found.config, err)) < 0 ||
	    (code = keep(pull, found.digest, &found.manifest, err)) < 0 ||
	    (code = remember(pull, found.digest, found.root, err)) < 0) {
		sm_oci_image_unref(image);
		return code;
	}
	*ret_image = image;
	return 0;
}

int sm_oci_pull(const struct sm_oci_pull_options *options, struct sm_oci_image **ret_image,
                struct sm_oci_pull_stats *ret_stats, struct sm_error *err)
{
	*ret_image = NULL;
	struct pull *pull = calloc(1, sizeof *pull);
	if (!pull)
		return sm_error_sys(err, ENOMEM, "pull");
	pull->options = options;
	pull->lock.fd = -1;
	int code = prepare(pull, err);
	if (!code) {
		bool never = options->policy == SM_OCI_PULL_NEVER;
		code = -ENOENT;
		if (options->policy != SM_OCI_PULL_ALWAYS || pull->reference.digest[0])
			code = from_store(pull, ret_image, never ? err : NULL);
		if (code < 0 && !never)
			code = from_source(pull, ret_image, err);
	}
	if (!code && (code = sm_oci_image_hold(*ret_image, err)) < 0) {
		sm_oci_image_unref(*ret_image);
		*ret_image = NULL;
	}
	sm_oci_store_unlock(&pull->lock);
	if (pull->source)
		pull->source->ops->free(pull->source);
	if (ret_stats)
		*ret_stats = pull->stats;
	/* What is no reference may hold a password. */
	if (code < 0 && pull->name[0])
		sm_error_context(err, "pull '%.200s'", options->reference);
	else if (code < 0)
		sm_error_context(err, "pull");
	free(pull);
	return code;
}
