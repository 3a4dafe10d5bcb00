/* Who may take what out of the store, and when.  All locks are flock(2): they go with the process, however it ends.
 *
 * - The store's lock is on the folder blobs/.  Shared by whoever writes to the store, for as long as anything it counts
 *   on is not yet referenced: a pull from its first look for a blob until the reference is written and the image holds
 *   its manifest; a tag; the making of EROFS images; the saving of a snapshot.  Exclusive for gc and for the removal of
 *   what is damaged.  So whoever has it exclusively knows that every temporary in the store is a dead process's.
 * - Holds are shared locks on single files, for as long as they are used: an open image holds its manifest (and by that
 *   all it names), an open snapshot its RAM file, an open disk (a machine's or a snapshot's) its EROFS files.  The lock
 *   belongs to the open file, so it lasts until the last copy of the descriptor and the last mapping are gone, in a
 *   worker too.
 *
 * Lock order: the store's lock, then a pull's lock on one digest, then holds.  gc only ever tries a hold, so it waits
 * for nothing but the store's lock.  Removing a reference and reading need no lock.
 *
 * Where the file system knows no flock, users go on without; then gc cannot lock either, and removes nothing.  Any
 * thread. */
#ifndef SM_OCI_STORE_LOCK_H
#define SM_OCI_STORE_LOCK_H

#include "oci/store.h"

#include <stdatomic.h>

enum sm_oci_lock {
	SM_OCI_LOCK_SHARED,
	SM_OCI_LOCK_EXCLUSIVE,
};

struct sm_oci_store_lock {
	int fd; /* -1: not locked */
};

/* Waits; -ECANCELED when *cancel (NULL: never) turns true meanwhile. */
int sm_oci_store_lock(const struct sm_oci_store *store, enum sm_oci_lock how, const atomic_bool *cancel,
                      struct sm_oci_store_lock *ret_lock, struct sm_error *err);
void sm_oci_store_unlock(struct sm_oci_store_lock *lock); /* twice is fine */

/* Hold an open file of the store.  0, or -ENOENT when it was removed between its opening and this. */
int sm_oci_hold(int fd);
/* Is the file held, or is that unknown?  If not, the open file has it alone until it is closed. */
bool sm_oci_is_held(int fd);

/* The store in which "STORE/erofs/NAME" lies; false for any other path. */
bool sm_oci_store_of(const char *path, char ret_store[PATH_MAX]);

#endif
