/* What has no name any more and is still open. */
#include "posix.h"

#include <dirent.h>

static void content(void)
{
	make_bytes("file", 100000);
	int fd = (int)NEED(open("file", O_RDWR)), second = (int)NEED(open("file", O_RDONLY));
	NEED(unlink("file"));
	IS(exists("file"), false);
	IS(count_entries("."), 0);
	PATTERN(fd, 0, 100000);
	struct stat status;
	NEED(fstat(fd, &status));
	IS(status.st_nlink, 0);
	IS(status.st_size, 100000);
	IS(pwrite(fd, "x", 1, 100000), 1);
	char byte = 0;
	IS(pread(second, &byte, 1, 100000), 1);
	IS(byte, 'x');
	NEED(close(fd));
	PATTERN(second, 0, 100000);
}

static void status(void)
{
	make_file("file", "0123456789");
	int fd = (int)NEED(open("file", O_RDWR));
	NEED(unlink("file"));
	NEED(fchmod(fd, 0600));
	NEED(fchown(fd, 5, 6));
	NEED(ftruncate(fd, 4));
	struct timespec times[2] = { { .tv_sec = 1, .tv_nsec = 2 }, { .tv_sec = 3, .tv_nsec = 4 } };
	NEED(futimens(fd, times));
	struct stat got;
	NEED(fstat(fd, &got));
	IS(got.st_mode & 07777, 0600);
	IS(got.st_uid, 5);
	IS(got.st_size, 4);
	IS(got.st_mtim.tv_sec, 3);
	IS(got.st_mtim.tv_nsec, 4);
	IS(fsync(fd), 0);
}

/* The name is free for another, and the two do not meet. */
static void name_again(void)
{
	for (unsigned i = 0; i < options.rounds; i++) {
		make_file("file", "old");
		int fd = (int)NEED(open("file", O_RDWR));
		NEED(unlink("file"));
		make_file("file", "new one");
		char text[16] = "";
		IS(pread(fd, text, sizeof text, 0), 3);
		IS(memcmp(text, "old", 3), 0);
		struct stat by_fd, by_path = status_of("file");
		NEED(fstat(fd, &by_fd));
		IS(by_fd.st_ino != by_path.st_ino, true);
		TEXT("file", "new one");
		NEED(close(fd));
		NEED(unlink("file"));
	}
}

static void reopened(void)
{
	make_file("file", "text");
	int fd = (int)NEED(open("file", O_RDONLY));
	NEED(unlink("file"));
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int again = (int)NEED(open(path, O_RDWR));
	char text[5] = "";
	IS(pread(again, text, 4, 0), 4);
	IS(memcmp(text, "text", 4), 0);
	IS(pwrite(again, "TEXT", 4, 0), 4);
	IS(pread(fd, text, 4, 0), 4);
	IS(memcmp(text, "TEXT", 4), 0);
	FAILS(open("file", O_RDONLY), ENOENT);
}

static int held_fd;

static int read_inherited(unsigned unused)
{
	(void)unused;
	char text[5] = "";
	IS(pread(held_fd, text, 4, 0), 4);
	IS(memcmp(text, "text", 4), 0);
	return 0;
}

static void inherited(void)
{
	make_file("file", "text");
	held_fd = (int)NEED(open("file", O_RDONLY));
	NEED(unlink("file"));
	IS(join(start(read_inherited, 0)), 0);
	IS(read_inherited(0), 0);
}

static void folder(void)
{
	NEED(mkdir("folder", 0755));
	int fd = (int)NEED(open("folder", O_RDONLY | O_DIRECTORY));
	NEED(chdir("folder"));
	NEED(rmdir("../folder"));
	FAILS(openat(fd, "new", O_WRONLY | O_CREAT, 0644), ENOENT);
	FAILS(mkdir("new", 0755), ENOENT);
	FAILS(openat(fd, "none", O_RDONLY), ENOENT);
	struct stat got;
	NEED(fstat(fd, &got));
	IS(S_ISDIR(got.st_mode), true);
	IS(got.st_nlink, 0);
	DIR *list = fdopendir(fd);
	unsigned names = 0;
	for (struct dirent *entry; list && (entry = readdir(list));)
		names += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
	IS(names, 0);
	char path[64];
	IS(getcwd(path, sizeof path) == NULL && errno == ENOENT, true);
	NEED(chdir(".."));
	NEED(mkdir("folder", 0755));
	make_file("folder/file", "another");
	FAILS(openat(fd, "file", O_RDONLY), ENOENT);
}

static const struct check checks[] = {
	{ "content", content },
	{ "status", status },
	{ "name-again", name_again },
	{ "reopened", reopened },
	{ "inherited", inherited },
	{ "folder", folder },
	{ 0 },
};
const struct check_group unlinked_group = { "unlinked", checks };
