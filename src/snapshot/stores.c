#include "snapshot/stores.h"

#include "base/json.h"
#include "base/path.h"
#include "snapshot/format.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int add_store(struct sm_snapshot_stores *stores, const char *path, const char *snapshot, struct sm_error *err)
{
	for (unsigned i = 0; i < stores->count; i++)
		if (!strcmp(stores->stores[i].path, path))
			return 0;
	if (stores->count == SM_SNAPSHOT_STORES_MAX)
		return sm_error_set(err, E2BIG, "disks out of more than %d image stores", SM_SNAPSHOT_STORES_MAX);
	struct sm_oci_store *store = &stores->stores[stores->count];
	int code = sm_oci_store_init(store, path, err);
	if (code == 0)
		code = sm_oci_store_lock(store, SM_OCI_LOCK_SHARED, NULL, &stores->locks[stores->count], err);
	if (code < 0)
		return code;
	stores->count++;
	return sm_oci_store_add_root(store, snapshot, err);
}

int sm_snapshot_stores_begin(const struct sm_sources *sources, const char *path, struct sm_snapshot_stores *ret,
                             struct sm_error *err)
{
	char parent[PATH_MAX], absolute[PATH_MAX], snapshot[PATH_MAX], store[PATH_MAX];
	memset(ret, 0, sizeof *ret);
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	int code = sm_path_format(parent, err, "%.*s", slash == path ? 1 : (int)(name - path), path);
	if (code < 0)
		return code;
	if (!realpath(slash ? parent : ".", absolute))
		return sm_error_sys(err, errno, "'%s'", parent);
	code = sm_path_format(snapshot, err, "%s/%s", strcmp(absolute, "/") ? absolute : "", name);
	for (unsigned i = 0; i < sources->ndisks && code == 0; i++)
		for (unsigned j = 0; j < sources->disks[i].npaths && code == 0; j++)
			if (sm_oci_store_of(sources->disks[i].paths[j], store))
				code = add_store(ret, store, snapshot, err);
	return code;
}

void sm_snapshot_stores_end(struct sm_snapshot_stores *stores)
{
	while (stores->count > 0)
		sm_oci_store_unlock(&stores->locks[--stores->count]);
}

/* The image that a bake wrote into its metadata; "" for a snapshot of something else. */
static void read_image(const struct sm_format_meta *meta, char ret_digest[SM_OCI_DIGEST_SIZE])
{
	SM_JSON_CLEANUP cJSON *metadata = NULL;
	const char *digest;
	ret_digest[0] = 0;
	if (sm_json_parse((const char *)meta->metadata, meta->metadata_len, "metadata", &metadata, NULL) == 0 &&
	    sm_json_get_string(metadata, "image", "metadata", &digest, NULL) == 0 &&
	    sm_oci_digest_check(digest, "metadata", NULL) == 0)
		snprintf(ret_digest, SM_OCI_DIGEST_SIZE, "%s", digest);
}

static int copy_needs(const struct sm_format_meta *meta, struct sm_oci_facts *facts)
{
	const struct sm_sources *sources = &meta->sources;
	size_t count = 0;
	if (meta->parent[0] && !(facts->parent = strdup(meta->parent)))
		return -ENOMEM;
	for (unsigned i = 0; i < sources->ndisks; i++)
		count += sources->disks[i].npaths;
	facts->files = calloc(count ? count : 1, sizeof *facts->files);
	if (!facts->files)
		return -ENOMEM;
	for (unsigned i = 0; i < sources->ndisks; i++)
		for (unsigned j = 0; j < sources->disks[i].npaths; j++)
			if (!(facts->files[facts->nfiles++] = strdup(sources->disks[i].paths[j])))
				return -ENOMEM;
	return 0;
}

int sm_snapshot_facts_read(const char *folder, struct sm_oci_facts *ret_facts, struct sm_error *err)
{
	struct sm_format_meta *meta = calloc(1, sizeof *meta);
	if (!meta)
		return sm_error_sys(err, ENOMEM, "snapshot %s", folder);
	int code = sm_format_read(folder, meta, err);
	if (code == 0) {
		read_image(meta, ret_facts->image);
		code = copy_needs(meta, ret_facts);
		if (code < 0)
			sm_error_sys(err, code, "out of memory");
	}
	sm_format_meta_done(meta);
	free(meta);
	return code < 0 ? sm_error_context(err, "snapshot %s", folder) : 0;
}
