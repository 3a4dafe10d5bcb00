/* The members of a tar as files, read in place: of a plain tar by offset, of one packed with gzip, bzip2, xz or zstd
 * through the filter again.  Nothing is written to disk.
 *
 * Names are those of the members without "./"; symbolic and hard links lead to other members, never out of the tar.
 * What a tar can hold but an image archive does not (sparse files, a name that is there twice and asked for) is
 * refused, since programs read it in different ways. */
#ifndef SM_OCI_ARCHIVE_H
#define SM_OCI_ARCHIVE_H

#include "oci/files.h"

#define SM_OCI_ARCHIVE_HEAD 6 /* enough for every magic */

struct sm_oci_archive_member {
	char *name;
	char *link;                        /* of a link: the member it leads to, resolved; otherwise NULL */
	uint64_t size;                     /* bytes of content */
	uint64_t offset;                   /* of the content in a plain tar */
	uint64_t number;                   /* the tar's entries counted from 0 */
	const char *fault;                 /* why it may not be read, or NULL */
	uint8_t head[SM_OCI_ARCHIVE_HEAD]; /* the first bytes, zeroes after the end */
};

/* Reads the headers of the whole tar.  `cancel` may be NULL. */
int sm_oci_archive_open(const char *path, const atomic_bool *cancel, struct sm_oci_files **ret, struct sm_error *err);

/* The regular member that a name leads to, borrowed.  -ENOENT, or -EBADMSG for one that may not be read. */
int sm_oci_archive_find(struct sm_oci_files *archive, const char *name, const struct sm_oci_archive_member **ret,
                        struct sm_error *err);

#endif
