/* Hard and symbolic links, link counts, loops, and what unlink and rmdir refuse. */
#include "posix.h"

#include <limits.h>

static void hard(void)
{
	make_file("a", "text");
	struct stat before = status_of("a");
	IS(before.st_nlink, 1);
	NEED(mkdir("folder", 0755));
	NEED(link("a", "b"));
	NEED(link("b", "folder/c"));
	static const char *const names[] = { "a", "b", "folder/c" };
	for (size_t i = 0; i < 3; i++) {
		IS(status_of(names[i]).st_ino, before.st_ino);
		IS(status_of(names[i]).st_nlink, 3);
	}
	int fd = (int)NEED(open("b", O_WRONLY | O_APPEND));
	write_all(fd, " and more", 9);
	TEXT("folder/c", "text and more");
	NEED(chmod("a", 0600));
	IS(mode_of("folder/c"), 0600);
	NEED(unlink("a"));
	IS(status_of("b").st_nlink, 2);
	NEED(rename("b", "folder/d"));
	IS(status_of("folder/c").st_nlink, 2);
	NEED(unlink("folder/c"));
	TEXT("folder/d", "text and more");
	IS(status_of("folder/d").st_nlink, 1);
	NEED(unlink("folder/d"));
	struct stat status;
	NEED(fstat(fd, &status));
	IS(status.st_nlink, 0);
}

static void hard_refused(void)
{
	make_file("a", "a");
	make_file("b", "b");
	NEED(mkdir("folder", 0755));
	FAILS(link("a", "b"), EEXIST);
	FAILS(link("a", "a"), EEXIST);
	FAILS(link("a", "folder"), EEXIST);
	FAILS(link("none", "c"), ENOENT);
	FAILS(link("a", "none/c"), ENOENT);
	FAILS(link("a/x", "c"), ENOTDIR);
	FAILS(link("folder", "c"), EPERM);
	IS(status_of("a").st_nlink, 1);
	TEXT("b", "b");
}

static void hard_to_others(void)
{
	make_file("file", "text");
	NEED(symlink("file", "link"));
	NEED(link("link", "link2"));
	IS(S_ISLNK(status_of("link2").st_mode), true);
	IS(status_of("link2").st_ino, status_of("link").st_ino);
	NEED(linkat(AT_FDCWD, "link", AT_FDCWD, "file2", AT_SYMLINK_FOLLOW));
	IS(status_of("file2").st_ino, status_of("file").st_ino);
	NEED(mkfifo("fifo", 0644));
	NEED(link("fifo", "fifo2"));
	IS(S_ISFIFO(status_of("fifo2").st_mode), true);
	IS(status_of("fifo").st_nlink, 2);
}

static void hard_many(void)
{
	make_file("file", "text");
	char name[32];
	unsigned count = options.entries < 500 ? options.entries : 500;
	for (unsigned i = 1; i < count; i++) {
		snprintf(name, sizeof name, "link-%u", i);
		NEED(link("file", name));
	}
	IS(status_of("file").st_nlink, count);
	IS(count_entries("."), count);
	NEED(unlink("file"));
	IS(status_of(name).st_nlink, count - 1);
}

static void target_of(const char *target)
{
	char got[PATH_MAX + 1];
	NEED(symlink(target, "link"));
	size_t length = strlen(target);
	IS(status_of("link").st_size, length);
	IS(readlink("link", got, sizeof got), length);
	IS(memcmp(got, target, length), 0);
	/* Cut off, and not ended. */
	memset(got, '#', sizeof got);
	IS(readlink("link", got, 1), 1);
	IS(got[1], '#');
	NEED(unlink("link"));
}

static void targets(void)
{
	char target[PATH_MAX + 1];
	static const unsigned lengths[] = { 1, 59, 60, 61, 255, 1023, 1024, 4000, PATH_MAX - 1 };
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		memset(target, 'a' + (int)i, lengths[i]);
		target[lengths[i]] = '\0';
		int result = symlink(target, "link");
		if (result < 0 && errno == ENAMETOOLONG && lengths[i] == PATH_MAX - 1)
			continue; /* ext4 needs its last byte */
		NEED(result);
		NEED(unlink("link"));
		target_of(target);
	}
	target_of("\x01\xff\n a//b/../ \xc3\x28");
	memset(target, 'a', PATH_MAX);
	target[PATH_MAX] = '\0';
	FAILS(symlink(target, "link"), ENAMETOOLONG);
	FAILS(symlink("", "link"), ENOENT);
	make_file("file", "");
	FAILS(symlink("x", "file"), EEXIST);
	FAILS(readlink("file", target, 10), EINVAL);
	FAILS(readlink("none", target, 10), ENOENT);
}

static void followed(void)
{
	NEED(mkdir("a", 0755));
	NEED(mkdir("a/b", 0755));
	make_file("a/b/file", "deep");
	make_file("file", "top");
	NEED(symlink("a/b", "in"));
	NEED(symlink("../../file", "a/b/up"));
	NEED(symlink("../b/file", "a/b/over"));
	NEED(symlink("../../in/../b/over", "a/b/winding"));
	TEXT("in/file", "deep");
	TEXT("in/up", "top");
	TEXT("a/b/over", "deep");
	TEXT("a/b/winding", "deep");
	char path[PATH_MAX];
	if (!getcwd(path, sizeof path - 8))
		STOP("getcwd: %s", strerror(errno));
	strcat(path, "/file");
	NEED(symlink(path, "absolute"));
	TEXT("absolute", "top");
	make_file("in/new", "made through a link");
	TEXT("a/b/new", "made through a link");
	FAILS(unlink("in/"), ENOTDIR);
	NEED(unlink("in"));
	IS(exists("a/b/file"), true);
}

static void loops(void)
{
	NEED(symlink("self", "self"));
	NEED(symlink("b", "a"));
	NEED(symlink("a", "b"));
	struct stat status;
	FAILS(open("self", O_RDONLY), ELOOP);
	FAILS(stat("a", &status), ELOOP);
	FAILS(open("b/below", O_RDONLY), ELOOP);
	FAILS(open("a", O_WRONLY | O_CREAT, 0644), ELOOP);
	/* Forty are fine, one more is not. */
	make_file("file", "text");
	NEED(symlink("file", "chain-1"));
	for (unsigned i = 2; i <= 41; i++) {
		char name[32], target[32];
		snprintf(target, sizeof target, "chain-%u", i - 1);
		snprintf(name, sizeof name, "chain-%u", i);
		NEED(symlink(target, name));
	}
	TEXT("chain-40", "text");
	FAILS(open("chain-41", O_RDONLY), ELOOP);
	IS(unlink("self"), 0);
}

static void dangling(void)
{
	NEED(symlink("target", "link"));
	struct stat status;
	FAILS(open("link", O_RDONLY), ENOENT);
	FAILS(stat("link", &status), ENOENT);
	FAILS(open("link", O_WRONLY | O_CREAT | O_EXCL, 0644), EEXIST);
	FAILS(mkdir("link", 0755), EEXIST);
	IS(exists("target"), false);
	make_file("link", "through");
	TEXT("target", "through");
	IS(S_ISLNK(status_of("link").st_mode), true);
	NEED(unlink("target"));
	FAILS(open("link", O_RDONLY), ENOENT);
}

static void removal_refused(void)
{
	make_file("file", "");
	NEED(mkdir("folder", 0755));
	NEED(mkdir("folder/inside", 0755));
	FAILS(unlink("folder"), EISDIR);
	FAILS(rmdir("file"), ENOTDIR);
	FAILS(rmdir("folder"), ENOTEMPTY);
	FAILS(rmdir("folder/."), EINVAL);
	FAILS(rmdir("folder/inside/.."), ENOTEMPTY);
	FAILS(unlink("none"), ENOENT);
	FAILS(rmdir("none"), ENOENT);
	FAILS(unlink("file/"), ENOTDIR);
	FAILS(mkdir("file", 0755), EEXIST);
	FAILS(mkdir("none/folder", 0755), ENOENT);
	FAILS(mkdir("file/folder", 0755), ENOTDIR);
	NEED(symlink("folder", "link"));
	FAILS(rmdir("link"), ENOTDIR);
	IS(rmdir("folder/inside/"), 0);
	IS(rmdir("folder"), 0);
	IS(exists("folder"), false);
}

static const struct check checks[] = {
	{ "hard", hard },
	{ "hard-refused", hard_refused },
	{ "hard-to-links-and-fifos", hard_to_others },
	{ "hard-many", hard_many },
	{ "targets", targets },
	{ "followed", followed },
	{ "loops", loops },
	{ "dangling", dangling },
	{ "removal-refused", removal_refused },
	{ 0 },
};
const struct check_group links_group = { "links", checks };
