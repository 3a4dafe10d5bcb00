/* open(2): what each flag asks for, and what it refuses. */
#include "posix.h"

#include <signal.h>
#include <sys/resource.h>

static void exclusive(void)
{
	int fd = (int)NEED(open("file", O_RDWR | O_CREAT | O_EXCL, 0644));
	NEED(close(fd));
	FAILS(open("file", O_RDWR | O_CREAT | O_EXCL, 0644), EEXIST);
	NEED(mkdir("folder", 0755));
	FAILS(open("folder", O_RDWR | O_CREAT | O_EXCL, 0644), EEXIST);
	NEED(symlink("file", "link"));
	FAILS(open("link", O_RDWR | O_CREAT | O_EXCL, 0644), EEXIST);
	NEED(unlink("file"));
	NEED(open("file", O_RDWR | O_CREAT | O_EXCL, 0644));
}

static void folders(void)
{
	make_file("file", "x");
	NEED(mkdir("folder", 0755));
	FAILS(open("file", O_RDONLY | O_DIRECTORY), ENOTDIR);
	FAILS(open("folder", O_WRONLY), EISDIR);
	FAILS(open("folder", O_RDWR), EISDIR);
	FAILS(open("folder", O_RDONLY | O_CREAT, 0644), EISDIR);
	FAILS(open("folder", O_RDONLY | O_TRUNC), EISDIR);
	FAILS(open("file/", O_RDONLY), ENOTDIR);
	FAILS(open("file/x", O_RDONLY | O_CREAT, 0644), ENOTDIR);
	FAILS(open("new/", O_RDONLY | O_CREAT, 0644), EISDIR);
	int fd = (int)NEED(open("folder", O_RDONLY | O_DIRECTORY));
	char byte;
	FAILS(read(fd, &byte, 1), EISDIR);
	FAILS(write(fd, "x", 1), EBADF);
	IS(fsync(fd), 0);
	int inside = (int)NEED(openat(fd, "inside", O_RDWR | O_CREAT, 0644));
	IS(write(inside, "x", 1), 1);
	TEXT("folder/inside", "x");
}

static void no_follow(void)
{
	make_file("file", "text");
	NEED(symlink("file", "link"));
	NEED(mkdir("folder", 0755));
	make_file("folder/file", "deep");
	NEED(symlink("folder", "link2"));
	FAILS(open("link", O_RDONLY | O_NOFOLLOW), ELOOP);
	FAILS(open("link", O_WRONLY | O_CREAT | O_NOFOLLOW, 0644), ELOOP);
	FAILS(open("link2", O_RDONLY | O_DIRECTORY | O_NOFOLLOW), ENOTDIR);
	/* In the middle it is followed all the same. */
	IS(open("link2/file", O_RDONLY | O_NOFOLLOW) >= 0, true);
	int fd = (int)NEED(open("link", O_PATH | O_NOFOLLOW));
	struct stat status;
	NEED(fstat(fd, &status));
	IS(S_ISLNK(status.st_mode), true);
	char target[8] = "";
	IS(readlinkat(fd, "", target, sizeof target), 4);
	IS(memcmp(target, "file", 4), 0);
}

static void truncating(void)
{
	make_file("file", "0123456789");
	int reader = (int)NEED(open("file", O_RDONLY));
	int fd = (int)NEED(open("file", O_WRONLY | O_TRUNC));
	IS(status_of("file").st_size, 0);
	char byte;
	IS(read(reader, &byte, 1), 0);
	IS(write(fd, "new", 3), 3);
	IS(pread(reader, &byte, 1, 2), 1);
	IS(byte, 'w');
	FAILS(read(fd, &byte, 1), EBADF);
	FAILS(write(reader, "x", 1), EBADF);
	FAILS(open("none", O_WRONLY | O_TRUNC), ENOENT);
}

static void appending(void)
{
	make_file("file", "start ");
	int first = (int)NEED(open("file", O_RDWR | O_APPEND)), second = (int)NEED(open("file", O_WRONLY | O_APPEND));
	IS(write(first, "one ", 4), 4);
	IS(write(second, "two ", 4), 4);
	NEED(lseek(first, 0, SEEK_SET));
	IS(write(first, "three ", 6), 6);
	IS(lseek(first, 0, SEEK_CUR), 20);
	/* Linux appends here too, whatever the place. */
	IS(pwrite(second, "four", 4, 0), 4);
	TEXT("file", "start one two three four");
	NEED(lseek(first, 0, SEEK_SET));
	char text[6] = "";
	IS(read(first, text, 5), 5);
	IS(memcmp(text, "start", 5), 0);
	/* Switched on and off afterwards. */
	int plain = (int)NEED(open("file", O_WRONLY));
	NEED(fcntl(plain, F_SETFL, O_APPEND));
	IS(write(plain, "!", 1), 1);
	NEED(fcntl(plain, F_SETFL, 0));
	IS(pwrite(plain, "START", 5, 0), 5);
	TEXT("file", "START one two three four!");
}

static void appending_after_truncate(void)
{
	make_file("file", "0123456789");
	int fd = (int)NEED(open("file", O_WRONLY | O_APPEND));
	IS(write(fd, "a", 1), 1);
	NEED(truncate("file", 3));
	IS(write(fd, "b", 1), 1);
	TEXT("file", "012b");
	int other = (int)NEED(open("file", O_WRONLY));
	IS(pwrite(other, "far", 3, 10), 3);
	IS(write(fd, "c", 1), 1);
	IS(status_of("file").st_size, 14);
}

static int open_temporary(int flags)
{
	int fd = open(".", O_TMPFILE | O_RDWR | flags, 0640);
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
		CANNOT("no O_TMPFILE on this file system");
	return (int)NEED(fd);
}

static void temporary(void)
{
	int fd = open_temporary(0);
	struct stat status;
	NEED(fstat(fd, &status));
	IS(status.st_nlink, 0);
	IS(status.st_mode & 07777, 0640);
	IS(count_entries("."), 0);
	write_all(fd, "text", 4);
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	NEED(linkat(AT_FDCWD, path, AT_FDCWD, "name", AT_SYMLINK_FOLLOW));
	TEXT("name", "text");
	IS(status_of("name").st_nlink, 1);
	IS(status_of("name").st_ino, status.st_ino);
	write_all(fd, " more", 5);
	TEXT("name", "text more");
	NEED(linkat(fd, "", AT_FDCWD, "second", AT_EMPTY_PATH));
	IS(status_of("name").st_nlink, 2);
	FAILS(linkat(fd, "", AT_FDCWD, "second", AT_EMPTY_PATH), EEXIST);
}

static void temporary_exclusive(void)
{
	int fd = open_temporary(O_EXCL);
	write_all(fd, "text", 4);
	FAILS(linkat(fd, "", AT_FDCWD, "name", AT_EMPTY_PATH), ENOENT);
	NEED(close(fd));
	IS(count_entries("."), 0);
	FAILS(open(".", O_TMPFILE | O_RDONLY, 0644), EINVAL);
	make_file("file", "");
	FAILS(open("file", O_TMPFILE | O_RDWR, 0644), ENOTDIR);
}

static void many(void)
{
	int count = options.entries < 500 ? (int)options.entries : 500;
	struct rlimit limit = { 4096, 4096 };
	NEED(setrlimit(RLIMIT_NOFILE, &limit));
	int *fds = calloc((size_t)count, sizeof *fds);
	char name[32];
	for (int i = 0; i < count; i++) {
		snprintf(name, sizeof name, "%d", i);
		fds[i] = (int)NEED(open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
		IS(pwrite(fds[i], name, strlen(name), 0), strlen(name));
	}
	for (int i = count - 1; i >= 0; i--) {
		char got[32] = "";
		snprintf(name, sizeof name, "%d", i);
		NEED(unlink(name));
		IS(pread(fds[i], got, sizeof got - 1, 0), strlen(name));
		IS(strcmp(got, name), 0);
		NEED(close(fds[i]));
	}
	IS(count_entries("."), 0);
}

static void positions(void)
{
	int fd = (int)NEED(open("file", O_RDWR | O_CREAT, 0644)), copy = (int)NEED(dup(fd));
	int other = (int)NEED(open("file", O_RDWR));
	IS(write(fd, "0123456789", 10), 10);
	IS(lseek(copy, 0, SEEK_CUR), 10);
	IS(lseek(other, 0, SEEK_CUR), 0);
	IS(lseek(copy, -3, SEEK_END), 7);
	char text[4] = "";
	IS(read(fd, text, 3), 3);
	IS(memcmp(text, "789", 3), 0);
	IS(read(fd, text, 3), 0);
	IS(read(other, text, 3), 3);
	IS(memcmp(text, "012", 3), 0);
	FAILS(lseek(fd, -11, SEEK_END), EINVAL);
	IS(pwrite(fd, "x", 1, 5), 1);
	IS(lseek(fd, 0, SEEK_CUR), 10);
}

/* RLIMIT_FSIZE and a file's largest size. */
static void too_large(void)
{
	int fd = (int)NEED(open("file", O_RDWR | O_CREAT, 0644));
	sighandler_t before = signal(SIGXFSZ, SIG_IGN);
	struct rlimit limit = { 1000, 1000 };
	NEED(setrlimit(RLIMIT_FSIZE, &limit));
	FAILS(ftruncate(fd, 1001), EFBIG);
	IS(ftruncate(fd, 1000), 0);
	IS(pwrite(fd, "0123456789", 10, 995), 5);
	FAILS(pwrite(fd, "x", 1, 1000), EFBIG);
	IS(status_of("file").st_size, 1000);
	signal(SIGXFSZ, before);
}

static const struct check checks[] = {
	{ "exclusive", exclusive }, { "folders", folders },
	{ "no-follow", no_follow }, { "truncating", truncating },
	{ "appending", appending }, { "appending-after-truncate", appending_after_truncate },
	{ "temporary", temporary }, { "temporary-exclusive", temporary_exclusive },
	{ "many-files", many },     { "positions", positions },
	{ "too-large", too_large }, { 0 },
};
const struct check_group opening_group = { "open", checks };
