/* Extended attributes in the form that stands beside an EROFS inode. */
#ifndef SM_ROOTFS_XATTR_H
#define SM_ROOTFS_XATTR_H

#include "base/error.h"
#include "oci/archive_library.h"
#include "rootfs/arena.h"

#include <stdint.h>

/* Encode the entry's extended attributes, sorted, each once, without the header before them.  Linux namespaces only
 * (user, trusted, security, POSIX ACLs); others, which Linux could not set either, are dropped and counted.
 * trusted.overlay.* is refused (-EBADMSG): it would steer the overlay that the image becomes part of.
 * *ret_xattrs is NULL when there are none. */
int sm_xattr_encode(const struct sm_oci_archive_library *lib, struct archive_entry *entry, struct sm_arena *arena,
                    const void **ret_xattrs, uint32_t *ret_bytes, uint64_t *dropped, struct sm_error *err);

/* The entry trusted.overlay.opaque = "y", which marks a directory that hides the lower ones. */
#define SM_XATTR_OPAQUE_BYTES 20
extern const uint8_t sm_xattr_opaque[SM_XATTR_OPAQUE_BYTES];

#endif
