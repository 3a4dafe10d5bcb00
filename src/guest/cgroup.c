#include "cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME "exec-"
#define KEEP "keep"
/* So many that the kernel's first per-processor area is used up, and what it then makes, four megabytes of accounting
 * with it, is made before a snapshot is, and not by the first process after each restore. */
#define KEPT 4

static void format_path(char out[128], unsigned long id, const char *file)
{
	snprintf(out, 128, SM_CGROUP_ROOT "/" NAME "%lu%s%s", id, *file ? "/" : "", file);
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int code = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return code;
}

void sm_cgroup_enable(void)
{
	/* One by one: a single write with an unknown controller in it does nothing at all. */
	static const char *const controllers[] = { "+memory", "+pids", "+cpu", "+io" };
	for (size_t i = 0; i < sizeof controllers / sizeof *controllers; i++)
		write_file(SM_CGROUP_ROOT "/cgroup.subtree_control", controllers[i]);
	/* With the first group below the root the kernel rewrites its own code, and again when the last has gone, with
	 * all processors held up (static keys of memory accounting).  Some that stay spare each process that. */
	char path[128];
	for (int i = 0; i < KEPT; i++) {
		snprintf(path, sizeof path, SM_CGROUP_ROOT "/" KEEP "-%d", i);
		mkdir(path, 0755);
	}
}

static int set_memory(unsigned long id, const char *file, uint64_t bytes)
{
	if (bytes == UINT64_MAX)
		return 0;
	char path[128], text[32];
	format_path(path, id, file);
	snprintf(text, sizeof text, "%llu", (unsigned long long)bytes);
	return write_file(path, text);
}

int sm_cgroup_prepare(unsigned long id)
{
	char path[128];
	format_path(path, id, "");
	return mkdir(path, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

int sm_cgroup_new(unsigned long id, uint64_t memory_soft, uint64_t memory_hard, int *ret_procs_fd)
{
	char path[128];
	int code = sm_cgroup_prepare(id);
	if (code < 0)
		return code;
	code = set_memory(id, "memory.max", memory_hard);
	if (code == 0 && memory_soft < memory_hard)
		code = set_memory(id, "memory.high", memory_soft);
	if (code == 0) {
		format_path(path, id, "cgroup.procs");
		*ret_procs_fd = open(path, O_WRONLY | O_CLOEXEC);
		code = *ret_procs_fd < 0 ? -errno : 0;
	}
	if (code < 0)
		sm_cgroup_remove(id);
	return code;
}

void sm_cgroup_kill(unsigned long id)
{
	char path[128];
	format_path(path, id, "cgroup.kill");
	write_file(path, "1");
}

bool sm_cgroup_remove(unsigned long id)
{
	char path[128];
	format_path(path, id, "");
	return rmdir(path) == 0 || errno != EBUSY;
}

void sm_cgroup_sweep(bool (*in_use)(void *arg, unsigned long id), void *arg, bool *ret_left)
{
	*ret_left = false;
	DIR *dir = opendir(SM_CGROUP_ROOT);
	if (!dir)
		return;
	const struct dirent *entry;
	unsigned long id;
	while ((entry = readdir(dir)))
		if (sscanf(entry->d_name, NAME "%lu", &id) == 1 && !in_use(arg, id) && !sm_cgroup_remove(id))
			*ret_left = true;
	closedir(dir);
}
