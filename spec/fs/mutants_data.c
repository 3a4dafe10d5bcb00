/* Lies about bytes, places, locks, mappings, attributes and lists. */
#include "mutants.h"

#include <dirent.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/xattr.h>

/* The Makefile reads these lines. */
WRAP(copy_file_range)
WRAP(dup)
WRAP(fallocate)
WRAP(fcntl)
WRAP(flock)
WRAP(fsync)
WRAP(ftruncate)
WRAP(call_getdents)
WRAP(getxattr)
WRAP(listxattr)
WRAP(lseek)
WRAP(mmap)
WRAP(pread)
WRAP(preadv)
WRAP(pwrite)
WRAP(read)
WRAP(readdir)
WRAP(seekdir)
WRAP(sendfile)
WRAP(setrlimit)
WRAP(setxattr)
WRAP(statvfs)
WRAP(truncate)
WRAP(write)

static ssize_t read_result(void *buffer, ssize_t bytes)
{
	if (ON(READ_TURNS) && bytes > 0)
		((uint8_t *)buffer)[bytes / 2] ^= 1;
	return bytes;
}

static off_t place(off_t offset)
{
	return ON(OFFSETS_32) ? (off_t)(uint32_t)offset : offset;
}

ssize_t __wrap_read(int fd, void *buffer, size_t bytes)
{
	return read_result(buffer, __real_read(fd, buffer, bytes));
}

ssize_t __wrap_pread(int fd, void *buffer, size_t bytes, off_t offset)
{
	return read_result(buffer, __real_pread(fd, buffer, bytes, place(offset)));
}

/* What a write does besides. */
static struct stat before_write(int fd)
{
	struct stat status = { 0 };
	fstat(fd, &status);
	return status;
}

static ssize_t after_write(int fd, const struct stat *before, const void *data, size_t bytes, ssize_t result)
{
	if (ON(BAD_WRITES) && result < 0 && errno == EFAULT)
		return (ssize_t)bytes;
	if (ON(FULL_LIES) && result < 0 && errno == ENOSPC)
		return (ssize_t)bytes;
	if (result <= 0 || !S_ISREG(before->st_mode))
		return result;
	(void)data;
	uid_t uid = geteuid();
	seteuid(0);
	if (ON(WRITE_KEEPS_SET_ID) && before->st_mode & 06000)
		fchmod(fd, before->st_mode & 07777);
	if (ON(WRITE_DROPS_SET_ID))
		fchmod(fd, before->st_mode & 0777);
	seteuid(uid);
	if (ON(WRITE_KEEPS_TIME))
		futimens(fd, (struct timespec[2]){ { .tv_nsec = UTIME_OMIT }, before->st_mtim });
	return result;
}

ssize_t __wrap_write(int fd, const void *data, size_t bytes)
{
	struct stat before = before_write(fd);
	return after_write(fd, &before, data, bytes, __real_write(fd, data, bytes));
}

ssize_t __wrap_pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
	struct stat before = before_write(fd);
	if (ON(GAPS_FILLED) && offset > before.st_size)
		__real_pwrite(fd, "g", 1, before.st_size);
	size_t less = ON(WRITE_SHORT) && bytes > 1 ? 1 : 0;
	ssize_t result = __real_pwrite(fd, data, bytes - less, place(offset));
	return after_write(fd, &before, data, bytes, result > 0 ? result + (ssize_t)less : result);
}

static int cut(int fd, off_t size)
{
	if (ON(TRUNCATE_LOST))
		return 0;
	struct stat before = before_write(fd);
	int result = __real_ftruncate(fd, place(size));
	if (ON(TRUNCATE_LEAVES) && result == 0 && size > before.st_size)
		__real_pwrite(fd, "l", 1, before.st_size);
	after_write(fd, &before, NULL, 0, result == 0 ? 1 : result);
	return result;
}

int __wrap_ftruncate(int fd, off_t size)
{
	return cut(fd, size);
}

int __wrap_truncate(const char *path, off_t size)
{
	struct stat before;
	if (ON(TRUNCATE_LOST))
		return 0;
	int known = stat(path, &before), result = __real_truncate(path, size);
	if (ON(WRITE_KEEPS_SET_ID) && known == 0 && result == 0) {
		uid_t uid = geteuid();
		seteuid(0);
		chmod(path, before.st_mode & 07777);
		seteuid(uid);
	}
	return result;
}

off_t __wrap_lseek(int fd, off_t offset, int whence)
{
	if (ON(HOLES_LIE) && (whence == SEEK_DATA || whence == SEEK_HOLE))
		return __real_lseek(fd, offset + (whence == SEEK_DATA ? 4096 : 0), SEEK_SET);
	return place(__real_lseek(fd, offset, whence));
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t length)
{
	if (ON(ALLOCATE_LOST))
		return 0;
	if (ON(ALLOCATE_GROWS) && mode == 1 /* KEEP_SIZE */)
		mode = 0;
	int result = __real_fallocate(fd, mode, offset, length);
	return ON(FULL_LIES) && result < 0 && errno == ENOSPC ? 0 : result;
}

void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
	if (fd >= 0 && ON(MAP_PRIVATE_ALWAYS))
		flags = (flags & ~MAP_SHARED) | MAP_PRIVATE;
	if (fd >= 0 && ON(MAP_SHARED_ALWAYS))
		flags = (flags & ~MAP_PRIVATE) | MAP_SHARED;
	if (fd >= 0 && ON(MAP_LONG)) {
		/* What is stored behind the end makes the file longer. */
		struct stat status;
		fstat(fd, &status);
		if (status.st_size < offset + (off_t)bytes)
			__real_ftruncate(fd, offset + (off_t)bytes);
	}
	return __real_mmap(address, bytes, protection, flags, fd, place(offset));
}

int __wrap_fcntl(int fd, int command, ...)
{
	va_list arguments;
	va_start(arguments, command);
	void *argument = va_arg(arguments, void *);
	va_end(arguments);
	bool own = command == F_SETLK || command == F_SETLKW || command == F_GETLK;
	bool ofd = command == F_OFD_SETLK || command == F_OFD_SETLKW || command == F_OFD_GETLK;
	if (!own && !ofd)
		return __real_fcntl(fd, command, ON(APPEND_LOST) ? NULL : argument);
	struct flock *lock = argument;
	if (ON(LOCKS_LOST)) {
		if (command == F_GETLK)
			lock->l_type = F_UNLCK;
		return 0;
	}
	if (ON(LOCKS_DO_NOT_WAIT) && (command == F_SETLKW || command == F_OFD_SETLKW))
		return 0;
	if (ON(LOCKS_WHOLE))
		lock->l_start = lock->l_len = 0;
	if (ON(LOCKS_BY_FILE) && own) {
		lock->l_pid = 0;
		command += F_OFD_SETLK - F_SETLK;
	}
	if (ON(LOCKS_BY_PROCESS) && ofd)
		command -= F_OFD_SETLK - F_SETLK;
	return __real_fcntl(fd, command, lock);
}

int __wrap_flock(int fd, int operation)
{
	return ON(FLOCK_LOST) ? 0 : __real_flock(fd, operation);
}

int __wrap_dup(int fd)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return ON(DUP_REOPENS) ? open(path, O_RDWR) : __real_dup(fd);
}

int __wrap_setrlimit(int resource, const struct rlimit *limit)
{
	return ON(LIMIT_LOST) ? 0 : __real_setrlimit(resource, limit);
}

int __wrap_fsync(int fd)
{
	if (ON(SYNC_TOUCHES))
		futimens(fd, NULL);
	if (ON(SYNC_FAILS)) {
		errno = EIO;
		return -1;
	}
	return __real_fsync(fd);
}

ssize_t __wrap_preadv(int fd, const struct iovec *vectors, int count, off_t offset)
{
	return __real_preadv(fd, vectors, ON(VECTORS_CUT) ? 1 : count, offset);
}

ssize_t __wrap_copy_file_range(int from, off_t *in, int to, off_t *out, size_t bytes, unsigned flags)
{
	ssize_t result = __real_copy_file_range(from, in, to, out, bytes, flags);
	if (ON(COPY_SHORT) && result > 0 && out)
		__real_pwrite(to, "", 1, *out - 1);
	return result;
}

ssize_t __wrap_sendfile(int to, int from, off_t *offset, size_t bytes)
{
	ssize_t result = __real_sendfile(to, from, offset, bytes);
	if (ON(COPY_SHORT) && result > 0)
		__real_pwrite(to, "!", 1, 0);
	return result;
}

int __wrap_setxattr(const char *path, const char *name, const void *value, size_t bytes, int flags)
{
	if (ON(ATTRIBUTE_LOST))
		return 0;
	return __real_setxattr(path, name, value, bytes, ON(ATTRIBUTE_FLAGS) ? 0 : flags);
}

ssize_t __wrap_getxattr(const char *path, const char *name, void *value, size_t bytes)
{
	ssize_t result = __real_getxattr(path, name, value, bytes);
	return ON(ATTRIBUTE_PADDED) && result >= 0 ? result + 1 : result;
}

ssize_t __wrap_listxattr(const char *path, char *list, size_t bytes)
{
	ssize_t result = __real_listxattr(path, list, bytes);
	return ON(ATTRIBUTE_UNLISTED) && result > 20 ? result - 20 : result;
}

struct dirent *__wrap_readdir(DIR *list)
{
	static unsigned count;
	static struct dirent last;
	count++;
	if (ON(LIST_TWICE) && count % 9 == 0)
		return &last;
	struct dirent *entry = __real_readdir(list);
	if (ON(LIST_SKIPS) && entry && count % 9 == 0)
		entry = __real_readdir(list);
	if (entry && ON(LIST_KINDS))
		entry->d_type = DT_BLK;
	if (entry)
		last = *entry;
	return entry;
}

void __wrap_seekdir(DIR *list, long at)
{
	__real_seekdir(list, at);
	if (ON(PLACES_MOVE))
		__real_readdir(list);
}

ssize_t __wrap_call_getdents(int fd, void *buffer, size_t bytes)
{
	static unsigned calls;
	return ON(LIST_CUT) && ++calls % 3 == 0 ? 0 : __real_call_getdents(fd, buffer, bytes);
}

int __wrap_statvfs(const char *path, struct statvfs *status)
{
	int result = __real_statvfs(path, status);
	if (ON(SPACE_LIES))
		status->f_namemax = 0;
	return result;
}
