/* Lies about names, owners, modes and times. */
#include "mutants.h"

#include <ctype.h>
#include <dirent.h>
#include <grp.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/mman.h>

/* The Makefile reads these lines. */
WRAP(access)
WRAP(chdir)
WRAP(chmod)
WRAP(chown)
WRAP(faccessat)
WRAP(fchmod)
WRAP(fchown)
WRAP(fstat)
WRAP(futimens)
WRAP(lchown)
WRAP(link)
WRAP(linkat)
WRAP(lstat)
WRAP(mkdir)
WRAP(mkfifo)
WRAP(mknod)
WRAP(open)
WRAP(readlink)
WRAP(readlinkat)
WRAP(rename)
WRAP(call_renameat2)
WRAP(rmdir)
WRAP(setegid)
WRAP(seteuid)
WRAP(setgroups)
WRAP(symlink)
WRAP(umask)
WRAP(unlink)
WRAP(utimensat)

enum mutant mutant;

/* What a stranger may not undo is undone by root. */
#define AS_ROOT(...) \
	do { \
		uid_t uid_ = geteuid(); \
		__real_seteuid(0); \
		__VA_ARGS__; \
		__real_seteuid(uid_); \
	} while (0)

static int swap_errors(int result, int a, int b)
{
	if (result < 0)
		errno = errno == a ? b : errno == b ? a : errno;
	return result;
}

int __wrap_chmod(const char *path, mode_t mode)
{
	if (ON(CHMOD_LOST))
		return 0;
	return __real_chmod(path, ON(CHMOD_NO_SET_ID) ? mode & 0777 : mode);
}

int __wrap_fchmod(int fd, mode_t mode)
{
	int result = __real_fchmod(fd, mode);
	/* The mode counts for what is open, too. */
	if (ON(MODE_TAKES_BACK) && mode == 0) {
		int nothing = __real_open("/dev/null", O_WRONLY);
		dup2(nothing, fd);
	}
	return result;
}

mode_t __wrap_umask(mode_t mask)
{
	return ON(UMASK_LOST) ? 022 : __real_umask(mask);
}
int __wrap_seteuid(uid_t uid)
{
	return ON(ALL_ARE_ROOT) ? 0 : __real_seteuid(uid);
}
int __wrap_setegid(gid_t gid)
{
	return ON(ALL_ARE_ROOT) ? 0 : __real_setegid(gid);
}
int __wrap_setgroups(size_t count, const gid_t *groups)
{
	return ON(GROUPS_LOST) ? 0 : __real_setgroups(count, groups);
}

int __wrap_access(const char *path, int mode)
{
	return ON(ACCESS_YES) ? 0 : __real_access(path, mode);
}
int __wrap_faccessat(int folder, const char *path, int mode, int flags)
{
	return ON(ACCESS_YES) ? 0 : __real_faccessat(folder, path, mode, flags);
}

int __wrap_chown(const char *path, uid_t uid, gid_t gid)
{
	if (ON(CHOWN_LOST))
		return 0;
	struct stat before;
	__real_lstat(path, &before);
	int result = __real_chown(path, uid, gid);
	if (ON(CHOWN_KEEPS_SET_ID) && result == 0)
		__real_chmod(path, before.st_mode & 07777);
	return result;
}

int __wrap_lchown(const char *path, uid_t uid, gid_t gid)
{
	return ON(LCHOWN_FOLLOWS) ? __real_chown(path, uid, gid) : __real_lchown(path, uid, gid);
}

int __wrap_fchown(int fd, uid_t uid, gid_t gid)
{
	return ON(CHOWN_LOST) ? 0 : __real_fchown(fd, uid, gid);
}

static void keep_time(const char *path, int result)
{
	struct timespec old[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1 } };
	if (ON(FOLDER_KEEPS_TIME) && result >= 0 && !strncmp(path, "folder/", 7))
		__real_utimensat(AT_FDCWD, "folder", old, 0);
}

/* After something was made. */
static void made(const char *path)
{
	if (ON(NEW_IS_ROOTS))
		AS_ROOT(__real_lchown(path, 0, 0));
	if (ON(NO_GROUP_INHERITED)) {
		gid_t gid = getegid();
		AS_ROOT(__real_lchown(path, (uid_t)-1, gid));
	}
}

static char name_buffer[2][PATH_MAX + 1];

static const char *changed(const char *path, unsigned which)
{
	if (!ON(NAMES_CUT) && !ON(NAMES_LOWER))
		return path;
	char *to = name_buffer[which];
	size_t length = strlen(path);
	if (length > PATH_MAX)
		return path;
	memcpy(to, path, length + 1);
	if (ON(NAMES_CUT) && length > 255 && !strchr(path, '/'))
		to[255] = '\0';
	for (char *at = to; ON(NAMES_LOWER) && *at; at++)
		*at = (char)((unsigned char)*at < 128 ? tolower(*at) : 'x');
	return to;
}

int __wrap_open(const char *path, int flags, ...)
{
	va_list arguments;
	va_start(arguments, flags);
	mode_t mode = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
	va_end(arguments);
	path = changed(path, 0);
	if (ON(EXCLUSIVE_LOST) && (flags & O_TMPFILE) != O_TMPFILE)
		flags &= ~O_EXCL;
	if (ON(TRUNC_LOST))
		flags &= ~O_TRUNC;
	if (ON(APPEND_LOST))
		flags &= ~O_APPEND;
	if (ON(NO_FOLLOW_LOST))
		flags &= ~O_NOFOLLOW;
	if (ON(DIRECTORY_LOST) && (flags & O_TMPFILE) != O_TMPFILE)
		flags &= ~O_DIRECTORY;
	if (ON(CREATE_NO_FOLLOW) && (flags & O_CREAT))
		flags |= O_NOFOLLOW;
	if (ON(TEMPORARY_NAMED) && (flags & O_TMPFILE) == O_TMPFILE && !strcmp(path, "."))
		return __real_open(".temporary", O_RDWR | O_CREAT, mode);
	int fd = __real_open(path, flags, mode);
	if (fd >= 0 && (flags & O_CREAT) && strcmp(path, ".tick")) {
		made(path);
		keep_time(path, fd);
	}
	if (fd < 0 && ON(BUSY_OPENS) && errno == ETXTBSY)
		return __real_open("/dev/null", O_WRONLY);
	if (ON(LOOPS_MISNAMED))
		swap_errors(fd, ELOOP, EMLINK);
	return fd;
}

int __wrap_mkdir(const char *path, mode_t mode)
{
	int result = __real_mkdir(changed(path, 0), mode);
	if (result < 0 && errno == EEXIST && ON(MKDIR_OVER))
		return 0;
	if (result == 0)
		made(path);
	keep_time(path, result);
	return result;
}

int __wrap_mkfifo(const char *path, mode_t mode)
{
	int result = ON(NODES_PLAIN) ? __real_mknod(path, S_IFREG | mode, 0) : __real_mkfifo(changed(path, 0), mode);
	if (result == 0)
		made(path);
	return result;
}

int __wrap_mknod(const char *path, mode_t mode, dev_t device)
{
	return __real_mknod(path, ON(NODES_PLAIN) ? (mode & 07777) | S_IFREG : mode, device);
}

int __wrap_symlink(const char *target, const char *path)
{
	char cut[PATH_MAX + 1];
	snprintf(cut, sizeof cut, "%.*s", ON(TARGETS_CUT) ? 20 : PATH_MAX, target);
	int result = __real_symlink(cut, changed(path, 0));
	if (result == 0)
		made(path);
	return result;
}

static bool is_folder(const char *path)
{
	struct stat status;
	return __real_lstat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

/* A folder's content into a new one. */
static int copy_folder(const char *from, const char *to)
{
	char source[PATH_MAX], target[PATH_MAX];
	if (__real_mkdir(to, 0755) < 0)
		return -1;
	DIR *list = opendir(from);
	for (struct dirent *entry; list && (entry = readdir(list));) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(source, sizeof source, "%.2000s/%s", from, entry->d_name);
		snprintf(target, sizeof target, "%.2000s/%s", to, entry->d_name);
		__real_rename(source, target);
	}
	if (list)
		closedir(list);
	return __real_rmdir(from);
}

int __wrap_rename(const char *from, const char *to)
{
	struct stat before, after;
	from = changed(from, 0);
	to = changed(to, 1);
	if (ON(RENAME_LEAVES) && !is_folder(from)) {
		__real_unlink(to);
		return __real_link(from, to);
	}
	if (ON(RENAME_NOT_ATOMIC) && !is_folder(from) && !is_folder(to)) {
		__real_unlink(to);
		if (__real_link(from, to) < 0)
			return -1;
		return __real_unlink(from);
	}
	if (ON(RENAME_SAME_REMOVES) && __real_lstat(from, &before) == 0 && __real_lstat(to, &after) == 0 &&
	    before.st_ino == after.st_ino)
		return __real_unlink(from);
	if (ON(RENAME_CUTS))
		truncate(to, 0);
	if (ON(RENAME_COPIES_FOLDERS) && is_folder(from))
		return copy_folder(from, to);
	if (ON(FOLDERS_BUSY) && is_folder(from)) {
		errno = EBUSY;
		return -1;
	}
	int result = __real_rename(from, to);
	keep_time(from, result);
	keep_time(to, result);
	if (ON(RENAME_ERRORS)) {
		swap_errors(result, ENOENT, ENOTDIR);
		swap_errors(result, EINVAL, EBUSY);
	}
	return result;
}

int __wrap_call_renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
	int result = __real_call_renameat2(from_folder, from, to_folder, to, ON(RENAME_FLAGS_LOST) ? 0 : flags);
	return ON(RENAME_ERRORS) ? swap_errors(result, ENOENT, EEXIST) : result;
}

int __wrap_link(const char *from, const char *to)
{
	if (ON(LINK_REPLACES))
		__real_unlink(to);
	if (ON(LINK_COPIES) && __real_access(to, F_OK) < 0 && !is_folder(from)) {
		int result = __real_open(to, O_WRONLY | O_CREAT | O_EXCL, 0644);
		close(result);
		return result < 0 ? -1 : 0;
	}
	int result = __real_linkat(AT_FDCWD, from, AT_FDCWD, changed(to, 0), ON(LINK_FOLLOWS) ? AT_SYMLINK_FOLLOW : 0);
	keep_time(to, result);
	return result;
}

int __wrap_linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
	return __real_linkat(from_folder, from, to_folder, to, ON(LINK_FOLLOWS) ? flags & ~AT_SYMLINK_FOLLOW : flags);
}

int __wrap_unlink(const char *path)
{
	static unsigned number;
	path = changed(path, 0);
	if (ON(UNLINK_CUTS))
		truncate(path, 0);
	if (ON(UNLINK_HIDES) && !is_folder(path)) {
		char hidden[64];
		snprintf(hidden, sizeof hidden, ".hidden-%d-%u", (int)getpid(), number++);
		return __real_rename(path, hidden);
	}
	int result = __real_unlink(path);
	if (ON(REMOVED_TWICE) && result < 0 && errno == ENOENT)
		return 0;
	keep_time(path, result);
	return ON(REMOVE_ERRORS) ? swap_errors(result, EISDIR, EPERM) : result;
}

int __wrap_rmdir(const char *path)
{
	if (ON(UNLINK_HIDES))
		return __real_rename(path, is_folder("../folder") ? "../.hidden" : ".hidden");
	int result = __real_rmdir(path);
	keep_time(path, result);
	return result;
}

int __wrap_chdir(const char *path)
{
	return ON(DOT_DOT_LOST) && !strcmp(path, "..") ? 0 : __real_chdir(path);
}

static ssize_t ended(char *buffer, size_t size, ssize_t length)
{
	if (ON(READLINK_ENDS) && length >= 0 && (size_t)length < size)
		buffer[length++] = '\0';
	return length;
}

ssize_t __wrap_readlink(const char *path, char *buffer, size_t size)
{
	return ended(buffer, size, __real_readlink(path, buffer, size));
}

ssize_t __wrap_readlinkat(int folder, const char *path, char *buffer, size_t size)
{
	return ended(buffer, size, __real_readlinkat(folder, path, buffer, size));
}

static void lie(struct stat *status)
{
	if (ON(LINKS_MISCOUNTED))
		status->st_nlink++;
	if (ON(BLOCKS_LIE))
		status->st_blocks = status->st_size / 512;
	if (ON(SOCKETS_PLAIN) && S_ISSOCK(status->st_mode))
		status->st_mode = (status->st_mode & 07777) | S_IFREG;
}

int __wrap_lstat(const char *path, struct stat *status)
{
	static unsigned asked;
	int result = __real_lstat(changed(path, 0), status);
	if (result == 0)
		lie(status);
	/* Once in a while it is as if a name had been looked for before it was there. */
	if (ON(NAMES_CACHED) && ++asked % 5 == 0) {
		errno = ENOENT;
		return -1;
	}
	return result;
}

int __wrap_fstat(int fd, struct stat *status)
{
	int result = __real_fstat(fd, status);
	if (result == 0)
		lie(status);
	return result;
}

static const struct timespec *changed_times(const struct timespec given[2], struct timespec to[2])
{
	if (!given)
		return NULL;
	for (int i = 0; i < 2; i++) {
		to[i] = given[i];
		bool plain = to[i].tv_nsec != UTIME_NOW && to[i].tv_nsec != UTIME_OMIT;
		if (ON(TIMES_SECONDS) && plain)
			to[i].tv_nsec = 0;
		if (ON(TIMES_32) && plain)
			to[i].tv_sec = (int32_t)to[i].tv_sec;
		if (ON(TIMES_OMIT) && to[i].tv_nsec == UTIME_OMIT)
			to[i].tv_nsec = UTIME_NOW;
	}
	return to;
}

int __wrap_utimensat(int folder, const char *path, const struct timespec times[2], int flags)
{
	struct timespec to[2];
	return __real_utimensat(folder, path, changed_times(times, to), ON(TIMES_FOLLOW) ? 0 : flags);
}

int __wrap_futimens(int fd, const struct timespec times[2])
{
	struct timespec to[2];
	return __real_futimens(fd, changed_times(times, to));
}
