/* Files on their way into the store: STORE/partial/NAME, each locked (flock(2)) by who writes it.
 *
 * The lock is what tells a file that grows from one whose writer was killed: the kernel drops it with the last
 * descriptor.  A blob's NAME is its digest's hex digits, so what a killed pull has left is found and continued by the
 * next; small files have made-up names ("new.RANDOM") and are swept. */
#ifndef SM_OCI_PARTIAL_H
#define SM_OCI_PARTIAL_H

#include "base/path.h"

#include <stdbool.h>

struct sm_oci_partial {
	int fd; /* -1 when ended */
	bool locked;
	char path[PATH_MAX];
};

void sm_oci_partial_init(struct sm_oci_partial *partial); /* before anything else; then every end is safe */

/* Open (or make) and lock it: name NULL for a small file.  -EAGAIN, with err left alone: another has it; the
 * descriptor stays open, and calling again tries again. */
int sm_oci_partial_lock(struct sm_oci_partial *partial, const char *folder, const char *name, struct sm_error *err);
/* Each ends it.  commit: on disk, and then at `path`, whole; keep: stays for the next; discard: removed. */
int sm_oci_partial_commit(struct sm_oci_partial *partial, const char *path, struct sm_error *err);
void sm_oci_partial_keep(struct sm_oci_partial *partial);
void sm_oci_partial_discard(struct sm_oci_partial *partial);

/* An inotify(7) descriptor, owned by the caller, that becomes readable when a lock in the folder may have become free:
 * its holder committed, removed or closed the file, or died.  The kernel tells of a close just before it drops the
 * lock, and nothing of other machines on a network file system, so a waiter also tries again by the clock. */
int sm_oci_partial_watch(const char *folder);
void sm_oci_partial_watch_drain(int fd);

/* Remove what dead writers left: small files at once, blobs when nothing was written to them for a week. */
void sm_oci_partial_sweep(const char *folder);

#endif
