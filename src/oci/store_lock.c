#include "oci/store_lock.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RETRY_MS 10 /* a lock that can be waited for and cancelled has no event */

static bool is_unsupported(int code)
{
	return code == -ENOLCK || code == -EOPNOTSUPP || code == -EINVAL || code == -EBADF || code == -ENOSYS;
}

static int try_lock(int fd, int operation)
{
	while (flock(fd, operation) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

int sm_oci_store_lock(const struct sm_oci_store *store, enum sm_oci_lock how, const atomic_bool *cancel,
                      struct sm_oci_store_lock *ret_lock, struct sm_error *err)
{
	char path[PATH_MAX];
	ret_lock->fd = -1;
	int code = sm_path_format(path, err, "%s/blobs", store->path);
	if (code < 0)
		return code;
	SM_FD_CLEANUP int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return sm_error_sys(err, errno, "image store: open '%s'", path);
	int operation = (how == SM_OCI_LOCK_EXCLUSIVE ? LOCK_EX : LOCK_SH) | LOCK_NB;
	while ((code = try_lock(fd, operation)) == -EWOULDBLOCK) {
		if (cancel && atomic_load(cancel))
			return sm_error_sys(err, ECANCELED, "image store '%s' is in use: lock", store->path);
		nanosleep(&(struct timespec){ .tv_nsec = RETRY_MS * 1000000 }, NULL);
	}
	if (code < 0 && (how == SM_OCI_LOCK_EXCLUSIVE || !is_unsupported(code)))
		return sm_error_sys(err, code, "image store: lock '%s'", path);
	ret_lock->fd = sm_fd_take(&fd);
	return 0;
}

/* Unlocked by name, not by closing alone: a process that is being forked may have a copy for a moment. */
void sm_oci_store_unlock(struct sm_oci_store_lock *lock)
{
	if (lock->fd >= 0)
		flock(lock->fd, LOCK_UN);
	sm_fd_close(&lock->fd);
}

int sm_oci_hold(int fd)
{
	struct stat status;
	/* Blocks while gc looks at this file, no longer. */
	int code = try_lock(fd, LOCK_SH);
	if (code < 0 && !is_unsupported(code))
		return code;
	if (fstat(fd, &status) < 0)
		return -errno;
	return status.st_nlink ? 0 : -ENOENT;
}

bool sm_oci_is_held(int fd)
{
	return try_lock(fd, LOCK_EX | LOCK_NB) < 0;
}

bool sm_oci_store_of(const char *path, char ret_store[PATH_MAX])
{
	static const char folder[] = "/erofs";
	char blobs[PATH_MAX];
	struct stat status;
	const char *slash = strrchr(path, '/');
	size_t tail = sizeof folder - 1, len = slash ? (size_t)(slash - path) : 0;
	if (len <= tail || len >= PATH_MAX || memcmp(slash - tail, folder, tail))
		return false;
	snprintf(ret_store, PATH_MAX, "%.*s", (int)(len - tail), path);
	return sm_path_format(blobs, NULL, "%s/blobs", ret_store) == 0 && stat(blobs, &status) == 0 &&
	       S_ISDIR(status.st_mode);
}
