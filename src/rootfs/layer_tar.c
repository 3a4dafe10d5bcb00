#include "rootfs/layer_tar.h"

#include "rootfs/lower.h"
#include "rootfs/xattr.h"

#include <errno.h>
#include <locale.h>
#include <string.h>

/* Bytes of tar that one step of the library may take.  A pax header has at most 1 MiB each; only maps of sparse files
 * grow without bound, and the library keeps more memory for one than the map has bytes. */
#define STEP_BYTES_MAX (8u << 20)
#define TAR_BLOCK      512u

struct walk {
	struct sm_layer_source *source;
	struct sm_tree *tree;
	struct sm_erofs_data *data;
	struct sm_rootfs_layer_stats *stats;
	struct sm_oci_archive_library lib;
	struct archive *tar;
	uint64_t step_end;             /* the source's count of bytes that the step under way may not pass */
	bool filled;                   /* zeros were given for what the last block lacks */
	char shown[SM_TREE_SHOWN_MAX]; /* the entry under way, or the last one */
};

static la_ssize_t tar_read(struct archive *tar, void *arg, const void **ret_data)
{
	struct walk *walk = arg;
	struct sm_layer_source *source = walk->source;
	static const uint8_t zeros[TAR_BLOCK];
	ssize_t got = sm_layer_source_read(source, ret_data);
	/* Some archivers end with the last file's last byte: what they leave out are zeros, which no digest covers. */
	if (got == 0 && source->bytes % TAR_BLOCK && !walk->filled) {
		walk->filled = true;
		*ret_data = zeros;
		return (la_ssize_t)(TAR_BLOCK - source->bytes % TAR_BLOCK);
	}
	if (got > 0 && source->bytes > walk->step_end)
		got = sm_error_set(&source->err, E2BIG, "the headers of one entry have more than %u bytes",
		                   STEP_BYTES_MAX);
	if (got < 0)
		walk->lib.set_error(tar, source->err.code, "%s", source->err.message);
	return got;
}

/* Before each call that reads headers. */
static void step(struct walk *walk)
{
	walk->step_end = walk->source->bytes + STEP_BYTES_MAX;
}

/* The source's own failure says more than what the tar reader made of it. */
static int tar_failed(const struct walk *walk, struct sm_error *err)
{
	const char *why = walk->lib.error_string(walk->tar);
	if (walk->source->err.code) {
		*err = walk->source->err;
		return -err->code;
	}
	return sm_error_set(err, walk->lib.error_number(walk->tar) == ENOMEM ? ENOMEM : EBADMSG, "%s",
	                    why ? why : "damaged tar");
}

/* Is what the reader has taken, and so many bytes more, the layer's own? */
static int check_given(const struct walk *walk, size_t more, struct sm_error *err)
{
	if ((uint64_t)walk->lib.filter_bytes(walk->tar, 0) + more <= walk->source->bytes)
		return 0;
	return sm_error_set(err, EBADMSG, "Truncated tar archive");
}

/* Between entries. */
static int header_context(const struct walk *walk, int code, struct sm_error *err)
{
	if (code == -ECANCELED)
		return code;
	return walk->shown[0] ? sm_error_context(err, "after entry '%s'", walk->shown)
	                      : sm_error_context(err, "first entry");
}

static int header_failed(const struct walk *walk, struct sm_error *err)
{
	return header_context(walk, tar_failed(walk, err), err);
}

/* Names are bytes here as they are in Linux, so the walk is in the C locale, where the library keeps what it cannot
 * convert and warns.  (In a UTF-8 locale it would compose decomposed characters: other names.)  Any other
 * warning means that something was left out. */
static bool is_harmless(const struct walk *walk)
{
	const char *why = walk->lib.error_string(walk->tar);
	return why && strstr(why, "can't be converted");
}

static int check_range(int64_t value, int64_t max, const char *what, struct sm_error *err)
{
	if (value < 0 || value > max)
		return sm_error_set(err, EBADMSG, "%s %lld is out of range", what, (long long)value);
	return 0;
}

static int take_device(const struct walk *walk, struct archive_entry *entry, struct sm_tree_attributes *attributes,
                       struct sm_error *err)
{
	dev_t major_number = walk->lib.entry_rdevmajor(entry), minor_number = walk->lib.entry_rdevminor(entry);
	if (S_ISCHR(attributes->mode) && major_number == 0 && minor_number == 0)
		return sm_error_set(err, EBADMSG, "character device 0/0 is overlayfs's own mark of a whiteout");
	if (major_number > 0xfff || minor_number > 0xfffff)
		return sm_error_set(err, EBADMSG, "device number %llu/%llu is out of range",
		                    (unsigned long long)major_number, (unsigned long long)minor_number);
	attributes->major = (uint32_t)major_number;
	attributes->minor = (uint32_t)minor_number;
	return 0;
}

static int take_symlink(const struct walk *walk, struct archive_entry *entry, struct sm_tree_attributes *attributes,
                        struct sm_error *err)
{
	attributes->target = walk->lib.entry_symlink(entry);
	if (!attributes->target || !attributes->target[0])
		return sm_error_set(err, EBADMSG, "symlink without a target");
	if (strlen(attributes->target) >= SM_TREE_TARGET_MAX)
		return sm_error_set(err, ENAMETOOLONG, "symlink target of %zu bytes, at most %d fit",
		                    strlen(attributes->target), SM_TREE_TARGET_MAX - 1);
	return 0;
}

/* The library gives the sign of a pax header's "-7.25" to the seconds alone: -7 and 250,000,000 ns, where what is meant
 * is -8 and 750,000,000. */
static int take_time(const struct walk *walk, struct archive_entry *entry, struct sm_tree_attributes *attributes,
                     struct sm_error *err)
{
	int64_t seconds = walk->lib.entry_mtime(entry);
	long nanoseconds = walk->lib.entry_mtime_nsec(entry);
	int code = check_range(nanoseconds, 999999999, "nanoseconds", err);
	if (seconds < 0 && seconds > INT64_MIN && nanoseconds > 0) {
		seconds--;
		nanoseconds = 1000000000 - nanoseconds;
	}
	attributes->mtime = seconds;
	attributes->mtime_nsec = (uint32_t)nanoseconds;
	return code;
}

static int take_attributes(struct walk *walk, struct archive_entry *entry, struct sm_tree_attributes *attributes,
                           struct sm_error *err)
{
	int64_t uid = walk->lib.entry_uid(entry), gid = walk->lib.entry_gid(entry);
	*attributes = (struct sm_tree_attributes){
		.mode = walk->lib.entry_filetype(entry) | (walk->lib.entry_perm(entry) & 07777),
		.uid = (uint32_t)uid,
		.gid = (uint32_t)gid,
	};
	int code = check_range(uid, UINT32_MAX - 1, "owner", err);
	if (code == 0)
		code = check_range(gid, UINT32_MAX - 1, "group", err);
	if (code == 0 && walk->lib.entry_mtime_is_set(entry)) {
		code = take_time(walk, entry, attributes, err);
	}
	if (code == 0 && S_ISREG(attributes->mode)) {
		code = check_range(walk->lib.entry_size(entry), INT64_MAX, "size", err);
		attributes->size = (uint64_t)walk->lib.entry_size(entry);
	}
	if (code == 0 && (S_ISCHR(attributes->mode) || S_ISBLK(attributes->mode)))
		code = take_device(walk, entry, attributes, err);
	if (code == 0 && S_ISLNK(attributes->mode))
		code = take_symlink(walk, entry, attributes, err);
	if (code == 0)
		code = sm_xattr_encode(&walk->lib, entry, &walk->tree->arena, &attributes->xattrs,
		                       &attributes->xattr_bytes, &walk->stats->dropped_xattrs, err);
	return code;
}

static int take_content(struct walk *walk, uint64_t size, struct sm_tree_node *node, struct sm_error *err)
{
	int code = sm_erofs_data_begin(walk->data, size, err);
	while (code == 0) {
		const void *bytes;
		size_t len;
		la_int64_t offset;
		step(walk);
		int status = walk->lib.read_data_block(walk->tar, &bytes, &len, &offset);
		if (status == ARCHIVE_EOF)
			break;
		if (status != ARCHIVE_OK)
			return tar_failed(walk, err);
		if (len == 0)
			continue;
		code = check_given(walk, len, err);
		if (code == 0 && offset < 0)
			code = sm_error_set(err, EBADMSG, "content at a negative offset");
		if (code == 0)
			code = sm_erofs_data_put(walk->data, (uint64_t)offset, bytes, len, err);
	}
	return code < 0 ? code : sm_erofs_data_end(walk->data, &walk->tree->arena, &node->data, err);
}

static int take_link(struct walk *walk, const char *path, const char *raw_target, struct sm_error *err)
{
	char target[SM_TREE_PATH_MAX];
	struct sm_tree_node *copy;
	struct sm_lower_file file;
	int code = sm_tree_path_clean(raw_target, "hard link target", target, err);
	if (code == 0)
		code = sm_tree_link(walk->tree, path, target, &copy, &file, err);
	if (code > 0 && S_ISREG(copy->mode))
		code = sm_lower_copy(walk->tree->lower, &file, walk->data, &walk->tree->arena, &copy->data, err);
	return code < 0 ? code : 0;
}

static int take_entry(struct walk *walk, struct archive_entry *entry, struct sm_error *err)
{
	char path[SM_TREE_PATH_MAX];
	enum sm_tree_whiteout whiteout;
	const char *raw = walk->lib.entry_pathname(entry);
	if (!raw)
		return sm_error_set(err, EBADMSG, "entry without a name");
	sm_tree_path_shown(raw, walk->shown);
	int code = sm_tree_path_clean(raw, "path", path, err);
	if (code == 0)
		code = sm_tree_path_whiteout(path, &whiteout, err);
	if (code < 0)
		return code;
	unsigned type = walk->lib.entry_filetype(entry);
	/* Tars from before directories had a type of their own. */
	if (type == AE_IFREG && raw[strlen(raw) - 1] == '/') {
		type = AE_IFDIR;
		walk->lib.entry_set_filetype(entry, type);
	}
	const char *target = walk->lib.entry_hardlink(entry);
	if (whiteout == SM_TREE_IGNORED || (type == AE_IFSOCK && !target)) {
		walk->stats->ignored++;
		return 0;
	}
	if (whiteout == SM_TREE_HIDE)
		return sm_tree_hide(walk->tree, path, err);
	if (whiteout == SM_TREE_OPAQUE)
		return sm_tree_opaque(walk->tree, path, err);
	if (target)
		return take_link(walk, path, target, err);
	if (!type)
		return sm_error_set(err, EBADMSG, "entry of an unknown kind");
	struct sm_tree_attributes attributes;
	struct sm_tree_node *node;
	code = take_attributes(walk, entry, &attributes, err);
	if (code == 0)
		code = sm_tree_add(walk->tree, path, &attributes, &node, err);
	if (code == 0 && S_ISREG(attributes.mode))
		code = take_content(walk, attributes.size, node, err);
	return code;
}

static int walk_entries(struct walk *walk, uint64_t max_entries, struct sm_error *err)
{
	for (;;) {
		struct archive_entry *entry;
		step(walk);
		int status = walk->lib.read_next_header(walk->tar, &entry);
		if (status == ARCHIVE_EOF)
			return sm_tree_settle(walk->tree, err);
		if (status != ARCHIVE_OK && !(status == ARCHIVE_WARN && is_harmless(walk)))
			return header_failed(walk, err);
		int code = check_given(walk, 0, err);
		if (code < 0)
			return header_context(walk, code, err);
		if (++walk->stats->tar_entries > max_entries)
			return sm_error_set(err, E2BIG, "the layer has more than %llu entries",
			                    (unsigned long long)max_entries);
		code = take_entry(walk, entry, err);
		/* What nobody wanted of the content is no header. */
		walk->step_end = UINT64_MAX;
		if (code == 0 && walk->lib.read_data_skip(walk->tar) != ARCHIVE_OK)
			code = tar_failed(walk, err);
		if (code < 0)
			return code == -ECANCELED ? code : sm_error_context(err, "entry '%s'", walk->shown);
	}
}

static int open_tar(struct walk *walk, struct sm_error *err)
{
	int code = sm_oci_archive_library_load(&walk->lib, err);
	if (code < 0)
		return code;
	step(walk);
	walk->tar = walk->lib.read_new();
	if (!walk->tar)
		return sm_error_sys(err, ENOMEM, "read tar");
	if (walk->lib.read_support_format_tar(walk->tar) != ARCHIVE_OK ||
	    walk->lib.read_support_format_empty(walk->tar) != ARCHIVE_OK ||
	    walk->lib.read_open(walk->tar, walk, NULL, tar_read, NULL) != ARCHIVE_OK)
		return header_failed(walk, err);
	return 0;
}

/* What follows the archive's end mark belongs to the digest. */
static int drain(struct sm_layer_source *source, struct sm_error *err)
{
	const void *data;
	ssize_t got;
	while ((got = sm_layer_source_read(source, &data)) > 0)
		continue;
	if (got < 0)
		*err = source->err;
	return (int)got;
}

int sm_layer_tar_read(struct sm_layer_source *source, struct sm_tree *tree, struct sm_erofs_data *data,
                      uint64_t max_entries, struct sm_rootfs_layer_stats *stats, struct sm_error *err)
{
	struct walk walk = { .source = source, .tree = tree, .data = data, .stats = stats };
	locale_t locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	if (!locale)
		return sm_error_sys(err, errno, "locale C");
	locale_t before = uselocale(locale);
	int code = open_tar(&walk, err);
	if (code == 0)
		code = walk_entries(&walk, max_entries, err);
	/* After a failure free alone keeps what the reader holds. */
	if (walk.tar) {
		walk.lib.read_close(walk.tar);
		walk.lib.read_free(walk.tar);
	}
	uselocale(before);
	freelocale(locale);
	return code < 0 ? code : drain(source, err);
}
