#include "oci/partial.h"

#include "base/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SMALL_PREFIX "new."
#define STALE_S      (7 * 24 * 3600)
#define LOCK_TRIES   100

void sm_oci_partial_init(struct sm_oci_partial *partial)
{
	memset(partial, 0, sizeof *partial);
	partial->fd = -1;
}

static int choose_path(struct sm_oci_partial *partial, const char *folder, const char *name, struct sm_error *err)
{
	if (name)
		return sm_path_format(partial->path, err, "%s/%s", folder, name);
	unsigned long long number;
	if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
		return sm_error_sys(err, errno, "create a file in '%s'", folder);
	return sm_path_format(partial->path, err, "%s/" SMALL_PREFIX "%016llx", folder, number);
}

/* Does the path still lead to what is open?  A holder that ended may have renamed or removed it. */
static bool in_place(const struct sm_oci_partial *partial)
{
	struct stat open_one, named;
	return fstat(partial->fd, &open_one) == 0 && lstat(partial->path, &named) == 0 &&
	       open_one.st_dev == named.st_dev && open_one.st_ino == named.st_ino;
}

int sm_oci_partial_lock(struct sm_oci_partial *partial, const char *folder, const char *name, struct sm_error *err)
{
	int code = partial->path[0] ? 0 : choose_path(partial, folder, name, err);
	if (code < 0)
		return code;
	for (int i = 0; i < LOCK_TRIES; i++) {
		if (partial->fd < 0)
			partial->fd = open(partial->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
		if (partial->fd < 0)
			return sm_error_sys(err, errno, "create '%s'", partial->path);
		bool busy = flock(partial->fd, LOCK_EX | LOCK_NB) < 0;
		if (busy && errno == EINTR)
			continue;
		if (busy && errno != EWOULDBLOCK)
			return sm_error_sys(err, errno, "lock '%s'", partial->path);
		if (in_place(partial)) {
			partial->locked = !busy;
			if (!busy || name)
				return busy ? -EAGAIN : 0;
			/* Swept between the two calls: another name. */
			if ((code = choose_path(partial, folder, name, err)) < 0)
				return code;
		}
		sm_fd_close(&partial->fd);
	}
	return sm_error_sys(err, EBUSY, "lock '%s'", partial->path);
}

/* The lock goes before the descriptor, so that who hears of the close finds it free. */
static void end(struct sm_oci_partial *partial)
{
	if (partial->locked)
		flock(partial->fd, LOCK_UN);
	partial->locked = false;
	sm_fd_close(&partial->fd);
}

int sm_oci_partial_commit(struct sm_oci_partial *partial, const char *path, struct sm_error *err)
{
	char parent[PATH_MAX];
	int code = 0;
	if (fsync(partial->fd) < 0)
		code = sm_error_sys(err, errno, "write '%s'", partial->path);
	else if (rename(partial->path, path) < 0)
		code = sm_error_sys(err, errno, "rename '%s' to '%s'", partial->path, path);
	if (code < 0) {
		sm_oci_partial_discard(partial);
		return code;
	}
	end(partial);
	code = sm_path_format(parent, err, "%.*s", (int)(strrchr(path, '/') - path), path);
	return code < 0 ? code : sm_path_sync_dir(parent, err);
}

void sm_oci_partial_keep(struct sm_oci_partial *partial)
{
	if (partial->fd >= 0)
		end(partial);
}

void sm_oci_partial_discard(struct sm_oci_partial *partial)
{
	if (partial->fd < 0)
		return;
	if (partial->locked)
		unlink(partial->path);
	end(partial);
}

int sm_oci_partial_watch(const char *folder)
{
	SM_FD_CLEANUP int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (fd < 0 || inotify_add_watch(fd, folder, IN_CLOSE_WRITE | IN_MOVED_FROM | IN_DELETE) < 0)
		return -errno;
	return sm_fd_take(&fd);
}

void sm_oci_partial_watch_drain(int fd)
{
	char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	while (read(fd, events, sizeof events) > 0)
		;
}

static void sweep_one(const char *folder, const char *name, time_t now)
{
	struct sm_oci_partial partial;
	struct stat status;
	sm_oci_partial_init(&partial);
	if (sm_path_format(partial.path, NULL, "%s/%s", folder, name) < 0)
		return;
	partial.fd = open(partial.path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (partial.fd < 0)
		return;
	bool stale = fstat(partial.fd, &status) == 0 &&
	             (!strncmp(name, SMALL_PREFIX, strlen(SMALL_PREFIX)) || now - status.st_mtime > STALE_S);
	if (stale && flock(partial.fd, LOCK_EX | LOCK_NB) == 0) {
		partial.locked = true;
		if (in_place(&partial))
			sm_oci_partial_discard(&partial);
	}
	sm_oci_partial_keep(&partial);
}

void sm_oci_partial_sweep(const char *folder)
{
	DIR *dir = opendir(folder);
	if (!dir)
		return;
	time_t now = time(NULL);
	for (struct dirent *entry; (entry = readdir(dir));)
		if (entry->d_name[0] != '.')
			sweep_one(folder, entry->d_name, now);
	closedir(dir);
}
