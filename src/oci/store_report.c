#include "oci/store_report.h"

#include "oci/image.h"
#include "oci/store_name.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int no_memory(struct sm_error *err)
{
	return sm_error_sys(err, ENOMEM, "image store");
}

/* A new object at the end of a list; NULL when out of memory. */
static cJSON *append(cJSON *list)
{
	cJSON *item = cJSON_CreateObject();
	if (cJSON_AddItemToArray(list, item))
		return item;
	cJSON_Delete(item);
	return NULL;
}

static bool add_text(cJSON *to, const char *name, const char *text)
{
	return cJSON_AddStringToObject(to, name, text);
}

static bool add_number(cJSON *to, const char *name, uint64_t number)
{
	return cJSON_AddNumberToObject(to, name, (double)number);
}

/* ---- one image ------------------------------------------------------------------------------------------------ */

/* A stored image, perhaps without some of its layers. */
struct loaded {
	struct sm_buf text, config; /* the documents */
	struct sm_oci_manifest manifest;
	struct sm_oci_image *image;
	uint64_t size;
	bool complete;
};

static void loaded_done(struct loaded *loaded)
{
	sm_buf_done(&loaded->text);
	sm_buf_done(&loaded->config);
	sm_oci_manifest_done(&loaded->manifest);
	sm_oci_image_unref(loaded->image);
}
#define LOADED_CLEANUP __attribute__((cleanup(loaded_done)))

static int load(const struct sm_oci_census *census, const char *digest, struct loaded *loaded, struct sm_error *err)
{
	const struct sm_oci_store *store = census->store;
	const struct sm_oci_platform platform = { 0 };
	struct sm_oci_manifest *manifest = &loaded->manifest;
	sm_buf_init(&loaded->text, SM_OCI_MANIFEST_MAX_BYTES);
	sm_buf_init(&loaded->config, SM_OCI_CONFIG_MAX_BYTES);
	int code = sm_oci_store_read(store, digest, &loaded->text, err);
	if (code < 0 ||
	    (code = sm_oci_manifest_parse(loaded->text.data, loaded->text.len, "", digest, manifest, err)) < 0)
		return code;
	if (manifest->kind != SM_OCI_KIND_MANIFEST)
		return sm_error_set(err, EBADMSG, "%s: an index, not an image's manifest", digest);
	if ((code = sm_oci_store_read(store, manifest->config.digest, &loaded->config, err)) < 0)
		return code;
	loaded->size = loaded->text.len + manifest->config.size;
	loaded->complete = true;
	for (size_t i = 0; i < manifest->count; i++) {
		loaded->size += manifest->items[i].size;
		loaded->complete =
		    loaded->complete && sm_oci_store_has(store, manifest->items[i].digest, manifest->items[i].size);
	}
	return sm_oci_image_new(store, digest, &platform, digest, manifest, loaded->config.data, loaded->config.len,
	                        &loaded->image, err);
}

/* ---- list ----------------------------------------------------------------------------------------------------- */

static int list_one(const struct sm_oci_census *census, const struct sm_oci_ref *ref, cJSON *list, struct sm_error *err)
{
	LOADED_CLEANUP struct loaded loaded = { 0 };
	struct sm_error problem = ref->error;
	cJSON *item = append(list);
	if (!item)
		return no_memory(err);
	if (ref->reference) {
		if (!add_text(item, "reference", ref->reference) || !add_text(item, "platform", ref->platform) ||
		    !add_text(item, "digest", ref->digest) ||
		    !cJSON_AddNumberToObject(item, "time", (double)ref->entry->mtime_s))
			return no_memory(err);
		load(census, ref->digest, &loaded, &problem);
	}
	if (problem.code)
		return add_text(item, "error", problem.message) ? 0 : no_memory(err);
	const cJSON *created = cJSON_GetObjectItemCaseSensitive(sm_oci_image_get_config(loaded.image), "created");
	if (!add_number(item, "size", loaded.size) || !add_number(item, "layers", loaded.manifest.count) ||
	    !cJSON_AddBoolToObject(item, "complete", loaded.complete) ||
	    (cJSON_IsString(created) && !add_text(item, "created", created->valuestring)))
		return no_memory(err);
	return 0;
}

static int by_reference(const void *a, const void *b)
{
	const struct sm_oci_ref *left = a, *right = b;
	if (!left->reference || !right->reference)
		return !left->reference - !right->reference; /* what is damaged comes last */
	int order = strcmp(left->reference, right->reference);
	return order ? order : strcmp(left->platform, right->platform);
}

static int take_census(const struct sm_oci_store *store, sm_oci_facts_read facts, struct sm_oci_census *census,
                       struct sm_error *err)
{
	int code = sm_oci_census_take(store, facts, census, err);
	if (code == 0 && census->nrefs)
		qsort(census->refs, census->nrefs, sizeof *census->refs, by_reference);
	return code;
}

int sm_oci_store_list(const struct sm_oci_store *store, cJSON **ret, struct sm_error *err)
{
	SM_OCI_CENSUS_CLEANUP struct sm_oci_census census = { 0 };
	SM_JSON_CLEANUP cJSON *list = cJSON_CreateArray();
	int code = list ? take_census(store, NULL, &census, err) : no_memory(err);
	for (size_t i = 0; i < census.nrefs && code == 0; i++)
		code = list_one(&census, &census.refs[i], list, err);
	if (code < 0)
		return code;
	*ret = list;
	list = NULL;
	return 0;
}

/* ---- inspect -------------------------------------------------------------------------------------------------- */

struct erofs_list {
	const struct sm_oci_census *census;
	cJSON *list;
	bool failed;
};

static void list_erofs(void *arg, struct sm_oci_entry *entry, bool is_blob)
{
	struct erofs_list *erofs = arg;
	char path[PATH_MAX];
	if (is_blob || entry->stamp++ ||
	    sm_path_format(path, NULL, "%s/%s", erofs->census->erofs.path, entry->name) < 0)
		return;
	cJSON *item = append(erofs->list);
	if (!item || !add_text(item, "path", path) || !add_number(item, "bytes", entry->bytes))
		erofs->failed = true;
}

static int add_references(const struct sm_oci_census *census, const char *digest, cJSON *to, struct sm_error *err)
{
	cJSON *list = cJSON_AddArrayToObject(to, "references");
	for (size_t i = 0; i < census->nrefs; i++) {
		const struct sm_oci_ref *ref = &census->refs[i];
		if (ref->reference && !strcmp(ref->digest, digest) &&
		    !cJSON_AddItemToArray(list, cJSON_CreateString(ref->reference)))
			return no_memory(err);
	}
	return list ? 0 : no_memory(err);
}

static int add_layers(const struct sm_oci_census *census, const struct sm_oci_image *image, cJSON *to,
                      struct sm_error *err)
{
	size_t count;
	const struct sm_oci_layer *layers = sm_oci_image_get_layers(image, &count);
	cJSON *list = cJSON_AddArrayToObject(to, "layers");
	for (size_t i = 0; i < count; i++) {
		cJSON *item = append(list);
		if (!item || !add_text(item, "digest", layers[i].digest) ||
		    !add_text(item, "diff_id", layers[i].diff_id) ||
		    !add_text(item, "media_type", layers[i].media_type) || !add_number(item, "size", layers[i].size) ||
		    !cJSON_AddBoolToObject(item, "stored",
		                           sm_oci_store_has(census->store, layers[i].digest, layers[i].size)))
			return no_memory(err);
	}
	return list ? 0 : no_memory(err);
}

static int add_snapshots(const struct sm_oci_census *census, const char *digest, cJSON *to, struct sm_error *err)
{
	cJSON *list = cJSON_AddArrayToObject(to, "snapshots");
	for (size_t i = 0; i < census->nsnapshots; i++) {
		const struct sm_oci_snapshot *snapshot = &census->snapshots[i];
		if (strcmp(snapshot->facts.image, digest))
			continue;
		cJSON *item = append(list);
		if (!item || !add_text(item, "path", snapshot->path) ||
		    !cJSON_AddNumberToObject(item, "time", (double)snapshot->entry->mtime_s) ||
		    (snapshot->baked && !add_number(item, "bytes", snapshot->entry->bytes)))
			return no_memory(err);
	}
	return list ? 0 : no_memory(err);
}

static bool add_copy(cJSON *to, const char *name, const cJSON *document)
{
	cJSON *copy = cJSON_Duplicate(document, true);
	if (cJSON_AddItemToObject(to, name, copy))
		return true;
	cJSON_Delete(copy);
	return false;
}

static int inspect(const struct sm_oci_census *census, struct sm_oci_found *found, cJSON *to, struct sm_error *err)
{
	LOADED_CLEANUP struct loaded loaded = { 0 };
	int code = load(census, found->digest, &loaded, err);
	if (code < 0)
		return code;
	const struct sm_oci_image *image = loaded.image;
	struct erofs_list erofs = { .census = census };
	if (!*found->platform)
		sm_oci_name_platform(sm_oci_image_get_config(image), found->platform);
	if (!add_text(to, "digest", found->digest) || !add_text(to, "platform", found->platform) ||
	    !add_text(to, "config_digest", sm_oci_image_get_config_digest(image)) ||
	    !add_number(to, "size", loaded.size) || !add_copy(to, "process", sm_oci_image_get_process(image)) ||
	    !add_copy(to, "config", sm_oci_image_get_config(image)) ||
	    !add_copy(to, "manifest", loaded.manifest.root) || !(erofs.list = cJSON_AddArrayToObject(to, "erofs")))
		return no_memory(err);
	code = sm_oci_census_walk(census, found->digest, list_erofs, &erofs, NULL, err);
	if (code == 0 && erofs.failed)
		code = no_memory(err);
	if (code == 0)
		code = add_references(census, found->digest, to, err);
	if (code == 0)
		code = add_layers(census, image, to, err);
	return code < 0 ? code : add_snapshots(census, found->digest, to, err);
}

int sm_oci_store_inspect(const struct sm_oci_store *store, sm_oci_facts_read facts, const char *name,
                         const char *platform, cJSON **ret, struct sm_error *err)
{
	SM_OCI_CENSUS_CLEANUP struct sm_oci_census census = { 0 };
	SM_OCI_NAME_CLEANUP struct sm_oci_name wanted = { 0 };
	SM_JSON_CLEANUP cJSON *report = cJSON_CreateObject();
	struct sm_oci_found found;
	int code = report ? sm_oci_name_read(name, platform, &wanted, err) : no_memory(err);
	if (code < 0 || (code = take_census(store, facts, &census, err)) < 0 ||
	    (code = sm_oci_name_find(&wanted, &census, &found, err)) < 0)
		return code;
	if (inspect(&census, &found, report, err) < 0)
		return sm_error_context(err, "'%.200s'", name);
	*ret = report;
	report = NULL;
	return 0;
}

/* ---- du ------------------------------------------------------------------------------------------------------- */

struct use {
	unsigned stamp;
	uint64_t bytes, unique_bytes;
	bool counting; /* the second round */
};

static void use(void *arg, struct sm_oci_entry *entry, bool is_blob)
{
	(void)is_blob;
	struct use *round = arg;
	if (entry->stamp == round->stamp)
		return; /* a layer twice in one image is there once */
	entry->stamp = round->stamp;
	if (!round->counting) {
		entry->uses++;
		return;
	}
	round->bytes += entry->bytes;
	if (entry->uses == 1)
		round->unique_bytes += entry->bytes;
}

static bool is_first(const struct sm_oci_census *census, size_t index)
{
	for (size_t i = 0; i < index; i++)
		if (!strcmp(census->refs[i].digest, census->refs[index].digest))
			return false;
	return census->refs[index].reference;
}

static int add_images(struct sm_oci_census *census, cJSON *to, struct sm_error *err)
{
	unsigned stamp = 0;
	for (size_t i = 0; i < census->nrefs; i++) {
		struct use round = { .stamp = ++stamp };
		if (is_first(census, i))
			sm_oci_census_walk(census, census->refs[i].digest, use, &round, NULL, NULL);
	}
	cJSON *list = cJSON_AddArrayToObject(to, "images");
	for (size_t i = 0; i < census->nrefs; i++) {
		struct use round = { .stamp = ++stamp, .counting = true };
		if (!is_first(census, i))
			continue;
		sm_oci_census_walk(census, census->refs[i].digest, use, &round, NULL, NULL);
		cJSON *item = append(list);
		if (!item || !add_text(item, "digest", census->refs[i].digest) ||
		    !add_number(item, "bytes", round.bytes) || !add_number(item, "unique_bytes", round.unique_bytes) ||
		    !add_number(item, "shared_bytes", round.bytes - round.unique_bytes))
			return no_memory(err);
		int code = add_references(census, census->refs[i].digest, item, err);
		if (code < 0)
			return code;
	}
	return list ? 0 : no_memory(err);
}

struct total {
	unsigned count;
	uint64_t bytes;
};

static void add_up(const struct sm_oci_folder *folder, struct total *proper, struct total *temporaries,
                   uint64_t *unused_bytes)
{
	for (size_t i = 0; i < folder->count; i++) {
		const struct sm_oci_entry *entry = &folder->list[i];
		struct total *total = entry->temporary ? temporaries : proper;
		total->count++;
		total->bytes += entry->bytes;
		if (unused_bytes && !entry->temporary && !entry->uses)
			*unused_bytes += entry->bytes;
	}
}

static bool add_total(cJSON *to, const char *name, const struct total *total)
{
	cJSON *item = cJSON_AddObjectToObject(to, name);
	return item && add_number(item, "count", total->count) && add_number(item, "bytes", total->bytes);
}

int sm_oci_store_du(const struct sm_oci_store *store, sm_oci_facts_read facts, cJSON **ret, struct sm_error *err)
{
	SM_OCI_CENSUS_CLEANUP struct sm_oci_census census = { 0 };
	SM_JSON_CLEANUP cJSON *report = cJSON_CreateObject();
	struct total blobs = { 0 }, erofs = { 0 }, snapshots = { 0 }, temporaries = { 0 };
	uint64_t unused_bytes = 0;
	int code = report ? take_census(store, facts, &census, err) : no_memory(err);
	if (code < 0 || (code = add_images(&census, report, err)) < 0)
		return code;
	for (size_t i = 0; i < census.nsnapshots; i++)
		for (size_t j = 0; j < census.snapshots[i].facts.nfiles; j++) {
			struct sm_oci_entry *entry =
			    sm_oci_census_erofs_file(&census, census.snapshots[i].facts.files[j]);
			if (entry)
				entry->uses++;
		}
	add_up(&census.blobs, &blobs, &temporaries, &unused_bytes);
	add_up(&census.erofs, &erofs, &temporaries, &unused_bytes);
	add_up(&census.snapshots_folder, &snapshots, &temporaries, NULL);
	add_up(&census.partial, &temporaries, &temporaries, NULL);
	uint64_t bytes = blobs.bytes + erofs.bytes + snapshots.bytes + temporaries.bytes;
	if (!add_total(report, "blobs", &blobs) || !add_total(report, "erofs", &erofs) ||
	    !add_total(report, "snapshots", &snapshots) || !add_total(report, "temporaries", &temporaries) ||
	    !add_number(report, "bytes", bytes) || !add_number(report, "unused_bytes", unused_bytes))
		return no_memory(err);
	*ret = report;
	report = NULL;
	return 0;
}
