/* manifest.json: a snapshot for people and tools. */
#include "base/json.h"
#include "snapshot/format.h"
#include "snapshot/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

/* The first of its lines that says what the processor is: x86_64 has a model's name, arm64 a part's number. */
static bool read_cpu(char *out, size_t size)
{
	static const char *const names[] = { "model name", "CPU part" };
	char line[256];
	bool found = false;
	FILE *file = fopen("/proc/cpuinfo", "re");
	while (file && !found && fgets(line, sizeof line, file)) {
		const char *value = strchr(line, ':');
		for (size_t i = 0; value && i < sizeof names / sizeof *names && !found; i++) {
			found = !strncmp(line, names[i], strlen(names[i]));
			if (found)
				snprintf(out, size, "%.*s", (int)strcspn(value + 1, "\n"), value + 1);
		}
	}
	if (file)
		fclose(file);
	return found;
}

void sm_format_host(char out[256])
{
	struct utsname name;
	char cpu[128];
	bool found = read_cpu(cpu, sizeof cpu);
	bool known = uname(&name) == 0;
	snprintf(out, 256, "%s, %s %s", found ? cpu + strspn(cpu, " ") : "unknown CPU",
	         known ? name.sysname : "unknown", known ? name.release : "kernel");
}

static bool add_file(cJSON *root, const char *name, const struct sm_format_file *file, uint64_t data_bytes)
{
	cJSON *object = cJSON_AddObjectToObject(root, name);
	return cJSON_AddNumberToObject(object, "bytes", (double)file->bytes) &&
	       cJSON_AddNumberToObject(object, "data_bytes", (double)data_bytes) &&
	       cJSON_AddStringToObject(object, "sha256", file->sha256);
}

static bool add_plan(cJSON *root, const struct sm_plan *plan)
{
	cJSON *object = cJSON_AddObjectToObject(root, "plan");
	cJSON *devices = cJSON_AddArrayToObject(object, "devices");
	bool fine = cJSON_AddStringToObject(object, "arch", sm_plan_arch_name(plan->arch)) &&
	            cJSON_AddNumberToObject(object, "vcpus", plan->vcpus) &&
	            cJSON_AddNumberToObject(object, "memory_mib", (double)plan->memory_mib) && devices;
	for (unsigned i = 0; i < plan->nslots && fine; i++)
		fine = cJSON_AddItemToArray(devices, cJSON_CreateString(sm_plan_kind_name(plan->slots[i].kind)));
	return fine;
}

static bool add_parent(cJSON *root, const struct sm_format_meta *meta)
{
	if (!meta->parent[0])
		return true;
	cJSON *object = cJSON_AddObjectToObject(root, "parent");
	return cJSON_AddStringToObject(object, "path", meta->parent) &&
	       cJSON_AddStringToObject(object, "meta_sha256", meta->parent_sha256);
}

static bool add_disks(cJSON *root, const struct sm_sources *sources)
{
	cJSON *disks = cJSON_AddArrayToObject(root, "disks");
	bool fine = disks != NULL;
	for (unsigned i = 0; i < sources->ndisks && fine; i++) {
		cJSON *files = cJSON_CreateArray();
		fine = cJSON_AddItemToArray(disks, files);
		for (unsigned j = 0; j < sources->disks[i].npaths && fine; j++)
			fine = cJSON_AddItemToArray(files, cJSON_CreateString(sources->disks[i].paths[j]));
	}
	return fine;
}

static bool add_volumes(cJSON *root, const struct sm_format_meta *meta)
{
	char name[24];
	bool fine = true;
	for (unsigned i = 0; i < meta->nvolumes && fine; i++) {
		snprintf(name, sizeof name, "volume-%u", meta->volumes[i].index);
		cJSON *object = cJSON_AddObjectToObject(root, name);
		fine = cJSON_AddNumberToObject(object, "bytes", (double)meta->volumes[i].file.bytes) &&
		       cJSON_AddBoolToObject(object, "readonly", meta->volumes[i].readonly) &&
		       cJSON_AddStringToObject(object, "sha256", meta->volumes[i].file.sha256);
	}
	return fine;
}

static bool add_mounts(cJSON *root, const struct sm_source_mounts *mounts)
{
	cJSON *list = cJSON_AddArrayToObject(root, "mounts");
	bool fine = list != NULL;
	for (unsigned i = 0; i < mounts->count && fine; i++) {
		cJSON *object = cJSON_CreateObject();
		fine = cJSON_AddItemToArray(list, object) &&
		       cJSON_AddStringToObject(object, "host", mounts->list[i].host) &&
		       cJSON_AddStringToObject(object, "guest", mounts->list[i].guest) &&
		       cJSON_AddStringToObject(object, "tag", mounts->list[i].tag) &&
		       cJSON_AddBoolToObject(object, "readonly", mounts->list[i].options.readonly);
	}
	return fine;
}

/* Image, kernel and labels are in there, where the caller has put them. */
static bool add_metadata(cJSON *root, const struct sm_format_meta *meta)
{
	cJSON *metadata = NULL;
	if (sm_json_parse((const char *)meta->metadata, meta->metadata_len, "metadata", &metadata, NULL) < 0)
		return true;
	return cJSON_AddItemToObject(root, "metadata", metadata);
}

int sm_format_manifest(const struct sm_format_meta *meta, char **ret_text, struct sm_error *err)
{
	SM_JSON_CLEANUP cJSON *root = cJSON_CreateObject();
	char created[32];
	time_t now = time(NULL);
	struct tm utc;
	gmtime_r(&now, &utc);
	strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", &utc);
	bool fine = cJSON_AddNumberToObject(root, "version", SM_SNAPSHOT_VERSION) &&
	            cJSON_AddStringToObject(root, "created", created) &&
	            cJSON_AddStringToObject(root, "host", meta->host) && add_plan(root, &meta->plan) &&
	            add_file(root, "ram", &meta->ram, meta->ram_data_bytes) &&
	            add_file(root, "state", &meta->state, meta->state.bytes) && add_volumes(root, meta) &&
	            add_disks(root, &meta->sources) && add_mounts(root, &meta->sources.mounts) &&
	            add_parent(root, meta) && add_metadata(root, meta);
	*ret_text = fine ? cJSON_Print(root) : NULL;
	return *ret_text ? 0 : sm_error_set(err, ENOMEM, "manifest.json: out of memory");
}
