/* One layer's tar becomes one read-only EROFS image.
 *
 * The file content goes into the image while the tar is read; directories and inodes follow; the super block is
 * last.  Memory grows with the number of entries, not with their content.  The image's bytes depend on the
 * layer alone: the same layer gives the same image anywhere.
 *
 * Whiteouts (OCI image specification, "Representing Changes") become what overlayfs reads in a lower layer: character
 * device 0/0 for a hidden name, trusted.overlay.opaque=y for a directory that hides those below it.  Their
 * place in the tar does not matter. */
#ifndef SM_ROOTFS_LAYER_H
#define SM_ROOTFS_LAYER_H

#include "base/error.h"
#include "base/sha256.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Where a layer's bytes come from, packed or not. */
struct sm_rootfs_tar {
	/* At most `size` bytes; 0 at the end, -errno.  Blocks. */
	ssize_t (*read)(void *arg, void *buffer, size_t size);
	void *arg;
};
/* As read of a descriptor, from its current position on; arg: an int's address. */
ssize_t sm_rootfs_tar_read(void *fd, void *buffer, size_t size);

/* What is below a layer that is not the lowest.  Most layers do not need it; it matters where one hard-links a file
 * that a lower layer has, which is copied, and where one has a path without its parents, which then are what is below:
 * a directory with its attributes, or a symlink to follow.  Such a layer's image is named by the chain id. */
struct sm_rootfs_below {
	const char *chain_id; /* "sha256:HEX" of this layer on those (OCI image-spec, config.md, "Layer ChainID") */
	const char *out_path; /* where the image goes that depends on them */
	/* Their images, lowest first.  Called when needed, at most once a bake, on its thread; may block.
	 * Descriptors and array are borrowed until the bake returns. */
	int (*open)(void *arg, const int **ret_fds, size_t *ret_count, struct sm_error *err);
	void *arg;
};

/* Limits; 0 stands for the default. */
struct sm_rootfs_options {
	uint64_t max_bytes;        /* of the image, and of the unpacked tar; 256 GiB */
	uint64_t max_memory_bytes; /* of names, attributes and hole maps; 1 GiB */
	uint32_t max_entries;      /* names, and entries of the tar; 2 Mi */
	const atomic_bool *cancel; /* looked at while reading; NULL: never cancelled */
	const atomic_bool *stop;   /* the same, of another owner */
};

struct sm_rootfs_layer_stats {
	char digest[SM_SHA256_HEX + 1]; /* of the unpacked tar, in hex */
	/* The layer hides all lower ones.  Overlayfs does not look at the mark on a layer's root: whoever mounts must
	 * leave the lower layers out. */
	bool root_opaque;
	uint64_t image_bytes;
	bool chained;       /* the image depends on the layers below: it is at their out_path */
	bool reused;        /* the image was there already: what follows is 0 */
	uint64_t tar_bytes; /* unpacked */
	uint64_t tar_entries;
	uint64_t inodes;
	uint64_t whiteouts;
	uint64_t opaque_directories; /* with the root */
	uint64_t ignored;            /* sockets and other tools' bookkeeping entries */
	uint64_t dropped_xattrs;     /* of namespaces that Linux lacks */
};

/* STORE/erofs/sha256-HEX.erofs for the diff id "sha256:HEX"; -EINVAL for anything else. */
int sm_rootfs_layer_path(const char *store, const char *diff_id, char out[PATH_MAX], struct sm_error *err);

/* Is the open file a whole image of the layer with this diff id, or chain id?  0 or -EBADMSG.  Content is not read. */
int sm_rootfs_layer_check(int fd, const char *diff_id);

/* Bake the layer (plain, gzip, zstd, bzip2 or xz) into out_path, whose folder exists; below: NULL for the lowest layer.
 * The unpacked tar must have the digest diff_id; with NULL any will do, and nothing is reused.  A sound image at
 * out_path (or below->out_path) is reused without reading the tar.  The file appears whole or not at all, so concurrent
 * bakes of one layer are safe.  Blocks; any thread.
 *
 * Errors name the layer and the entry: -EBADMSG for a damaged or hostile tar or a wrong digest, -E2BIG, -EFBIG, -ELOOP
 * and -ENAMETOOLONG for one over a limit, -ECANCELED, or what the file system said. */
int sm_rootfs_layer_bake(const struct sm_rootfs_tar *tar, const char *diff_id, const char *out_path,
                         const struct sm_rootfs_below *below, const struct sm_rootfs_options *options,
                         struct sm_rootfs_layer_stats *ret_stats, struct sm_error *err);

#endif
