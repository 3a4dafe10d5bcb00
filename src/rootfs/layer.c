#include "rootfs/layer.h"

#include "base/fd.h"
#include "base/path.h"
#include "rootfs/erofs_data.h"
#include "rootfs/erofs_write.h"
#include "rootfs/layer_tar.h"
#include "rootfs/lower.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_BYTES        (256ull << 30)
#define MAX_MEMORY_BYTES (1ull << 30)
#define MAX_ENTRIES      (2u << 20)
#define DIGEST_PREFIX    "sha256:"
#define REVISION         2 /* of what a layer's image says: images of another one are made anew */

/* What one bake holds; all of it is let go in one place. */
struct bake {
	struct sm_rootfs_options options;
	struct sm_layer_source source;
	struct sm_tree *tree;
	struct sm_path_new file;
	struct sm_out image;
	int spool_fd; /* unlinked: the tails of small files, until the inodes are written */
	struct sm_out spool;
	struct sm_erofs_data data;
	struct sm_lower lower;
};

static int digest_hex(const char *diff_id, const char **ret_hex, struct sm_error *err)
{
	size_t skip = strlen(DIGEST_PREFIX);
	const char *hex = diff_id + skip;
	if (strncmp(diff_id, DIGEST_PREFIX, skip) || strlen(hex) != SM_SHA256_HEX ||
	    strspn(hex, "0123456789abcdef") != SM_SHA256_HEX)
		return sm_error_set(err, EINVAL, "'%.100s' is no sha256 digest", diff_id);
	*ret_hex = hex;
	return 0;
}

int sm_rootfs_layer_path(const char *store, const char *diff_id, char out[PATH_MAX], struct sm_error *err)
{
	const char *hex;
	int code = digest_hex(diff_id, &hex, err);
	return code < 0 ? code : sm_path_format(out, err, "%s/erofs/sha256-%s.erofs", store, hex);
}

/* The first half of the digest and our revision, marked as a version 8 UUID (RFC 9562). */
static void digest_uuid(const char *hex, uint8_t uuid[16])
{
	for (int i = 0; i < 16; i++) {
		char byte[3] = { hex[2 * i], hex[2 * i + 1], 0 };
		uuid[i] = (uint8_t)strtoul(byte, NULL, 16);
	}
	uuid[15] ^= REVISION;
	uuid[6] = (uuid[6] & 0x0f) | 0x80;
	uuid[8] = (uuid[8] & 0x3f) | 0x80;
}

int sm_rootfs_layer_check(int fd, const char *diff_id)
{
	struct sm_erofs_label label = { 0 };
	const char *hex;
	int code = digest_hex(diff_id, &hex, NULL);
	if (code < 0)
		return code;
	digest_uuid(hex, label.uuid);
	return sm_erofs_check(fd, &label);
}

/* A sound image of that digest at out_path; `placed`: one that is right in its place alone will do. */
static bool try_reuse(const char *hex, const char *out_path, bool placed, struct sm_rootfs_layer_stats *stats)
{
	struct sm_erofs_label label = { 0 };
	struct stat status;
	SM_FD_CLEANUP int fd = open(out_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	digest_uuid(hex, label.uuid);
	if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || sm_erofs_check(fd, &label) < 0 ||
	    (label.placed && !placed))
		return false;
	stats->reused = true;
	stats->root_opaque = label.root_opaque;
	stats->image_bytes = (uint64_t)status.st_size;
	return true;
}

static bool find_image(const char *hex, const char *out_path, const struct sm_rootfs_below *below,
                       struct sm_rootfs_layer_stats *stats, struct sm_error *err)
{
	const char *chain;
	if (!hex)
		return false;
	memcpy(stats->digest, hex, SM_SHA256_HEX + 1);
	if (try_reuse(hex, out_path, !below, stats))
		return true;
	stats->chained =
	    below && digest_hex(below->chain_id, &chain, err) == 0 && try_reuse(chain, below->out_path, true, stats);
	return stats->chained;
}

/* A nameless file beside the image; where the file system cannot, a named one whose name goes at once. */
static int spool_open(const char *out_path, struct sm_error *err)
{
	char path[PATH_MAX];
	const char *slash = strrchr(out_path, '/');
	int len = slash ? (int)(slash - out_path) + 1 : 0;
	int code = sm_path_format(path, err, "%.*s.", len, out_path);
	if (code < 0)
		return code;
	int fd = open(path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0)
		return fd;
	code = sm_path_format(path, err, "%s.spool.XXXXXX", out_path);
	if (code < 0)
		return code;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return sm_error_sys(err, errno, "create '%s'", path);
	unlink(path);
	return fd;
}

static int bake_open(struct bake *bake, const struct sm_rootfs_tar *tar, const char *out_path, struct sm_error *err)
{
	const struct sm_rootfs_options *options = &bake->options;
	int code = sm_path_new_begin(&bake->file, out_path, 0644, err);
	if (code < 0)
		return code;
	bake->spool_fd = spool_open(out_path, err);
	if (bake->spool_fd < 0)
		return bake->spool_fd;
	code = sm_tree_new(options->max_memory_bytes, options->max_entries, &bake->tree, err);
	/* Block 0 is the super block's. */
	if (code == 0)
		code = sm_out_init(&bake->image, bake->file.fd, out_path, 4096, options->max_bytes, err);
	if (code == 0)
		code = sm_out_init(&bake->spool, bake->spool_fd, out_path, 0, options->max_bytes, err);
	if (code < 0)
		return code;
	sm_erofs_data_init(&bake->data, &bake->image, &bake->spool);
	const atomic_bool *const cancel[] = { options->cancel, options->stop };
	return sm_layer_source_open(&bake->source, tar, options->max_bytes, cancel, err);
}

static void bake_close(struct bake *bake)
{
	sm_layer_source_close(&bake->source);
	sm_erofs_data_done(&bake->data);
	sm_out_done(&bake->spool);
	sm_out_done(&bake->image);
	sm_tree_free(bake->tree);
	sm_lower_done(&bake->lower);
	sm_fd_close(&bake->spool_fd);
	sm_path_new_discard(&bake->file);
}

/* What the image is called, inside and out. */
static int set_label(struct bake *bake, const struct sm_rootfs_below *below, struct sm_rootfs_layer_stats *stats,
                     struct sm_erofs_label *label, struct sm_error *err)
{
	const char *hex = stats->digest;
	label->placed = bake->tree->asked_lower;
	stats->chained = below && label->placed;
	if (stats->chained) {
		int code = digest_hex(below->chain_id, &hex, err);
		if (code == 0)
			code = sm_path_format(bake->file.path, err, "%s", below->out_path);
		if (code < 0)
			return code;
	}
	digest_uuid(hex, label->uuid);
	return 0;
}

static int bake_layer(struct bake *bake, const char *hex, const struct sm_rootfs_below *below,
                      struct sm_rootfs_layer_stats *stats, struct sm_error *err)
{
	struct sm_erofs_label label = { 0 };
	if (below) {
		sm_lower_init(&bake->lower, below->open, below->arg);
		bake->tree->lower = &bake->lower;
	}
	int code = sm_layer_tar_read(&bake->source, bake->tree, &bake->data, bake->options.max_entries, stats, err);
	if (code < 0)
		return code;
	sm_sha256_final(bake->source.hash, stats->digest);
	if (hex && strcmp(hex, stats->digest))
		return sm_error_set(err, EBADMSG, "the unpacked content has the digest sha256:%s", stats->digest);
	code = set_label(bake, below, stats, &label, err);
	if (code < 0)
		return code;
	code = sm_tree_finish(bake->tree, err);
	if (code == 0)
		code = sm_out_flush(&bake->spool, err);
	if (code == 0)
		code = sm_erofs_write(bake->tree, &bake->image, bake->spool_fd, &label, err);
	if (code == 0)
		code = sm_path_new_commit(&bake->file, err);
	stats->tar_bytes = bake->source.bytes;
	stats->image_bytes = bake->image.offset;
	stats->inodes = bake->tree->nnodes;
	stats->whiteouts = bake->tree->nwhiteouts;
	stats->opaque_directories = bake->tree->nopaque;
	stats->root_opaque = bake->tree->root->opaque;
	return code;
}

static void set_defaults(struct sm_rootfs_options *options)
{
	if (!options->max_bytes)
		options->max_bytes = MAX_BYTES;
	if (options->max_bytes > SM_EROFS_IMAGE_MAX)
		options->max_bytes = SM_EROFS_IMAGE_MAX;
	if (!options->max_memory_bytes)
		options->max_memory_bytes = MAX_MEMORY_BYTES;
	if (!options->max_entries)
		options->max_entries = MAX_ENTRIES;
}

ssize_t sm_rootfs_tar_read(void *fd, void *buffer, size_t size)
{
	ssize_t got = read(*(const int *)fd, buffer, size);
	return got < 0 ? -errno : got;
}

int sm_rootfs_layer_bake(const struct sm_rootfs_tar *tar, const char *diff_id, const char *out_path,
                         const struct sm_rootfs_below *below, const struct sm_rootfs_options *options,
                         struct sm_rootfs_layer_stats *ret_stats, struct sm_error *err)
{
	struct sm_rootfs_layer_stats stats = { 0 };
	const char *hex = NULL;
	int code = diff_id ? digest_hex(diff_id, &hex, err) : 0;
	if (code < 0)
		return code;
	if (!find_image(hex, out_path, below, &stats, err)) {
		struct bake *bake = calloc(1, sizeof *bake);
		if (!bake)
			return sm_error_sys(err, ENOMEM, "bake layer");
		bake->options = options ? *options : (struct sm_rootfs_options){ 0 };
		bake->file.fd = bake->spool_fd = -1;
		set_defaults(&bake->options);
		code = bake_open(bake, tar, out_path, err);
		if (code == 0)
			code = bake_layer(bake, hex, below, &stats, err);
		bake_close(bake);
		free(bake);
	}
	if (code < 0)
		return sm_error_context(err, "layer %s", diff_id ? diff_id : out_path);
	if (ret_stats)
		*ret_stats = stats;
	return 0;
}
