#include "snapshot/volume_file.h"

#include "base/fd.h"
#include "base/path.h"
#include "snapshot/ext4.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMPORARY ".supermachine." /* so that it is nobody else's */
#define TRIES     100              /* somebody else makes or removes the file each time */
/* A file system may be smaller than its file by a group that is too small to be one. */
#define EXT4_REST (8u << 20)

#define LLU(value) (unsigned long long)(value)

/* ---- a new one ---------------------------------------------------------------------------------------------- */

static bool is_at(int fd, const char *path)
{
	struct stat open, named;
	return fstat(fd, &open) == 0 && lstat(path, &named) == 0 && open.st_dev == named.st_dev &&
	       open.st_ino == named.st_ino;
}

/* An empty file, locked: nobody else's leftover. */
static int make_temporary(const char *path, char temporary[PATH_MAX], struct sm_error *err)
{
	for (unsigned i = 0; i < TRIES; i++) {
		int code = sm_path_format(temporary, err, "%s" TEMPORARY "XXXXXX", path);
		if (code < 0)
			return code;
		int fd = mkostemp(temporary, O_CLOEXEC);
		if (fd < 0)
			return sm_error_sys(err, errno, "make a file beside it");
		/* Another may have taken it for a leftover, before it was locked. */
		if (flock(fd, LOCK_EX | LOCK_NB) == 0 && is_at(fd, temporary))
			return fd;
		sm_fd_close(&fd);
	}
	return sm_error_set(err, EAGAIN, "others make it all the time");
}

static int fill(int fd, const char *temporary, const struct sm_volume_source *source, uint64_t bytes,
                struct sm_error *err)
{
	if (ftruncate(fd, (off_t)bytes) < 0)
		return sm_error_sys(err, errno, "%llu bytes", LLU(bytes));
	int code = source->format ? sm_ext4_make(temporary, err) : 0;
	if (code >= 0 && fsync(fd) < 0)
		code = sm_error_sys(err, errno, "fsync");
	return code;
}

/* Whole from the moment that it has its name.  -EEXIST: somebody else was faster; where `replaced` is one that is
 * locked and empty, that goes. */
static int create(const struct sm_volume_source *source, uint64_t bytes, bool replaced, struct sm_error *err)
{
	char temporary[PATH_MAX];
	sm_path_remove_leftovers(source->path, TEMPORARY, false);
	int fd SM_FD_CLEANUP = make_temporary(source->path, temporary, err);
	if (fd < 0)
		return fd;
	int code = fill(fd, temporary, source, bytes, err);
	if (code >= 0 && renameat2(AT_FDCWD, temporary, AT_FDCWD, source->path, replaced ? 0 : RENAME_NOREPLACE) < 0)
		code = sm_error_sys(err, errno, "rename");
	if (code < 0) {
		unlink(temporary);
		return code;
	}
	char parent[PATH_MAX];
	const char *slash = strrchr(source->path, '/');
	snprintf(parent, sizeof parent, "%.*s", slash ? (int)(slash - source->path) + 1 : 1,
	         slash ? source->path : ".");
	code = sm_path_sync_dir(parent, err);
	return code < 0 ? code : 0;
}

/* ---- one that is there -------------------------------------------------------------------------------------- */

static int check_kind(mode_t mode, struct sm_error *err)
{
	if (S_ISREG(mode))
		return 0;
	if (S_ISDIR(mode))
		return sm_error_set(err, EISDIR, "a folder: a volume is a file (folders can be mounts)");
	if (S_ISLNK(mode))
		return sm_error_set(err, ELOOP, "a symbolic link: name the file that it points to");
	if (S_ISBLK(mode) || S_ISCHR(mode))
		return sm_error_set(err, ENOTBLK, "a device: a volume is a regular file");
	return sm_error_set(err, EINVAL, "not a regular file");
}

/* Opened and locked; -EAGAIN: it is another file by now. */
static int open_locked(const struct sm_volume_source *source, struct stat *ret_st, struct sm_error *err)
{
	const bool shared = source->readonly || source->overlay;
	/* Some devices do something when they are opened. */
	if (lstat(source->path, ret_st) < 0)
		return sm_error_sys(err, errno, "stat");
	int code = check_kind(ret_st->st_mode, err);
	if (code < 0)
		return code;
	int fd SM_FD_CLEANUP =
	    open(source->path, (shared ? O_RDONLY : O_RDWR) | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return sm_error_sys(err, errno, "open");
	if (flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0)
		return errno == EWOULDBLOCK
		           ? sm_error_set(err, EBUSY, "in use: another machine %s it", shared ? "writes to" : "has")
		           : sm_error_sys(err, errno, "lock");
	if (fstat(fd, ret_st) < 0)
		return sm_error_sys(err, errno, "stat");
	if (!is_at(fd, source->path))
		return sm_error_set(err, EAGAIN, "it is replaced all the time");
	code = check_kind(ret_st->st_mode, err);
	return code < 0 ? code : sm_fd_take(&fd);
}

static bool is_empty(int fd, off_t size)
{
	return size == 0 || (lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO);
}

/* File system and file as large as one another, with what a grow that was killed has left to do. */
static int grow(int fd, const struct sm_volume_source *source, uint64_t bytes, uint64_t wanted, struct sm_error *err)
{
	struct sm_ext4 inside;
	if (wanted > bytes && ftruncate(fd, (off_t)wanted) < 0)
		return sm_error_sys(err, errno, "grow to %llu bytes", LLU(wanted));
	if (!source->format || !sm_ext4_find(fd, &inside))
		return 0;
	if (wanted == bytes && (inside.bytes >= bytes || bytes - inside.bytes < EXT4_REST))
		return 0;
	return sm_ext4_grow(source->path, err);
}

/* A guest that may not write cannot replay the journal that is left where a machine just ended, so it is done for it.
 */
static int replay(int fd, const struct sm_volume_source *source, struct sm_error *err)
{
	int code = flock(fd, LOCK_EX | LOCK_NB) < 0 ? -EAGAIN : sm_ext4_replay(source->path, err);
	if (code >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0)
		code = -EAGAIN;
	return code == -EAGAIN ? sm_error_set(err, EAGAIN, "its journal is to be replayed, and others read it") : code;
}

static int check_size(const struct sm_volume_source *source, uint64_t bytes, struct sm_error *err)
{
	if (source->bytes && source->bytes < bytes)
		return sm_error_set(err, EINVAL, "%llu bytes are wanted, and it has %llu: a volume does not shrink",
		                    LLU(source->bytes), LLU(bytes));
	if (source->bytes > bytes && (source->readonly || source->overlay))
		return sm_error_set(err, EINVAL, "%llu bytes are wanted, and it has %llu: %s", LLU(source->bytes),
		                    LLU(bytes), source->readonly ? "it is read-only" : "under an overlay it stays");
	if ((source->bytes ? source->bytes : bytes) % SM_VOLUME_SECTOR)
		return sm_error_set(err, EINVAL, "%llu bytes: a volume is a multiple of %u",
		                    LLU(source->bytes ? source->bytes : bytes), SM_VOLUME_SECTOR);
	return 0;
}

/* *ret_made: it was empty, and there is another in its place. */
static int use(int fd, const struct sm_volume_source *source, const struct stat *st, struct sm_volume *ret,
               bool *ret_made, struct sm_error *err)
{
	const uint64_t bytes = (uint64_t)st->st_size, wanted = source->bytes ? source->bytes : bytes;
	const bool empty = is_empty(fd, st->st_size);
	struct sm_ext4 inside = { 0 };
	int code = check_size(source, bytes, err);
	if (code < 0)
		return code;
	if (wanted == 0)
		return sm_error_set(err, EINVAL, "it is empty: how large is it to be?");
	if (source->format && empty && !source->readonly && !source->overlay) {
		*ret_made = true;
		return create(source, wanted, true, err);
	}
	if (source->format && !sm_ext4_find(fd, &inside))
		return sm_error_set(err, EINVAL,
		                    empty ? "it is empty, and nobody may format it"
		                          : "it holds something, and no ext4: format = false takes it as it is");
	if (source->readonly && inside.journal)
		code = replay(fd, source, err);
	else if (!source->readonly && !source->overlay)
		code = grow(fd, source, bytes, wanted, err);
	*ret = (struct sm_volume){ .fd = fd, .overlay_fd = -1, .readonly = source->readonly, .bytes = wanted };
	return code;
}

static int open_file(const struct sm_volume_source *source, struct sm_volume *ret, struct sm_error *err)
{
	struct sm_error why = { 0 };
	for (unsigned i = 0; i < TRIES; i++) {
		struct stat st;
		bool made = false;
		int fd SM_FD_CLEANUP = open_locked(source, &st, &why);
		int code = fd;
		if (fd >= 0)
			code = use(fd, source, &st, ret, &made, &why);
		else if (fd == -ENOENT && source->bytes && !source->readonly && !source->overlay)
			code = create(source, source->bytes, false, &why);
		if (code >= 0 && fd >= 0 && !made) {
			sm_fd_take(&fd); /* is in *ret */
			return 0;
		}
		if (fd == -ENOENT && code == -ENOENT && !source->bytes && !source->readonly && !source->overlay)
			sm_error_context(&why, "it is not there, and how large it is to be is not said");
		if (code < 0 && code != -EEXIST && code != -EAGAIN)
			return sm_error_pass(err, &why, "volume %s", source->path);
	}
	return sm_error_pass(err, &why, "volume %s", source->path);
}

int sm_volume_file_open(const struct sm_volume_source *source, struct sm_volume *ret, struct sm_error *err)
{
	*ret = (struct sm_volume){ .fd = -1, .overlay_fd = -1 };
	struct stat st;
	if (source->overlay && !source->readonly &&
	    (stat(source->path, &st) < 0 ? errno == ENOENT : S_ISREG(st.st_mode) && st.st_size == 0)) {
		/* Made as if it was to be written to; then there is something below the overlay. */
		struct sm_volume_source plain = *source;
		plain.overlay = false;
		int code = open_file(&plain, ret, err);
		sm_volume_file_close(ret);
		if (code < 0)
			return code;
	}
	int code = open_file(source, ret, err);
	if (code >= 0 && source->overlay && !source->readonly)
		code = ret->overlay_fd = sm_volume_overlay(err);
	if (code < 0)
		sm_volume_file_close(ret);
	return code < 0 ? code : 0;
}

void sm_volume_file_close(struct sm_volume *volume)
{
	sm_fd_close(&volume->fd);
	sm_fd_close(&volume->overlay_fd);
}

int sm_volume_overlay(struct sm_error *err)
{
	const char *folder = getenv("TMPDIR");
	if (!folder || folder[0] != '/')
		folder = "/var/tmp";
	int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0)
		return fd;
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
		return sm_error_sys(err, errno, "overlay in %s", folder);
	char path[PATH_MAX];
	int code = sm_path_format(path, err, "%s/supermachine.XXXXXX", folder);
	if (code < 0)
		return code;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return sm_error_sys(err, errno, "overlay in %s", folder);
	unlink(path);
	return fd;
}
