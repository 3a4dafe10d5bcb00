#include "rootfs/lower.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define COPY_BYTES (256u << 10)

void sm_lower_init(struct sm_lower *lower, sm_lower_open open, void *arg)
{
	*lower = (struct sm_lower){ .open = open, .arg = arg };
}

void sm_lower_done(struct sm_lower *lower)
{
	free(lower->images);
	free(lower->merged);
	lower->images = NULL;
	lower->merged = NULL;
}

static int context(struct sm_error *err, size_t layer)
{
	return sm_error_context(err, "lower layer %zu", layer + 1);
}

static int open_images(struct sm_lower *lower, struct sm_error *err)
{
	const int *fds;
	size_t count;
	int code = lower->open(lower->arg, &fds, &count, err);
	if (code < 0)
		return code;
	lower->images = calloc(count ? count : 1, sizeof *lower->images);
	lower->merged = calloc(count ? count : 1, sizeof *lower->merged);
	if (!lower->images || !lower->merged)
		return sm_error_sys(err, ENOMEM, "lower layers");
	for (lower->count = 0; lower->count < count; lower->count++) {
		code = sm_erofs_image_open(&lower->images[lower->count], fds[lower->count], err);
		if (code < 0)
			return context(err, lower->count);
	}
	return 0;
}

static bool is_whiteout(const struct sm_erofs_inode *inode)
{
	return S_ISCHR(inode->mode) && !inode->major && !inode->minor;
}

/* Look the name up in the directories that are merged here, highest first, and leave those that are merged at the
 * name.  1 and the topmost file, or 0. */
static int descend(struct sm_lower *lower, const char *name, size_t len, struct sm_lower_file *ret_file,
                   struct sm_error *err)
{
	size_t kept = 0, old = lower->nmerged;
	bool found = false;
	lower->nmerged = 0;
	for (size_t i = 0; i < old; i++) {
		struct sm_lower_file file = { .layer = lower->merged[i].layer };
		int code = sm_erofs_image_lookup(&lower->images[file.layer], &lower->merged[i].inode, name, len,
		                                 &file.inode, err);
		if (code < 0)
			return context(err, file.layer);
		if (code == 0)
			continue;
		if (is_whiteout(&file.inode))
			break;
		if (!found)
			*ret_file = file;
		if (!S_ISDIR(file.inode.mode)) {
			found = true;
			break;
		}
		found = true;
		lower->merged[kept++] = file;
		if (file.inode.opaque)
			break;
	}
	lower->nmerged = kept;
	return found;
}

/* The roots, highest first.  An opaque one hides the rest: whoever mounts leaves those out. */
static int begin(struct sm_lower *lower, struct sm_error *err)
{
	lower->at[0] = 0;
	lower->nmerged = 0;
	for (size_t i = lower->count; i-- > 0;) {
		struct sm_lower_file root = { .layer = i };
		int code = sm_erofs_image_inode(&lower->images[i], lower->images[i].root_nid, &root.inode, err);
		if (code < 0) {
			lower->nmerged = 0;
			return context(err, i);
		}
		lower->merged[lower->nmerged++] = root;
		if (root.inode.opaque)
			break;
	}
	return 0;
}

/* Paths are asked for from their first component on, each a little longer: go on from the last one's directory, or
 * deep paths would cost their depth squared. */
int sm_lower_find(struct sm_lower *lower, const char *path, struct sm_lower_file *ret_file, struct sm_error *err)
{
	int code = lower->images ? 0 : open_images(lower, err);
	size_t done = strlen(lower->at), len;
	if (code == 0 &&
	    (!lower->nmerged || strncmp(path, lower->at, done) || (done && path[done] && path[done] != '/'))) {
		code = begin(lower, err);
		done = 0;
	}
	if (code < 0)
		return code;
	if (lower->nmerged)
		*ret_file = lower->merged[0];
	int found = lower->nmerged > 0;
	for (const char *name = path + done; found > 0 && *name; name += len) {
		name += *name == '/';
		len = strcspn(name, "/");
		found = lower->nmerged ? descend(lower, name, len, ret_file, err) : 0;
		memcpy(lower->at, path, (size_t)(name + len - path));
		lower->at[name + len - path] = 0;
	}
	return found;
}

int sm_lower_target(struct sm_lower *lower, const struct sm_lower_file *file, char *out, size_t max,
                    struct sm_error *err)
{
	bool hole = false;
	size_t used = 0;
	if (file->inode.size >= max)
		return sm_error_set(err, ENAMETOOLONG, "symlink target of %llu bytes",
		                    (unsigned long long)file->inode.size);
	while (used < file->inode.size) {
		ssize_t got = sm_erofs_image_read(&lower->images[file->layer], &file->inode, used, out + used,
		                                  (size_t)file->inode.size - used, &hole, err);
		if (got < 0)
			return context(err, file->layer);
		if (!got || hole)
			return sm_error_set(err, EBADMSG, "lower layer %zu: the image is damaged", file->layer + 1);
		used += (size_t)got;
	}
	out[used] = 0;
	return 0;
}

int sm_lower_xattrs(struct sm_lower *lower, const struct sm_lower_file *file, struct sm_arena *arena,
                    const void **ret_xattrs, struct sm_error *err)
{
	*ret_xattrs = NULL;
	if (!file->inode.xattr_bytes)
		return 0;
	void *data = sm_arena_alloc(arena, file->inode.xattr_bytes);
	if (!data)
		return sm_error_sys(err, errno, "extended attributes");
	*ret_xattrs = data;
	int code = sm_erofs_image_xattrs(&lower->images[file->layer], &file->inode, data, err);
	return code < 0 ? context(err, file->layer) : 0;
}

int sm_lower_copy(struct sm_lower *lower, const struct sm_lower_file *file, struct sm_erofs_data *data,
                  struct sm_arena *arena, struct sm_tree_data *ret_data, struct sm_error *err)
{
	uint8_t *buffer = malloc(COPY_BYTES);
	if (!buffer)
		return sm_error_sys(err, ENOMEM, "copy a lower layer's file");
	int code = sm_erofs_data_begin(data, file->inode.size, err);
	for (uint64_t offset = 0; code == 0 && offset < file->inode.size;) {
		bool hole;
		ssize_t got = sm_erofs_image_read(&lower->images[file->layer], &file->inode, offset, buffer, COPY_BYTES,
		                                  &hole, err);
		if (got < 0)
			code = context(err, file->layer);
		else if (!hole)
			code = sm_erofs_data_put(data, offset, buffer, (size_t)got, err);
		offset += got > 0 ? (uint64_t)got : 0;
	}
	free(buffer);
	return code < 0 ? code : sm_erofs_data_end(data, arena, ret_data, err);
}
