/* OCI image layout as a source (OCI image-spec, image-layout.md). */
#include "base/fd.h"
#include "base/path.h"
#include "oci/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK    (256u << 10)
#define REF_NAME "org.opencontainers.image.ref.name"

struct layout {
	struct sm_oci_source source;
	char path[PATH_MAX];
	char tag[256];
	const atomic_bool *cancel;
	char *chunk;
};

static struct layout *layout_of(struct sm_oci_source *source)
{
	return (struct layout *)source;
}

static int read_file(struct layout *layout, const char *name, sm_oci_sink sink, void *arg, struct sm_error *err)
{
	char path[PATH_MAX];
	struct stat status;
	int code = sm_path_format(path, err, "%s/%s", layout->path, name);
	if (code < 0)
		return code;
	/* O_NONBLOCK: a FIFO in a blob's place must not hang the pull. */
	SM_FD_CLEANUP int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return sm_error_sys(err, errno, "open '%s'", path);
	if (fstat(fd, &status) < 0)
		return sm_error_sys(err, errno, "'%s'", path);
	if (!S_ISREG(status.st_mode))
		return sm_error_set(err, EBADMSG, "'%s' is not a regular file", path);
	for (;;) {
		if (layout->cancel && atomic_load(layout->cancel))
			return sm_error_sys(err, ECANCELED, "read '%s'", path);
		ssize_t got = read(fd, layout->chunk, CHUNK);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return sm_error_sys(err, errno, "read '%s'", path);
		if (got == 0)
			return 0;
		if ((code = sink(arg, layout->chunk, (size_t)got)) < 0)
			return code;
	}
}

static int read_small(struct layout *layout, const char *name, struct sm_buf *ret, struct sm_error *err)
{
	struct sm_error own = { 0 };
	int code = read_file(layout, name, sm_oci_source_collect, ret, &own);
	if (code == -EFBIG && !own.code)
		return sm_error_set(err, EFBIG, "'%s/%s': larger than %zu bytes", layout->path, name, ret->max);
	if (code < 0 && own.code)
		return sm_error_set(err, own.code, "%s", own.message);
	return code < 0 ? sm_error_sys(err, code, "read '%s/%s'", layout->path, name) : 0;
}

static int blob_name(const char *digest, char out[100], struct sm_error *err)
{
	int code = sm_oci_digest_check(digest, "blob", err);
	if (!code)
		snprintf(out, 100, "blobs/sha256/%s", sm_oci_digest_hex(digest));
	return code;
}

static const char *ref_name(const cJSON *entry)
{
	const cJSON *annotations = cJSON_GetObjectItemCaseSensitive(entry, "annotations");
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(annotations, REF_NAME));
}

static void list_tags(const cJSON *entries, struct sm_buf *out)
{
	const cJSON *entry;
	cJSON_ArrayForEach(entry, entries)
	{
		const char *name = ref_name(entry);
		if (name)
			sm_buf_printf(out, "%s%.100s", out->len ? ", " : "", name);
	}
}

/* Leaves in index.json what the tag names.  Without a tag there must be no choice between names. */
static int keep_tag(struct layout *layout, cJSON *entries, struct sm_error *err)
{
	SM_BUF_CLEANUP struct sm_buf tags;
	sm_buf_init(&tags, 4096);
	list_tags(entries, &tags);
	const char *there = tags.len ? sm_buf_str(&tags) : NULL;
	const char *first = ref_name(entries->child);
	for (cJSON *entry = entries->child, *next; entry; entry = next) {
		next = entry->next;
		const char *name = ref_name(entry);
		if (layout->tag[0]) {
			if (!name || strcmp(name, layout->tag))
				cJSON_Delete(cJSON_DetachItemViaPointer(entries, entry));
		} else if ((name && first) ? strcmp(name, first) : name != first) {
			return sm_error_set(err, EINVAL, "layout '%s' holds several images, name one: %s", layout->path,
			                    there ? there : "(many)");
		}
	}
	if (entries->child)
		return 0;
	if (!layout->tag[0])
		return sm_error_set(err, ENOENT, "layout '%s' holds no image", layout->path);
	return sm_error_set(err, ENOENT, "layout '%s' has no tag '%s'; it has: %s", layout->path, layout->tag,
	                    there ? there : "none");
}

/* The reference's answer is index.json itself, with only the entries the tag names. */
static int root_index(struct layout *layout, struct sm_buf *ret, struct sm_error *err)
{
	char what[PATH_MAX];
	const cJSON *entries;
	SM_BUF_CLEANUP struct sm_buf text;
	sm_buf_init(&text, ret->max);
	int code = sm_path_format(what, err, "%s/index.json", layout->path);
	if (code < 0 || (code = read_small(layout, "index.json", &text, err)) < 0)
		return code;
	SM_JSON_CLEANUP cJSON *root = NULL;
	if ((code = sm_json_parse((const char *)text.data, text.len, what, &root, err)) < 0 ||
	    (code = sm_json_get_array(root, "manifests", what, &entries, err)) < 0 ||
	    (code = keep_tag(layout, (cJSON *)entries, err)) < 0)
		return code;
	char *printed = cJSON_PrintUnformatted(root);
	code = printed ? sm_buf_append_str(ret, printed) : -ENOMEM;
	free(printed);
	return code < 0 ? sm_error_sys(err, code, "%s", what) : 0;
}

static int layout_manifest(struct sm_oci_source *source, const char *digest, struct sm_buf *ret,
                           char ret_media_type[SM_OCI_MEDIA_TYPE_SIZE], struct sm_error *err)
{
	char name[100];
	ret_media_type[0] = 0;
	if (!digest) {
		snprintf(ret_media_type, SM_OCI_MEDIA_TYPE_SIZE, "%s", SM_OCI_TYPE_INDEX);
		return root_index(layout_of(source), ret, err);
	}
	int code = blob_name(digest, name, err);
	return code < 0 ? code : read_small(layout_of(source), name, ret, err);
}

static int layout_blob(struct sm_oci_source *source, const char *digest, sm_oci_sink sink, void *arg,
                       struct sm_error *err)
{
	char name[100];
	int code = blob_name(digest, name, err);
	return code < 0 ? code : read_file(layout_of(source), name, sink, arg, err);
}

static void layout_free(struct sm_oci_source *source)
{
	free(layout_of(source)->chunk);
	free(source);
}

static const struct sm_oci_source_ops layout_ops = {
	.manifest = layout_manifest,
	.blob = layout_blob,
	.free = layout_free,
};

static int check_version(struct layout *layout, struct sm_error *err)
{
	const char *version;
	SM_BUF_CLEANUP struct sm_buf text;
	sm_buf_init(&text, 64u << 10);
	int code = read_small(layout, "oci-layout", &text, err);
	if (code < 0)
		return sm_error_context(err, "no OCI image layout");
	SM_JSON_CLEANUP cJSON *root = NULL;
	if ((code = sm_json_parse((const char *)text.data, text.len, "oci-layout", &root, err)) < 0 ||
	    (code = sm_json_get_string(root, "imageLayoutVersion", "oci-layout", &version, err)) < 0)
		return sm_error_context(err, "layout '%s'", layout->path);
	if (strncmp(version, "1.", 2))
		return sm_error_set(err, EOPNOTSUPP, "layout '%s': version %.40s is not supported, only 1",
		                    layout->path, version);
	return 0;
}

int sm_oci_layout_open(const struct sm_oci_reference *reference, const struct sm_oci_source_options *options,
                       struct sm_oci_source **ret, struct sm_error *err)
{
	struct layout *layout = calloc(1, sizeof *layout);
	if (!layout || !(layout->chunk = malloc(CHUNK))) {
		free(layout);
		return sm_error_sys(err, ENOMEM, "open layout");
	}
	layout->source.ops = &layout_ops;
	layout->cancel = options->cancel;
	snprintf(layout->path, sizeof layout->path, "%s", reference->path);
	snprintf(layout->tag, sizeof layout->tag, "%s", reference->tag);
	int code = check_version(layout, err);
	if (code < 0) {
		layout_free(&layout->source);
		return code;
	}
	*ret = &layout->source;
	return 0;
}
