/* fs_load FOLDER ROUNDS MIB FILES [TREE]: what a file system takes, each round: a line `NAME MICROSECONDS` for each
 * kind of work, per MiB or per operation.  Before each the kernel drops what it has cached, so every round asks anew.
 * As a guest's init it mounts the virtio-fs device with the tag `fs', takes its words from the kernel's command line
 * (fs_load=ROUNDS,MIB,FILES,TREE), and ends the machine. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (128 << 10)
#define PAGE  4096

static unsigned mib, files;
static const char *tree;
static uint8_t block[CHUNK];

static _Noreturn void die(const char *what)
{
	printf("fs_load: %s: %s\n", what, strerror(errno));
	fflush(stdout);
	if (getpid() == 1)
		reboot(RB_AUTOBOOT);
	exit(1);
}

#define MUST(expression) \
	({ \
		intmax_t result_ = (intmax_t)(expression); \
		if (result_ < 0) \
			die(#expression); \
		result_; \
	})

static double now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void drop(void)
{
	sync();
	int fd = (int)MUST(open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC));
	MUST(write(fd, "3", 1));
	close(fd);
}

static unsigned any(unsigned below)
{
	static uint64_t seed = 1;
	seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (unsigned)(seed >> 33) % below;
}

/* Each returns how many units it did. */
static unsigned write_seq(void)
{
	int fd = (int)MUST(open("large", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
	for (unsigned i = 0; i < mib * (1 << 20) / CHUNK; i++) {
		memset(block, (int)i, sizeof block);
		if (MUST(write(fd, block, sizeof block)) != CHUNK)
			die("a short write");
	}
	MUST(close(fd));
	return mib;
}

static unsigned read_seq(void)
{
	int fd = (int)MUST(open("large", O_RDONLY | O_CLOEXEC));
	for (unsigned i = 0; i < mib * (1 << 20) / CHUNK; i++)
		if (MUST(read(fd, block, sizeof block)) != CHUNK || block[77] != (uint8_t)i)
			die("not what was written");
	MUST(close(fd));
	return mib;
}

static unsigned read_random(void)
{
	unsigned count = mib * 16;
	int fd = (int)MUST(open("large", O_RDONLY | O_CLOEXEC));
	for (unsigned i = 0; i < count; i++)
		if (MUST(pread(fd, block, PAGE, (off_t)any(mib * 256) * PAGE)) != PAGE)
			die("a short read");
	MUST(close(fd));
	return count;
}

static unsigned write_random(void)
{
	unsigned count = mib * 16;
	int fd = (int)MUST(open("large", O_WRONLY | O_CLOEXEC));
	for (unsigned i = 0; i < count; i++)
		if (MUST(pwrite(fd, block, PAGE, (off_t)any(mib * 256) * PAGE)) != PAGE)
			die("a short write");
	MUST(close(fd));
	return count;
}

static const char *name_of(unsigned i)
{
	static char name[32];
	snprintf(name, sizeof name, "small/%u", i);
	return name;
}

static unsigned create(void)
{
	if (mkdir("small", 0755) < 0 && errno != EEXIST)
		die("mkdir");
	for (unsigned i = 0; i < files; i++) {
		int fd = (int)MUST(open(name_of(i), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
		MUST(close(fd));
	}
	return files;
}

static unsigned stat_all(void)
{
	struct stat status;
	for (unsigned i = 0; i < files; i++)
		MUST(lstat(name_of(i), &status));
	return files;
}

static unsigned list(void)
{
	unsigned count = 0;
	DIR *folder = opendir("small");
	if (!folder)
		die("opendir");
	while (readdir(folder))
		count++;
	closedir(folder);
	if (count != files + 2)
		die("names are missing");
	return count;
}

static unsigned unlink_all(void)
{
	for (unsigned i = 0; i < files; i++)
		MUST(unlink(name_of(i)));
	return files;
}

static unsigned walk_below(int folder)
{
	unsigned count = 0;
	struct stat status;
	DIR *entries = fdopendir(folder);
	if (!entries)
		die("fdopendir");
	for (struct dirent *entry; (entry = readdir(entries));) {
		if (entry->d_name[0] == '.')
			continue;
		MUST(fstatat(folder, entry->d_name, &status, AT_SYMLINK_NOFOLLOW));
		if (S_ISDIR(status.st_mode))
			count +=
			    walk_below((int)MUST(openat(folder, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
		else
			count++;
	}
	closedir(entries);
	return count;
}

static unsigned walk(void)
{
	return walk_below((int)MUST(open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
}

static const struct {
	const char *name;
	unsigned (*run)(void);
} rows[] = {
	{ "write.seq", write_seq },
	{ "read.seq", read_seq },
	{ "read.random", read_random },
	{ "write.random", write_random },
	{ "create", create },
	{ "stat", stat_all },
	{ "readdir", list },
	{ "unlink", unlink_all },
	{ "walk", walk },
};

static void run(const char *folder, unsigned rounds)
{
	MUST(chdir(folder));
	for (unsigned round = 0; round < rounds; round++)
		for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
			if (rows[i].run == walk && !tree)
				continue;
			drop();
			double begin = now_us();
			unsigned units = rows[i].run();
			printf("%s %.3f %u\n", rows[i].name, (now_us() - begin) / units, units);
			fflush(stdout);
		}
	MUST(unlink("large"));
	MUST(rmdir("small"));
}

static void be_init(void)
{
	static char line[4096], folder[64];
	unsigned rounds;
	mkdir("/proc", 0755);
	mkdir("/fs", 0755);
	MUST(mount("proc", "/proc", "proc", 0, NULL));
	MUST(mount("fs", "/fs", "virtiofs", 0, NULL));
	FILE *file = fopen("/proc/cmdline", "r");
	const char *words = file && fgets(line, sizeof line, file) ? strstr(line, "fs_load=") : NULL;
	errno = EINVAL;
	if (!words || sscanf(words, "fs_load=%u,%u,%u,%63[^ \n]", &rounds, &mib, &files, folder) != 4)
		die("the command line");
	tree = folder;
	run("/fs", rounds);
	printf("end\n");
	fflush(stdout);
	reboot(RB_AUTOBOOT);
}

int main(int argc, char **argv)
{
	if (getpid() == 1) {
		be_init();
		return 1;
	}
	if (argc < 5) {
		fprintf(stderr, "usage: fs_load FOLDER ROUNDS MIB FILES [TREE]\n");
		return 2;
	}
	mib = (unsigned)atoi(argv[3]);
	files = (unsigned)atoi(argv[4]);
	tree = argv[5];
	run(argv[1], (unsigned)atoi(argv[2]));
	return 0;
}
