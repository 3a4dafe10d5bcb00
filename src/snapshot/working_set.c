/* FOLDER/working-set: one record, tied to the folder's meta by its hash, with extents of RAM: all, and those that were
 * written to. */
#include "base/fd.h"
#include "base/path.h"
#include "base/thread.h"
#include "snapshot/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define VERSION  2
#define FILE_MAX (64u << 10) /* twice SM_MEMORY_PIECES_MAX extents are 32 KiB */
/* One call reads no more than the device's read-ahead, 128 KiB unless somebody has changed it. */
#define READ_AHEAD (128u << 10)

static const uint32_t tag_working_set = SM_TAG('W', 'S', 'E', 'T');
static const char file_name[] = "working-set";

/* ---- the file ----------------------------------------------------------------------------------------------- */

static int get(struct sm_snapshot *snapshot, const char *data, size_t len, struct sm_error *err)
{
	struct sm_reader in, record;
	char sha256[SM_SHA256_HEX + 1];
	sm_reader_init(&in, data, len);
	int code = sm_record_open(&in, tag_working_set, VERSION, file_name, &record, err);
	if (code < 0)
		return code;
	sm_get_str(&record, sha256, sizeof sha256);
	if (!record.failed && strcmp(sha256, snapshot->meta.sha256))
		return sm_error_set(err, EBADMSG, "it is of the snapshot with meta %s, this one's is %s", sha256,
		                    snapshot->meta.sha256);
	const uint64_t ram_bytes = snapshot->meta.plan.memory_mib * SM_MIB;
	code = sm_memory_touched_get(&record, ram_bytes, &snapshot->working_set.touched, err);
	if (code >= 0)
		code = sm_record_close(&record, file_name, err);
	if (code >= 0)
		code = sm_record_close(&in, file_name, err);
	return code;
}

static int read_set(struct sm_snapshot *snapshot, struct sm_error *err)
{
	char path[PATH_MAX], *data;
	size_t len;
	int code = sm_path_format(path, err, "%s/%s", snapshot->absolute, file_name);
	if (code >= 0)
		code = sm_path_read(path, FILE_MAX, &data, &len, err);
	if (code < 0)
		return code;
	code = get(snapshot, data, len, err);
	if (code < 0)
		sm_memory_touched_done(&snapshot->working_set.touched);
	free(data);
	return code;
}

/* Of two that write at once either's is whole, and as good. */
static int write_set(const struct sm_snapshot *snapshot, const struct sm_memory_touched *touched, struct sm_error *err)
{
	struct sm_buf buf SM_BUF_CLEANUP;
	sm_buf_init(&buf, FILE_MAX);
	size_t record = sm_record_begin(&buf, tag_working_set, VERSION);
	sm_put_str(&buf, snapshot->meta.sha256);
	sm_memory_touched_put(&buf, touched);
	sm_record_end(&buf, record);
	if (sm_buf_failed(&buf))
		return sm_error_sys(err, buf.failed, "%s", file_name);

	char path[PATH_MAX];
	struct sm_path_new file;
	int code = sm_path_format(path, err, "%s/%s", snapshot->absolute, file_name);
	if (code >= 0)
		code = sm_path_new_begin(&file, path, 0644, err);
	if (code < 0)
		return code;
	code = sm_fd_write_full(file.fd, buf.data, buf.len);
	code = code < 0 ? sm_error_sys(err, code, "write '%s'", file.temporary) : sm_path_new_commit(&file, err);
	sm_path_new_discard(&file);
	return code;
}

/* ---- the thread --------------------------------------------------------------------------------------------- */

/* A snapshot has one at most, which either reads ahead or writes: for what it is at hand or not when it is opened.  It
 * uses the snapshot without a reference: whoever gives up the last one waits for it. */
static void start(struct sm_snapshot *snapshot, const char *name, void *(*run)(void *))
{
	struct sm_working_set *set = &snapshot->working_set;
	set->started = sm_thread_start(&set->thread, name, run, snapshot) == 0;
}

static void *read_ahead(void *arg)
{
	struct sm_snapshot *snapshot = arg;
	const struct sm_working_set *set = &snapshot->working_set;
	for (size_t i = 0; i < set->touched.all.count; i++) {
		const struct sm_memory_extent *extent = &set->touched.all.list[i];
		const uint64_t last = extent->offset + extent->bytes;
		for (uint64_t at = extent->offset, end; at < last && !atomic_load(&set->cancel); at = end) {
			end = last - at < READ_AHEAD ? last : at + READ_AHEAD;
			unsigned file = sm_memory_source_at(&snapshot->ram, at, &end);
			/* Where it does nothing, RAM is read as the guest goes. */
			(void)posix_fadvise(snapshot->files[file], (off_t)at, (off_t)(end - at), POSIX_FADV_WILLNEED);
		}
	}
	return NULL;
}

static void *write_learned(void *arg)
{
	struct sm_snapshot *snapshot = arg;
	/* A folder that cannot be written to has no working set. */
	(void)write_set(snapshot, &snapshot->working_set.learned, NULL);
	return NULL;
}

/* ---- the snapshot's ------------------------------------------------------------------------------------------ */

void sm_working_set_open(struct sm_snapshot *snapshot, const struct sm_snapshot_open *how)
{
	struct sm_working_set *set = &snapshot->working_set;
	if (how->sealed)
		sm_error_set(&set->why_not, ENOENT, "RAM is in memory as it is");
	else
		read_set(snapshot, &set->why_not);
	set->wanted = how->prefetch && !how->sealed;
}

void sm_working_set_close(struct sm_snapshot *snapshot)
{
	struct sm_working_set *set = &snapshot->working_set;
	atomic_store(&set->cancel, true);
	if (set->started)
		pthread_join(set->thread, NULL);
	sm_memory_touched_done(&set->touched);
	sm_memory_touched_done(&set->learned);
}

void sm_working_set_prefetch(struct sm_snapshot *snapshot)
{
	struct sm_working_set *set = &snapshot->working_set;
	if (set->wanted && set->touched.all.count && !atomic_exchange(&set->begun, true))
		start(snapshot, "prefetch", read_ahead);
}

bool sm_snapshot_wants_learner(struct sm_snapshot *snapshot)
{
	struct sm_working_set *set = &snapshot->working_set;
	return set->wanted && !set->touched.all.count && !atomic_exchange(&set->begun, true);
}

void sm_snapshot_replied(struct sm_snapshot *snapshot, struct sm_control *control)
{
	struct sm_working_set *set = &snapshot->working_set;
	if (sm_control_touched(control, &set->learned, NULL) == 0)
		start(snapshot, "working set", write_learned);
}

int sm_snapshot_learn(struct sm_snapshot *snapshot, struct sm_control *control, struct sm_error *err)
{
	struct sm_memory_touched touched;
	int code = sm_control_touched(control, &touched, err);
	if (code >= 0) {
		code = write_set(snapshot, &touched, err);
		sm_memory_touched_done(&touched);
	}
	return code < 0 ? sm_error_context(err, "working set of snapshot %s", snapshot->path) : 0;
}

int sm_snapshot_working_set(const struct sm_snapshot *snapshot, const struct sm_memory_touched **ret,
                            struct sm_error *err)
{
	const struct sm_working_set *set = &snapshot->working_set;
	*ret = &set->touched;
	return set->why_not.code ? sm_error_pass(err, &set->why_not, "working set of snapshot %s", snapshot->path) : 0;
}
