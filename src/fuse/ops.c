/* What there is to ask for, and how long each request and its reply may be. */
#include "fuse/internal.h"

#define NAME   (SM_FUSE_NAME_MAX + 1)
#define TARGET 4096 /* PATH_MAX, with the NUL */

#define ROW(opcode, function, min, max, out, more) \
	[opcode] = { .run = sm_fuse_do_##function, .in_min = (min), .in_max = (max), .out_min = (out), .flags = (more) }
#define SIZE(type) ((uint32_t)sizeof(struct type))

enum { W = SM_FUSE_OP_WRITES, STREAM = SM_FUSE_OP_STREAM, NAMES = SM_FUSE_OP_NAMES, SILENT = SM_FUSE_OP_SILENT };

static const struct sm_fuse_op table[] = {
	ROW(FUSE_INIT, init, 16, SIZE(fuse_init_in), SIZE(fuse_init_out), SM_FUSE_OP_EARLY),
	ROW(FUSE_DESTROY, destroy, 0, 0, 0, SM_FUSE_OP_EARLY),
	ROW(FUSE_LOOKUP, lookup, 2, NAME, SIZE(fuse_entry_out), NAMES),
	ROW(FUSE_FORGET, forget, SIZE(fuse_forget_in), SIZE(fuse_forget_in), 0, SILENT),
	ROW(FUSE_BATCH_FORGET, batch_forget, SIZE(fuse_batch_forget_in), UINT32_MAX, 0, SILENT | STREAM),
	ROW(FUSE_READLINK, readlink, 0, 0, 0, 0),
	ROW(FUSE_GETATTR, getattr, SIZE(fuse_getattr_in), SIZE(fuse_getattr_in), SIZE(fuse_attr_out), 0),
	ROW(FUSE_SETATTR, setattr, SIZE(fuse_setattr_in), SIZE(fuse_setattr_in), SIZE(fuse_attr_out), W),
	ROW(SM_FUSE_STATX, statx, SIZE(sm_fuse_statx_in), SIZE(sm_fuse_statx_in), SIZE(sm_fuse_statx_out), 0),
	ROW(FUSE_ACCESS, access, SIZE(fuse_access_in), SIZE(fuse_access_in), 0, 0),
	ROW(FUSE_STATFS, statfs, 0, 0, SIZE(fuse_statfs_out), 0),
	ROW(FUSE_MKNOD, mknod, SIZE(fuse_mknod_in) + 2, SIZE(fuse_mknod_in) + NAME, SIZE(fuse_entry_out), W | NAMES),
	ROW(FUSE_MKDIR, mkdir, SIZE(fuse_mkdir_in) + 2, SIZE(fuse_mkdir_in) + NAME, SIZE(fuse_entry_out), W | NAMES),
	ROW(FUSE_SYMLINK, symlink, 3, NAME + TARGET, SIZE(fuse_entry_out), W | NAMES),
	ROW(FUSE_LINK, link, SIZE(fuse_link_in) + 2, SIZE(fuse_link_in) + NAME, SIZE(fuse_entry_out), W | NAMES),
	ROW(FUSE_CREATE, create, SIZE(fuse_create_in) + 2, SIZE(fuse_create_in) + NAME,
	    SIZE(fuse_entry_out) + SIZE(fuse_open_out), W | NAMES),
	ROW(FUSE_UNLINK, unlink, 2, NAME, 0, W | NAMES),
	ROW(FUSE_RMDIR, rmdir, 2, NAME, 0, W | NAMES),
	ROW(FUSE_RENAME, rename, SIZE(fuse_rename_in) + 4, SIZE(fuse_rename_in) + 2 * NAME, 0, W | NAMES),
	ROW(FUSE_RENAME2, rename2, SIZE(fuse_rename2_in) + 4, SIZE(fuse_rename2_in) + 2 * NAME, 0, W | NAMES),
	ROW(FUSE_OPEN, open, SIZE(fuse_open_in), SIZE(fuse_open_in), SIZE(fuse_open_out), 0),
	ROW(FUSE_RELEASE, release, SIZE(fuse_release_in), SIZE(fuse_release_in), 0, 0),
	ROW(FUSE_FLUSH, flush, SIZE(fuse_flush_in), SIZE(fuse_flush_in), 0, 0),
	ROW(FUSE_FSYNC, fsync, SIZE(fuse_fsync_in), SIZE(fuse_fsync_in), 0, 0),
	ROW(FUSE_SYNCFS, syncfs, SIZE(fuse_syncfs_in), SIZE(fuse_syncfs_in), 0, 0),
	ROW(FUSE_READ, read, SIZE(fuse_read_in), SIZE(fuse_read_in), 0, 0),
	ROW(FUSE_WRITE, write, SIZE(fuse_write_in), UINT32_MAX, SIZE(fuse_write_out), W | STREAM),
	ROW(FUSE_OPENDIR, opendir, SIZE(fuse_open_in), SIZE(fuse_open_in), SIZE(fuse_open_out), 0),
	ROW(FUSE_READDIR, readdir, SIZE(fuse_read_in), SIZE(fuse_read_in), 0, 0),
	ROW(FUSE_READDIRPLUS, readdirplus, SIZE(fuse_read_in), SIZE(fuse_read_in), 0, 0),
	ROW(FUSE_RELEASEDIR, releasedir, SIZE(fuse_release_in), SIZE(fuse_release_in), 0, 0),
	ROW(FUSE_FSYNCDIR, fsyncdir, SIZE(fuse_fsync_in), SIZE(fuse_fsync_in), 0, 0),
	ROW(FUSE_FALLOCATE, fallocate, SIZE(fuse_fallocate_in), SIZE(fuse_fallocate_in), 0, W),
	ROW(FUSE_LSEEK, lseek, SIZE(fuse_lseek_in), SIZE(fuse_lseek_in), SIZE(fuse_lseek_out), 0),
	ROW(FUSE_COPY_FILE_RANGE, copy_file_range, SIZE(fuse_copy_file_range_in), SIZE(fuse_copy_file_range_in),
	    SIZE(fuse_write_out), W),
	ROW(FUSE_TMPFILE, tmpfile, SIZE(fuse_create_in), SIZE(fuse_create_in) + NAME,
	    SIZE(fuse_entry_out) + SIZE(fuse_open_out), W),
	ROW(FUSE_SETXATTR, setxattr, 0, UINT32_MAX, 0, W | STREAM),
	ROW(FUSE_GETXATTR, getxattr, SIZE(fuse_getxattr_in) + 2, SM_FUSE_ARG_MAX, 0, 0),
	ROW(FUSE_LISTXATTR, listxattr, SIZE(fuse_getxattr_in), SIZE(fuse_getxattr_in), 0, 0),
	ROW(FUSE_REMOVEXATTR, removexattr, 2, SM_FUSE_ARG_MAX, 0, W),
	ROW(FUSE_IOCTL, ioctl, SIZE(fuse_ioctl_in), SM_FUSE_ARG_MAX, SIZE(fuse_ioctl_out), 0),
	ROW(FUSE_GETLK, getlk, SIZE(fuse_lk_in), SIZE(fuse_lk_in), SIZE(fuse_lk_out), 0),
	ROW(FUSE_SETLK, setlk, SIZE(fuse_lk_in), SIZE(fuse_lk_in), 0, 0),
	ROW(FUSE_SETLKW, setlkw, SIZE(fuse_lk_in), SIZE(fuse_lk_in), 0, 0),
	ROW(FUSE_INTERRUPT, interrupt, SIZE(fuse_interrupt_in), SIZE(fuse_interrupt_in), 0, SILENT),
	ROW(FUSE_SETUPMAPPING, setupmapping, SIZE(fuse_setupmapping_in), SIZE(fuse_setupmapping_in), 0, 0),
	ROW(FUSE_REMOVEMAPPING, removemapping, SIZE(fuse_removemapping_in), UINT32_MAX, 0, STREAM),
};

const struct sm_fuse_op *sm_fuse_op(uint32_t opcode)
{
	return opcode < sizeof table / sizeof *table && table[opcode].run ? &table[opcode] : NULL;
}
