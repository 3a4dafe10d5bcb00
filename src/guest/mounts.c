#include "init.h"

#include "kernel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

struct mount_row {
	const char *type, *where, *data;
	unsigned long flags;
	enum {
		NEEDED,
		IF_KNOWN, /* a kernel without this file system will do */
		IF_EMPTY, /* only over an empty folder: what the image put there stays to be seen */
	} when;
};

int sm_mounts_folder(const char *path, unsigned mode, struct sm_failure *failure)
{
	if (mkdir(path, mode) == 0 || errno == EEXIST)
		return 0;
	return sm_fail_errno(failure, "make folder %s", path);
}

static bool is_empty(const char *path)
{
	DIR *dir = opendir(path);
	if (!dir)
		return false;
	unsigned count = 0;
	while (count < 3 && readdir(dir))
		count++;
	closedir(dir);
	return count <= 2; /* . and .. */
}

int sm_mounts_folders(const char *path, struct sm_failure *failure)
{
	char part[PATH_MAX];
	for (const char *end = path; *end;) {
		end += strcspn(end + 1, "/") + 1;
		snprintf(part, sizeof part, "%.*s", (int)(end - path), path);
		if (sm_mounts_folder(part, 0755, failure) < 0)
			return -1;
	}
	return 0;
}

int sm_mounts_memory(const char *path, struct sm_failure *failure)
{
	struct statfs status;
	int found = statfs(path, &status);
	if (found < 0) {
		if (sm_mounts_folders(path, failure) < 0)
			return -1;
		found = statfs(path, &status);
	}
	if (found < 0)
		return sm_fail_errno(failure, "folder %s", path);
	if (status.f_type == SM_TMPFS_MAGIC || status.f_type == SM_RAMFS_MAGIC)
		return 0;
	if (!is_empty(path)) {
		errno = ENOTEMPTY;
		return sm_fail_errno(failure, "folder %s: not in memory", path);
	}
	if (mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755") < 0)
		return sm_fail_errno(failure, "mount tmpfs on %s", path);
	return 0;
}

static int mount_row(const struct mount_row *row, struct sm_failure *failure)
{
	struct stat status;
	if (row->when == IF_EMPTY && lstat(row->where, &status) == 0 &&
	    (!S_ISDIR(status.st_mode) || !is_empty(row->where)))
		return 0;
	if (sm_mounts_folder(row->where, 0755, failure) < 0)
		return row->when == IF_KNOWN ? 0 : -1;
	if (mount(row->type, row->where, row->type, row->flags, row->data) == 0 || errno == EBUSY)
		return 0;
	if (row->when == IF_KNOWN && errno == ENODEV)
		return 0;
	return sm_fail_errno(failure, "mount %s on %s", row->type, row->where);
}

static int mount_rows(const struct mount_row *rows, size_t count, struct sm_failure *failure)
{
	for (size_t i = 0; i < count; i++)
		if (mount_row(&rows[i], failure) < 0)
			return -1;
	return 0;
}

int sm_mounts_early(struct sm_failure *failure)
{
	static const struct mount_row rows[] = {
		{ "devtmpfs", "/dev", "mode=0755", MS_NOSUID, NEEDED },
		{ "proc", "/proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, NEEDED },
		{ "sysfs", "/sys", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, NEEDED },
	};
	return mount_rows(rows, sizeof rows / sizeof *rows, failure);
}

static int link_standard(struct sm_failure *failure)
{
	static const char *const links[][2] = {
		{ "/proc/self/fd", "/dev/fd" },
		{ "/proc/self/fd/0", "/dev/stdin" },
		{ "/proc/self/fd/1", "/dev/stdout" },
		{ "/proc/self/fd/2", "/dev/stderr" },
	};
	for (size_t i = 0; i < sizeof links / sizeof *links; i++)
		if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST)
			return sm_fail_errno(failure, "link %s", links[i][1]);
	return 0;
}

/* Images come without one: who runs them is expected to provide it. */
static void write_hosts(void)
{
	static const char hosts[] = "127.0.0.1\tlocalhost\n::1\tlocalhost\n";
	struct stat status;
	if (lstat("/etc/hosts", &status) == 0 ? !S_ISREG(status.st_mode) || status.st_size : errno != ENOENT)
		return;
	int fd = open("/etc/hosts", O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return;
	if (write(fd, hosts, sizeof hosts - 1) < 0)
		fprintf(stderr, "supermachine: write /etc/hosts: %s\n", strerror(errno));
	close(fd);
}

int sm_mounts_system(struct sm_failure *failure)
{
	/* gid 5 is tty, by a convention as old as devpts. */
	static const struct mount_row rows[] = {
		{ "devpts", "/dev/pts", "gid=5,mode=620,ptmxmode=666", MS_NOSUID | MS_NOEXEC, NEEDED },
		{ "tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV, NEEDED },
		{ "mqueue", "/dev/mqueue", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, IF_KNOWN },
		{ "cgroup2", "/sys/fs/cgroup", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, IF_KNOWN },
		{ "tmpfs", "/run", "mode=0755", MS_NOSUID | MS_NODEV, IF_EMPTY },
		{ "tmpfs", "/tmp", "mode=1777", MS_NOSUID | MS_NODEV, IF_EMPTY },
	};
	if (mount_rows(rows, sizeof rows / sizeof *rows, failure) < 0 || link_standard(failure) < 0)
		return -1;
	write_hosts();
	return 0;
}
