/* Snapshots: a machine as a folder, and machines made from it.
 *
 *   meta            one record: plan, disks, metadata, size, SHA-256 and stamp of the next files, parent
 *   state           vCPUs, interrupt controllers, clock, devices (base/codec records, machine/state.c)
 *   ram             guest RAM, zero pages are holes
 *   volume-N        what was in the volume of slot N at that moment
 *   manifest.json   what of this people and tools may want; never read back
 *   working-set     which RAM a machine touches until its first reply; comes later, and all works without it
 *
 * A snapshot of a restored machine can have in `ram` only what has changed since: then meta names the parent by path
 * and by the hash of its meta, and says which RAM is the child's own (its holes there are zeros).  Opening such a one
 * opens and checks its parents, too; a restored machine maps each page from where it is.
 *
 * A machine reads the volumes' files below overlays of its own, which are empty when it is restored or reset.  They are
 * always whole: of a diff snapshot, too.
 *
 * The folder appears whole, by rename; what a save that was killed leaves (PATH.tmp.XXXXXX) the next save to the same
 * path removes.  open compares each file's size and stamp (inode, mtime, ctime) with meta; when a stamp differs (the
 * folder was copied, or somebody wrote to a file) it hashes the whole file, so a changed byte is refused, and an
 * untouched snapshot opens without reading it. */
#ifndef SM_SNAPSHOT_SNAPSHOT_H
#define SM_SNAPSHOT_SNAPSHOT_H

#include "base/error.h"
#include "machine/control.h"
#include "plan/plan.h"
#include "snapshot/sources.h"

#include <stdint.h>

#define SM_SNAPSHOT_VERSION      3 /* 1: without host and parent; 2: without mounts and volumes; both still read */
#define SM_SNAPSHOT_METADATA_MAX (1u << 20)

struct sm_snapshot;

struct sm_snapshot_times {
	uint64_t capture_us, hash_us, sync_us, total_us;
	uint64_t ram_bytes; /* stored, without holes */
	/* sm_control_capture; 0 of a copy */
	uint64_t pause_us, volumes_us, written_bytes;
	uint32_t rounds;
};

/* Save a machine, paused or running: see sm_control_capture.  `path` must not exist (-EEXIST); its folder must.
 * metadata: the caller's bytes, kept as they are.  `parent`: what the machine was restored from, to store only what
 * differs; NULL: store all.  -EBADMSG or -ENOENT when the parent's folder is not what it was. */
int sm_snapshot_save(struct sm_control *control, const struct sm_sources *sources, struct sm_snapshot *parent,
                     const void *metadata, size_t metadata_len, const char *path, struct sm_snapshot_times *ret_times,
                     struct sm_error *err);
/* A copy that leans on no other. */
int sm_snapshot_flatten(struct sm_snapshot *snapshot, const char *path, struct sm_snapshot_times *ret_times,
                        struct sm_error *err);

/* Open and check.  -ENOENT, -EBADMSG naming the file and what is wrong, -ENOMEM for a sealed copy that does not fit. */
struct sm_snapshot_open {
	bool verify; /* hash whatever the stamps say */
	bool sealed; /* RAM and state are read into memory, hashed there, and can be changed by nobody from then on */
	/* The working set is read ahead by a thread at the first restore, and what is written of it copied by another
	 * at each; where there is none it is learned. */
	bool prefetch;
};
int sm_snapshot_open(const char *path, const struct sm_snapshot_open *how, struct sm_snapshot **ret_snapshot,
                     struct sm_error *err);
/* Snapshots are counted: open gives one reference. */
struct sm_snapshot *sm_snapshot_ref(struct sm_snapshot *snapshot);
void sm_snapshot_unref(struct sm_snapshot *snapshot); /* NULL is fine */

const char *sm_snapshot_path(const struct sm_snapshot *snapshot);
const char *sm_snapshot_parent(const struct sm_snapshot *snapshot); /* path; NULL: it is whole */
const struct sm_plan *sm_snapshot_plan(const struct sm_snapshot *snapshot);
const struct sm_sources *sm_snapshot_sources(const struct sm_snapshot *snapshot);
const void *sm_snapshot_metadata(const struct sm_snapshot *snapshot, size_t *ret_len);
uint64_t sm_snapshot_ram_bytes(const struct sm_snapshot *snapshot); /* stored */

/* A paused machine from the snapshot: the same build as a cold boot, with state instead of a kernel.  Any thread.
 * -ENOENT for a mount whose host path is gone. */
struct sm_snapshot_restore {
	enum sm_control_transport transport;
	int hv_fd;
	bool watched; /* its working set is to be learned: page by page, and a fault for each, until then */
	const struct sm_source_mounts *mounts; /* the snapshot's own, some of them bound elsewhere; NULL: as saved */
};
int sm_snapshot_restore(struct sm_snapshot *snapshot, const struct sm_snapshot_restore *how,
                        struct sm_control **ret_control, struct sm_error *err);

/* The working set: extents of the RAM files that a machine touches between its restore and its first reply.  What is
 * read back is bounded and inside RAM, and of this very snapshot (the hash of its meta); otherwise it is as if it was
 * not there.
 *
 * wants_learner: with `prefetch`, true once since open, and only if there was no set then: whoever asked is to restore
 * a watched machine, and to say when its guest has replied.  Then it is looked at, and a thread writes the file.
 * learn: look and write now, in place of what is there.  Of a machine that is not watched, neighbours of what it
 * touched may count too.  -EINVAL for one that was booted, -EROFS and the like. */
bool sm_snapshot_wants_learner(struct sm_snapshot *snapshot);
void sm_snapshot_replied(struct sm_snapshot *snapshot, struct sm_control *control);
int sm_snapshot_learn(struct sm_snapshot *snapshot, struct sm_control *control, struct sm_error *err);
/* As it was when the snapshot was opened; borrowed.  -ENOENT: none; -EBADMSG: ignored, and why. */
int sm_snapshot_working_set(const struct sm_snapshot *snapshot, const struct sm_memory_touched **ret,
                            struct sm_error *err);

#endif
