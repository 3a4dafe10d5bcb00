/* libarchive, loaded for the first tar: with what it needs it is a dozen libraries (base/library.h). */
#ifndef SM_OCI_ARCHIVE_LIBRARY_H
#define SM_OCI_ARCHIVE_LIBRARY_H

#include "base/error.h"

#include <archive.h>
#include <archive_entry.h>

/* clang-format off */
#define SM_OCI_ARCHIVE_FUNCTIONS(F) \
	F(error_string) F(set_error) F(filter_bytes) F(read_new) F(read_open) F(read_open1) F(read_close) \
	F(read_free) F(read_append_filter) F(read_support_format_empty) F(read_support_format_raw) \
	F(read_support_format_tar) F(read_set_callback_data) F(read_set_read_callback) \
	F(read_set_skip_callback) F(read_next_header) F(read_data) F(read_data_block) F(read_data_skip) \
	F(entry_pathname) F(entry_hardlink) F(entry_symlink) F(entry_filetype) F(entry_set_filetype) \
	F(entry_perm) F(entry_uid) F(entry_gid) F(entry_size) F(entry_sparse_reset) F(entry_mtime) \
	F(entry_mtime_nsec) F(entry_mtime_is_set) F(entry_rdevmajor) F(entry_rdevminor) \
	F(entry_xattr_count) F(entry_xattr_reset) F(entry_xattr_next)
/* clang-format on */

/* archive_NAME is NAME here, but for archive_errno, since errno is a macro. */
struct sm_oci_archive_library {
	__typeof__(archive_errno) *error_number;
#define SM_OCI_ARCHIVE_MEMBER(name) __typeof__(archive_##name) *name;
	SM_OCI_ARCHIVE_FUNCTIONS(SM_OCI_ARCHIVE_MEMBER)
#undef SM_OCI_ARCHIVE_MEMBER
};

int sm_oci_archive_library_load(struct sm_oci_archive_library *ret, struct sm_error *err);

#endif
