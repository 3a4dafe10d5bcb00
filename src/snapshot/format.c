#include "snapshot/format.h"

#include "base/path.h"
#include "plan/volume.h"
#include "snapshot/snapshot.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE     4096u
#define META_MAX (16u << 20)

static const uint32_t tag_snapshot = SM_TAG('S', 'N', 'A', 'P');

void sm_format_meta_done(struct sm_format_meta *meta)
{
	sm_sources_done(&meta->sources);
	free(meta->metadata);
	meta->metadata = NULL;
	sm_memory_extents_done(&meta->extents);
}

static void put_file(struct sm_buf *buf, const struct sm_format_file *file)
{
	sm_put_u64(buf, file->bytes);
	sm_put_str(buf, file->sha256);
	sm_put_u64(buf, file->inode);
	sm_put_u64(buf, file->mtime_ns);
	sm_put_u64(buf, file->ctime_ns);
}

static void get_file(struct sm_reader *in, struct sm_format_file *file)
{
	file->bytes = sm_get_u64(in);
	sm_get_str(in, file->sha256, sizeof file->sha256);
	file->inode = sm_get_u64(in);
	file->mtime_ns = sm_get_u64(in);
	file->ctime_ns = sm_get_u64(in);
}

static void put_volumes(struct sm_buf *buf, const struct sm_format_meta *meta)
{
	sm_put_u32(buf, meta->nvolumes);
	for (unsigned i = 0; i < meta->nvolumes; i++) {
		sm_put_u32(buf, meta->volumes[i].index);
		sm_put_u8(buf, (uint8_t)(meta->volumes[i].readonly | meta->volumes[i].as_writable << 1));
		put_file(buf, &meta->volumes[i].file);
	}
}

/* Each in a slot of its own, and something in each slot that has it by plan. */
static int get_volumes(struct sm_reader *in, struct sm_format_meta *meta, struct sm_error *err)
{
	uint32_t count = sm_get_u32(in);
	if (in->failed || count > SM_PLAN_SLOTS_MAX)
		return sm_error_set(err, EBADMSG, "snapshot: %u volumes", count);
	for (; meta->nvolumes < count; meta->nvolumes++) {
		struct sm_format_volume *volume = &meta->volumes[meta->nvolumes];
		volume->index = sm_get_u32(in);
		uint8_t flags = sm_get_u8(in);
		volume->readonly = flags & 1;
		volume->as_writable = flags & 2;
		get_file(in, &volume->file);
		if (in->failed || flags > 3 || volume->file.bytes == 0 || volume->file.bytes % SM_VOLUME_SECTOR ||
		    volume->file.bytes > INT64_MAX || (meta->nvolumes && volume->index <= volume[-1].index) ||
		    !sm_plan_find(&meta->plan, SM_PLAN_VOLUME, volume->index))
			return sm_error_set(err, EBADMSG, "snapshot: volume %u is malformed", meta->nvolumes);
	}
	return 0;
}

static int check_volumes(const struct sm_format_meta *meta, struct sm_error *err)
{
	for (unsigned i = 0, found = 0; i < meta->plan.nslots; i++) {
		const struct sm_plan_slot *slot = &meta->plan.slots[i];
		bool there =
		    slot->kind == SM_PLAN_VOLUME && found < meta->nvolumes && meta->volumes[found].index == slot->index;
		if (slot->kind == SM_PLAN_VOLUME && slot->backed && !there)
			return sm_error_set(err, EBADMSG, "snapshot: nothing for volume %u", slot->index);
		found += there;
	}
	return 0;
}

void sm_format_put(struct sm_buf *buf, const struct sm_format_meta *meta)
{
	size_t record = sm_record_begin(buf, tag_snapshot, SM_SNAPSHOT_VERSION);
	sm_plan_put(buf, &meta->plan);
	sm_sources_put(buf, &meta->sources);
	put_file(buf, &meta->ram);
	put_file(buf, &meta->state);
	sm_put_u64(buf, meta->ram_data_bytes);
	sm_put_bytes(buf, meta->metadata, meta->metadata_len);
	sm_put_str(buf, meta->host);
	sm_put_str(buf, meta->parent);
	if (meta->parent[0]) {
		sm_put_str(buf, meta->parent_sha256);
		sm_memory_extents_put(buf, &meta->extents);
	}
	sm_source_mounts_put(buf, &meta->sources.mounts);
	put_volumes(buf, meta);
	sm_record_end(buf, record);
}

/* What version 2 has more than version 1. */
static int get_parent(struct sm_reader *in, struct sm_format_meta *meta, struct sm_error *err)
{
	sm_get_str(in, meta->host, sizeof meta->host);
	sm_get_str(in, meta->parent, sizeof meta->parent);
	if (in->failed || !meta->parent[0])
		return 0; /* sm_record_close tells */
	sm_get_str(in, meta->parent_sha256, sizeof meta->parent_sha256);
	if (meta->parent[0] != '/')
		return sm_error_set(err, EBADMSG, "snapshot: the parent's path is not absolute");
	return sm_memory_extents_get(in, meta->plan.memory_mib * SM_MIB, &meta->extents, err);
}

int sm_format_get(const void *data, size_t len, struct sm_format_meta *ret_meta, struct sm_error *err)
{
	struct sm_reader all, in;
	sm_reader_init(&all, data, len);
	memset(ret_meta, 0, sizeof *ret_meta);
	uint16_t version = sm_record_version(&all);
	if (version < 1 || version > SM_SNAPSHOT_VERSION)
		version = SM_SNAPSHOT_VERSION;
	int code = sm_record_open(&all, tag_snapshot, version, "snapshot", &in, err);
	if (code < 0)
		return code;
	code = sm_plan_get(&in, &ret_meta->plan, err);
	if (code >= 0)
		code = sm_sources_get(&in, &ret_meta->sources, err);
	if (code < 0)
		return code;
	get_file(&in, &ret_meta->ram);
	get_file(&in, &ret_meta->state);
	ret_meta->ram_data_bytes = sm_get_u64(&in);
	const void *metadata = sm_get_bytes(&in, &ret_meta->metadata_len);
	if (version > 1)
		code = get_parent(&in, ret_meta, err);
	if (version > 2 && code >= 0)
		code = sm_source_mounts_get(&in, &ret_meta->sources.mounts, err);
	if (code >= 0 && version > 2)
		code = get_volumes(&in, ret_meta, err);
	if (code >= 0 && !in.failed)
		code = check_volumes(ret_meta, err);
	if (code >= 0)
		code = sm_record_close(&in, "snapshot", err);
	if (code >= 0 && !sm_reader_at_end(&all))
		code = sm_error_set(err, EBADMSG, "snapshot: bytes after the record");
	if (code < 0)
		return code;
	ret_meta->metadata = malloc(ret_meta->metadata_len + 1);
	if (!ret_meta->metadata)
		return sm_error_set(err, ENOMEM, "snapshot: out of memory");
	if (ret_meta->metadata_len)
		memcpy(ret_meta->metadata, metadata, ret_meta->metadata_len);
	return 0;
}

int sm_format_read(const char *folder, struct sm_format_meta *ret_meta, struct sm_error *err)
{
	char path[PATH_MAX], *data;
	size_t len;
	memset(ret_meta, 0, sizeof *ret_meta);
	int code = sm_path_format(path, err, "%s/meta", folder);
	if (code >= 0)
		code = sm_path_read(path, META_MAX, &data, &len, err);
	if (code < 0)
		return code;
	code = sm_format_get(data, len, ret_meta, err);
	if (code >= 0 && (code = sm_sha256_hex(data, len, ret_meta->sha256)) < 0)
		sm_error_sys(err, code, "hash");
	free(data);
	return code < 0 ? sm_error_context(err, "meta") : 0;
}

int sm_format_stamp(int fd, struct sm_format_file *file, struct sm_error *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return sm_error_sys(err, errno, "stat");
	file->bytes = (uint64_t)st.st_size;
	file->inode = (uint64_t)st.st_ino;
	file->mtime_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
	file->ctime_ns = (uint64_t)st.st_ctim.tv_sec * 1000000000u + (uint64_t)st.st_ctim.tv_nsec;
	return 0;
}

/* Runs of pages that are not zero are hashed as (offset, bytes), so that holes and written zeros are the same. */
static int hash_range(int fd, uint64_t offset, uint64_t end, uint8_t *chunk, size_t size, struct sm_sha256 *hash)
{
	static const uint8_t zero[PAGE];
	while (offset < end) {
		size_t want = end - offset < size ? (size_t)(end - offset) : size;
		ssize_t got = pread(fd, chunk, want, (off_t)offset);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -ENODATA;
		for (size_t at = 0; at < (size_t)got; at += PAGE) {
			size_t len = (size_t)got - at < PAGE ? (size_t)got - at : PAGE;
			if (!memcmp(chunk + at, zero, len))
				continue;
			uint64_t where = htole64(offset + at);
			sm_sha256_update(hash, &where, sizeof where);
			sm_sha256_update(hash, chunk + at, len);
		}
		offset += (uint64_t)got;
		/* Pages keep their places when a read stops inside one. */
		if ((size_t)got % PAGE && offset < end)
			return -EIO;
	}
	return 0;
}

int sm_format_hash(int fd, char out[SM_SHA256_HEX + 1], struct sm_error *err)
{
	const size_t size = 1u << 20;
	uint8_t *chunk = malloc(size);
	struct sm_sha256 *hash = sm_sha256_new();
	int code = chunk && hash ? 0 : -ENOMEM;
	off_t end = 0;
	while (code == 0) {
		off_t start = lseek(fd, end, SEEK_DATA);
		if (start < 0) {
			code = errno == ENXIO ? 0 : -errno;
			break;
		}
		end = lseek(fd, start, SEEK_HOLE);
		if (end < 0)
			code = -errno;
		else
			code =
			    hash_range(fd, (uint64_t)start & ~(uint64_t)(PAGE - 1), (uint64_t)end, chunk, size, hash);
	}
	if (code == 0)
		sm_sha256_final(hash, out);
	sm_sha256_free(hash);
	free(chunk);
	return code < 0 ? sm_error_sys(err, code, "hash") : 0;
}

int sm_format_check(int fd, const char *name, const struct sm_format_file *expected, bool verify, struct sm_error *err)
{
	struct sm_format_file found = { 0 };
	int code = sm_format_stamp(fd, &found, err);
	if (code < 0)
		return sm_error_context(err, "%s", name);
	if (found.bytes != expected->bytes)
		return sm_error_set(err, EBADMSG, "%s: %llu bytes, expected %llu: truncated or changed", name,
		                    (unsigned long long)found.bytes, (unsigned long long)expected->bytes);
	if (!verify && found.inode == expected->inode && found.mtime_ns == expected->mtime_ns &&
	    found.ctime_ns == expected->ctime_ns)
		return 0;
	code = sm_format_hash(fd, found.sha256, err);
	if (code < 0)
		return sm_error_context(err, "%s", name);
	if (strcmp(found.sha256, expected->sha256))
		return sm_error_set(err, EBADMSG, "%s: sha256 is %s, expected %s: the file was changed", name,
		                    found.sha256, expected->sha256);
	return 0;
}
