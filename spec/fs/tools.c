/* Short forms for the checks. */
#include "posix.h"

#include <dirent.h>
#include <grp.h>
#include <sys/syscall.h>

#define NEED_ON(path, expression) \
	({ \
		intmax_t result_ = (intmax_t)(expression); \
		if (result_ < 0) \
			STOP("%s: %s: %s", #expression, (path), strerror(errno)); \
		result_; \
	})

uint8_t pattern(uint64_t offset)
{
	return (uint8_t)((offset * UINT64_C(0x9e3779b97f4a7c15)) >> 56);
}

void write_all(int fd, const void *data, size_t bytes)
{
	for (const char *at = data; bytes;) {
		ssize_t written = NEED(write(fd, at, bytes));
		at += written;
		bytes -= (size_t)written;
	}
}

void make_file(const char *path, const char *text)
{
	int fd = (int)NEED_ON(path, open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
	write_all(fd, text, strlen(text));
	NEED_ON(path, close(fd));
}

void make_bytes(const char *path, size_t bytes)
{
	uint8_t block[8192];
	int fd = (int)NEED_ON(path, open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
	for (size_t at = 0; at < bytes; at += sizeof block) {
		for (size_t i = 0; i < sizeof block; i++)
			block[i] = pattern(at + i);
		write_all(fd, block, bytes - at < sizeof block ? bytes - at : sizeof block);
	}
	NEED_ON(path, close(fd));
}

void expect_text(const char *file, int line, const char *path, const char *text)
{
	char got[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t bytes = fd < 0 ? -1 : read(fd, got, sizeof got - 1);
	if (bytes < 0)
		check_stop(file, line, "%s: expected to read it, got %s", path, strerror(errno));
	got[bytes] = '\0';
	close(fd);
	if ((size_t)bytes != strlen(text) || memcmp(got, text, (size_t)bytes))
		check_stop(file, line, "%s: expected \"%.200s\", got \"%.200s\"", path, text, got);
}

void expect_range(const char *file, int line, int fd, uint64_t from, uint64_t to, bool zero)
{
	uint8_t block[65536];
	for (uint64_t at = from; at < to;) {
		size_t bytes = to - at < sizeof block ? (size_t)(to - at) : sizeof block;
		ssize_t got = pread(fd, block, bytes, (off_t)at);
		if (got <= 0)
			check_stop(file, line, "read at %ju: expected %zu bytes, got %s", (uintmax_t)at, bytes,
			           got ? strerror(errno) : "the end");
		for (ssize_t i = 0; i < got; i++, at++)
			if (block[i] != (zero ? 0 : pattern(at)))
				check_stop(file, line, "byte %ju: expected %#x, got %#x", (uintmax_t)at,
				           zero ? 0 : pattern(at), block[i]);
	}
}

struct stat status_of(const char *path)
{
	struct stat status;
	NEED_ON(path, lstat(path, &status));
	return status;
}

unsigned mode_of(const char *path)
{
	return status_of(path).st_mode & 07777;
}

bool exists(const char *path)
{
	struct stat status;
	return lstat(path, &status) == 0;
}

unsigned count_entries(const char *path)
{
	unsigned count = 0;
	DIR *folder = opendir(path);
	if (!folder)
		STOP("opendir %s: %s", path, strerror(errno));
	for (struct dirent *entry; (entry = readdir(folder));)
		count += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
	closedir(folder);
	return count;
}

int compare_times(struct timespec a, struct timespec b)
{
	if (a.tv_sec != b.tv_sec)
		return a.tv_sec < b.tv_sec ? -1 : 1;
	return (a.tv_nsec > b.tv_nsec) - (a.tv_nsec < b.tv_nsec);
}

/* File systems stamp by a clock that moves some hundred times a second, and it may be another machine's. */
void tick(struct timespec since)
{
	int fd = (int)NEED(open(".tick", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	struct timespec begin, now;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (unsigned round = 0;; round++) {
		struct stat status;
		NEED(fchmod(fd, round & 1 ? 0600 : 0640));
		NEED(fstat(fd, &status));
		if (compare_times(status.st_ctim, since) > 0)
			break;
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec - begin.tv_sec > 10)
			STOP("chmod: expected the change time to move within ten seconds, got the same");
	}
	NEED(close(fd));
	NEED(unlink(".tick"));
}

int become(uid_t uid, gid_t gid)
{
	NEED(setgroups(0, NULL));
	NEED(setegid(gid));
	NEED(seteuid(uid));
	return 1;
}

int unbecome(void)
{
	NEED(seteuid(0));
	NEED(setegid(0));
	return 0;
}

pid_t start(int (*run)(unsigned number), unsigned number)
{
	pid_t pid = (pid_t)NEED(fork());
	if (pid == 0) {
		int status = run(number);
		_exit(status ? status : check_failed());
	}
	return pid;
}

int join(pid_t pid)
{
	int status;
	NEED(waitpid(pid, &status, 0));
	if (!WIFEXITED(status))
		STOP("a child: expected it to end by itself, got signal %d", WTERMSIG(status));
	return WEXITSTATUS(status);
}

/* One that is done before the next was forked has raced with nobody. */
void run_all(int (*run)(unsigned number), unsigned count)
{
	struct gate start_line = make_gate();
	pid_t *pids = calloc(count, sizeof *pids);
	if (!pids)
		STOP("no memory");
	for (unsigned i = 0; i < count; i++) {
		pids[i] = (pid_t)NEED(fork());
		if (pids[i] == 0) {
			char byte;
			NEED(close(start_line.ends[1]));
			IS(read(start_line.ends[0], &byte, 1), 0);
			int status = run(i);
			_exit(status ? status : check_failed());
		}
	}
	NEED(close(start_line.ends[1]));
	NEED(close(start_line.ends[0]));
	for (unsigned i = 0; i < count; i++)
		IS(join(pids[i]), 0);
	free(pids);
}

struct gate make_gate(void)
{
	struct gate gate;
	NEED(pipe2(gate.ends, O_CLOEXEC));
	return gate;
}

void open_gate(const struct gate *gate)
{
	NEED(write(gate->ends[1], "", 1));
}

void pass_gate(const struct gate *gate)
{
	char byte;
	if (NEED(read(gate->ends[0], &byte, 1)) != 1)
		STOP("a child: expected a word from it, got its end");
}

static void empty_tree(int folder)
{
	DIR *list = fdopendir(folder);
	if (!list) {
		close(folder);
		return;
	}
	/* Some file systems lose their place when what was read is removed: until nothing comes any more. */
	for (bool more = true; more;) {
		more = false;
		rewinddir(list);
		for (struct dirent *entry; (entry = readdir(list));)
			if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) {
				remove_tree(folder, entry->d_name);
				more = more || faccessat(folder, entry->d_name, F_OK, AT_SYMLINK_NOFOLLOW) < 0;
			}
	}
	closedir(list);
}

void remove_tree(int folder, const char *name)
{
	if (unlinkat(folder, name, 0) == 0)
		return;
	int inside = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (inside >= 0)
		empty_tree(inside);
	unlinkat(folder, name, AT_REMOVEDIR);
}

void copy_program(const char *path)
{
	char block[65536];
	int from = (int)NEED(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
	int to = (int)NEED_ON(path, open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755));
	for (ssize_t bytes; (bytes = NEED(read(from, block, sizeof block))) > 0;)
		write_all(to, block, (size_t)bytes);
	close(from);
	NEED_ON(path, close(to));
}

int program_main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--exit-with"))
		return atoi(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "--exit-ids")) /* one bit each */
		return (geteuid() == (uid_t)atoi(argv[2])) | (getegid() == (gid_t)atoi(argv[2])) << 1;
	if (argc == 3 && !strcmp(argv[1], "--wait-for")) { /* a byte on that descriptor */
		char byte;
		return read(atoi(argv[2]), &byte, 1) == 1 ? 0 : 1;
	}
	return -1;
}

int run_program(const char *path, const char *option, const char *value)
{
	pid_t pid = (pid_t)NEED(fork());
	if (pid == 0) {
		execl(path, path, option, value, (char *)NULL);
		_exit(256 - errno);
	}
	int status = join(pid);
	return status > 100 ? status - 256 : status;
}
