/* OCI image layout as a source: a folder, or the same in a tar (OCI image-spec, image-layout.md). */
#include "base/path.h"
#include "oci/archive.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REF_NAME   "org.opencontainers.image.ref.name"
#define IMAGE_NAME "io.containerd.image.name" /* what docker and containerd write beside it */

struct layout {
	struct sm_oci_source source;
	struct sm_oci_files *files;
	char tag[256];
	int index;
};

static struct layout *layout_of(struct sm_oci_source *source)
{
	return (struct layout *)source;
}

static int blob_name(const char *digest, char out[100], struct sm_error *err)
{
	int code = sm_oci_digest_check(digest, "blob", err);
	if (!code)
		snprintf(out, 100, "blobs/sha256/%s", sm_oci_digest_hex(digest));
	return code;
}

static const char *annotation(const cJSON *entry, const char *name)
{
	const cJSON *annotations = cJSON_GetObjectItemCaseSensitive(entry, "annotations");
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(annotations, name));
}

/* The fullest name an entry has, or NULL: ref.name may be a tag alone, which several images can share. */
static const char *full_name(const cJSON *entry)
{
	const char *name = annotation(entry, IMAGE_NAME);
	return name ? name : annotation(entry, REF_NAME);
}

static bool same_name(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static void list_names(const cJSON *entries, struct sm_buf *out)
{
	const cJSON *entry;
	cJSON_ArrayForEach(entry, entries)
	{
		const char *name = full_name(entry);
		if (name)
			sm_buf_printf(out, "%s%.100s", out->len ? ", " : "", name);
	}
}

static bool is_wanted(const struct layout *layout, const cJSON *entry, int number)
{
	const char *name = annotation(entry, REF_NAME), *full = annotation(entry, IMAGE_NAME);
	if (layout->index >= 0)
		return number == layout->index;
	return !layout->tag[0] || (name && !strcmp(name, layout->tag)) || (full && !strcmp(full, layout->tag));
}

/* Leaves in index.json what the tag or the number names.  There must be no choice left between names; entries of one
 * name are its platforms. */
static int keep_wanted(struct layout *layout, cJSON *entries, struct sm_error *err)
{
	SM_BUF_CLEANUP struct sm_buf names;
	sm_buf_init(&names, 4096);
	list_names(entries, &names);
	const char *path = layout->files->path;
	const char *there = names.len ? sm_buf_str(&names) : "none";
	const cJSON *first = NULL;
	int number = 0;
	for (cJSON *entry = entries->child, *next; entry; entry = next, number++) {
		next = entry->next;
		if (!is_wanted(layout, entry, number))
			cJSON_Delete(cJSON_DetachItemViaPointer(entries, entry));
		else if (!first)
			first = entry;
		else if (!same_name(full_name(entry), full_name(first)))
			return sm_error_set(err, EINVAL, "layout '%s' holds several images, name one: %s", path,
			                    there ? there : "(many)");
	}
	if (first)
		return 0;
	if (!number)
		return sm_error_set(err, ENOENT, "layout '%s' holds no image", path);
	if (layout->index >= 0)
		return sm_error_set(err, ENOENT, "layout '%s' has no image @%d; it has %d, from @0", path,
		                    layout->index, number);
	return sm_error_set(err, ENOENT, "layout '%s' has no tag '%s'; it has: %s", path, layout->tag,
	                    there ? there : "(many)");
}

/* The reference's answer is index.json itself, with only the entries that the tag names. */
static int root_index(struct layout *layout, struct sm_buf *ret, struct sm_error *err)
{
	char what[PATH_MAX];
	const cJSON *entries;
	SM_BUF_CLEANUP struct sm_buf text;
	sm_buf_init(&text, ret->max);
	int code = sm_path_format(what, err, "%s/index.json", layout->files->path);
	if (code < 0 || (code = sm_oci_files_read_small(layout->files, "index.json", &text, err)) < 0)
		return code;
	SM_JSON_CLEANUP cJSON *root = NULL;
	if ((code = sm_json_parse((const char *)text.data, text.len, what, &root, err)) < 0 ||
	    (code = sm_json_get_array(root, "manifests", what, &entries, err)) < 0 ||
	    (code = keep_wanted(layout, (cJSON *)entries, err)) < 0)
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
	return code < 0 ? code : sm_oci_files_read_small(layout_of(source)->files, name, ret, err);
}

static int layout_blob(struct sm_oci_source *source, const char *digest, sm_oci_sink sink, void *arg,
                       struct sm_error *err)
{
	char name[100];
	int code = blob_name(digest, name, err);
	return code < 0 ? code : sm_oci_files_read(layout_of(source)->files, name, sink, arg, err);
}

static void layout_free(struct sm_oci_source *source)
{
	sm_oci_files_free(layout_of(source)->files);
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
	int code = sm_oci_files_read_small(layout->files, "oci-layout", &text, err);
	if (code < 0)
		return sm_error_context(err, "no OCI image layout");
	SM_JSON_CLEANUP cJSON *root = NULL;
	if ((code = sm_json_parse((const char *)text.data, text.len, "oci-layout", &root, err)) < 0 ||
	    (code = sm_json_get_string(root, "imageLayoutVersion", "oci-layout", &version, err)) < 0)
		return sm_error_context(err, "layout '%s'", layout->files->path);
	if (strncmp(version, "1.", 2))
		return sm_error_set(err, EOPNOTSUPP, "layout '%s': version %.40s is not supported, only 1",
		                    layout->files->path, version);
	return 0;
}

int sm_oci_layout_open(const struct sm_oci_reference *reference, const struct sm_oci_source_options *options,
                       struct sm_oci_source **ret, struct sm_error *err)
{
	struct layout *layout = calloc(1, sizeof *layout);
	if (!layout)
		return sm_error_sys(err, ENOMEM, "open layout");
	bool packed = reference->kind == SM_OCI_REFERENCE_OCI_ARCHIVE;
	layout->source.ops = &layout_ops;
	layout->index = reference->index;
	snprintf(layout->tag, sizeof layout->tag, "%s", reference->tag);
	int code = packed ? sm_oci_archive_open(reference->path, options->cancel, &layout->files, err)
	                  : sm_oci_files_open_folder(reference->path, options->cancel, &layout->files, err);
	if (code < 0 || (code = check_version(layout, err)) < 0) {
		layout_free(&layout->source);
		return code;
	}
	*ret = &layout->source;
	return 0;
}
