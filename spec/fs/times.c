/* Times: set to the nanosecond, and moved by what must move them and by nothing else. */
#include "posix.h"

#include <sys/xattr.h>

static struct timespec at(int64_t seconds, long nanoseconds)
{
	return (struct timespec){ .tv_sec = seconds, .tv_nsec = nanoseconds };
}

static void set(const char *path, struct timespec access, struct timespec change, int flags)
{
	struct timespec times[2] = { access, change };
	NEED(utimensat(AT_FDCWD, path, times, flags));
}

static void has(const char *path, int64_t access, long access_ns, int64_t change, long change_ns)
{
	struct stat status = status_of(path);
	IS(status.st_atim.tv_sec, access);
	IS(status.st_atim.tv_nsec, access_ns);
	IS(status.st_mtim.tv_sec, change);
	IS(status.st_mtim.tv_nsec, change_ns);
}

static void nanoseconds(void)
{
	make_file("file", "x");
	NEED(mkdir("folder", 0755));
	NEED(mkfifo("fifo", 0644));
	static const char *const names[] = { "file", "folder", "fifo" };
	for (size_t i = 0; i < 3; i++) {
		set(names[i], at(1000000000, 123456789), at(1100000000, 999999999), 0);
		has(names[i], 1000000000, 123456789, 1100000000, 999999999);
	}
	int fd = (int)NEED(open("file", O_RDONLY));
	struct timespec times[2] = { at(5, 6), at(7, 8) };
	NEED(futimens(fd, times));
	has("file", 5, 6, 7, 8);
}

static void omit_and_now(void)
{
	make_file("file", "x");
	set("file", at(10, 1), at(20, 2), 0);
	set("file", at(0, UTIME_OMIT), at(30, 3), 0);
	has("file", 10, 1, 30, 3);
	set("file", at(40, 4), at(0, UTIME_OMIT), 0);
	has("file", 40, 4, 30, 3);
	struct stat before = status_of("file");
	tick(before.st_ctim);
	set("file", at(0, UTIME_OMIT), at(0, UTIME_OMIT), 0);
	IS(compare_times(status_of("file").st_ctim, before.st_ctim), 0);
	set("file", at(0, UTIME_OMIT), at(0, UTIME_NOW), 0);
	struct stat after = status_of("file");
	IS(after.st_atim.tv_sec, 40);
	IS(compare_times(after.st_mtim, before.st_ctim) > 0, true);
	IS(compare_times(after.st_ctim, before.st_ctim) > 0, true);
	NEED(utimensat(AT_FDCWD, "file", NULL, 0));
	IS(status_of("file").st_atim.tv_sec > 1000000000, true);
	struct timespec bad[2] = { at(0, 0), at(0, 1000000000) };
	FAILS(utimensat(AT_FDCWD, "file", bad, 0), EINVAL);
	FAILS(utimensat(AT_FDCWD, "none", NULL, 0), ENOENT);
}

static void far(void)
{
	static const int64_t seconds[] = { -1, -2, -2147483647, 2147483646, 2147483648, 4294967296, 7258118400 };
	make_file("file", "x");
	for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) {
		set("file", at(seconds[i], 500000000), at(seconds[i], 1), 0);
		has("file", seconds[i], 500000000, seconds[i], 1);
	}
}

static void of_links(void)
{
	make_file("file", "x");
	NEED(symlink("file", "link"));
	set("file", at(1, 1), at(1, 1), 0);
	set("link", at(2, 2), at(3, 3), AT_SYMLINK_NOFOLLOW);
	IS(status_of("link").st_mtim.tv_sec, 3);
	IS(status_of("file").st_mtim.tv_sec, 1);
	set("link", at(4, 4), at(5, 5), 0);
	IS(status_of("file").st_mtim.tv_sec, 5);
	IS(status_of("link").st_mtim.tv_sec, 3);
}

static void who_may(void)
{
	make_file("file", "x");
	NEED(chown("file", 1000, 1000));
	NEED(chmod("file", 0644));
	struct timespec fixed[2] = { at(1, 1), at(2, 2) };
	AS(1001, 1001)
	{
		FAILS(utimensat(AT_FDCWD, "file", fixed, 0), EPERM);
		FAILS(utimensat(AT_FDCWD, "file", NULL, 0), EACCES);
	}
	NEED(chmod("file", 0666));
	AS(1001, 1001)
	{
		FAILS(utimensat(AT_FDCWD, "file", fixed, 0), EPERM);
		IS(utimensat(AT_FDCWD, "file", NULL, 0), 0);
	}
	AS(1000, 1000)
	IS(utimensat(AT_FDCWD, "file", fixed, 0), 0);
	has("file", 1, 1, 2, 2);
}

/* Which of the times an operation moves: m of content, c of status; 0 neither. */
enum { M = 1, C = 2 };

static int fd;

static int op_write(void)
{
	return write(fd, "y", 1) == 1 ? 0 : -1;
}
static int op_write_nothing(void)
{
	return write(fd, "y", 0) == 0 ? 0 : -1;
}
static int op_read(void)
{
	char byte;
	return pread(fd, &byte, 1, 0) == 1 ? 0 : -1;
}
static int op_truncate(void)
{
	return truncate("file", 100);
}
static int op_ftruncate(void)
{
	return ftruncate(fd, 50);
}
static int op_open_trunc(void)
{
	return close(open("file", O_WRONLY | O_TRUNC));
}
static int op_open(void)
{
	return close(open("file", O_RDWR));
}
static int op_chmod(void)
{
	return chmod("file", 0600);
}
static int op_chown(void)
{
	return chown("file", 3, 3);
}
static int op_link(void)
{
	return link("file", "link");
}
static int op_unlink(void)
{
	return unlink("link");
}
static int op_rename(void)
{
	return rename("file", "name") < 0 ? -1 : rename("name", "file");
}
static int op_stat(void)
{
	return access("file", R_OK);
}

static const struct {
	const char *name;
	int (*run)(void);
	int moved;
} file_rows[] = {
	{ "write", op_write, M | C },
	{ "write of nothing", op_write_nothing, 0 },
	{ "read", op_read, 0 },
	{ "truncate", op_truncate, M | C },
	{ "ftruncate", op_ftruncate, M | C },
	{ "O_TRUNC", op_open_trunc, M | C },
	{ "open", op_open, 0 },
	{ "chmod", op_chmod, C },
	{ "chown", op_chown, C },
	{ "link", op_link, C },
	{ "unlink of a link", op_unlink, C },
	{ "access", op_stat, 0 },
};

static void compare(const char *path, const char *operation, const struct stat *before, int moved, int mind)
{
	struct stat after = status_of(path);
	int m = compare_times(after.st_mtim, before->st_mtim), c = compare_times(after.st_ctim, before->st_ctim);
	int got = (m > 0 ? M : 0) | (c > 0 ? C : 0);
	if (m < 0 || c < 0)
		STOP("%s: expected no time of %s to go back, got one that did", operation, path);
	if ((got & mind) != (moved & mind))
		STOP("%s: expected %s%s to move at %s, got %s%s", operation, moved & M ? "mtime " : "",
		     moved & C ? "ctime" : "", path, got & M ? "mtime " : "", got & C ? "ctime" : "");
}

static void moved_by_operations(void)
{
	make_file("file", "0123456789");
	fd = (int)NEED(open("file", O_RDWR));
	for (size_t i = 0; i < sizeof file_rows / sizeof *file_rows; i++) {
		struct stat before = status_of("file");
		tick(before.st_ctim);
		if (file_rows[i].run() < 0)
			STOP("%s: %s", file_rows[i].name, strerror(errno));
		compare("file", file_rows[i].name, &before, file_rows[i].moved, M | C);
		struct stat by_fd, by_path = status_of("file");
		NEED(fstat(fd, &by_fd));
		IS(compare_times(by_fd.st_mtim, by_path.st_mtim), 0);
		IS(by_fd.st_size, by_path.st_size);
	}
	/* Whether a rename moves the file's own ctime is left to the file system, its mtime stays. */
	struct stat before = status_of("file");
	tick(before.st_ctim);
	NEED(op_rename());
	compare("file", "rename", &before, 0, M);
}

static int in_create(void)
{
	return close(open("folder/new", O_WRONLY | O_CREAT, 0644));
}
static int in_create_again(void)
{
	return close(open("folder/new", O_WRONLY | O_CREAT, 0644));
}
static int in_write(void)
{
	make_file("folder/new", "more");
	return 0;
}
static int in_rename(void)
{
	return rename("folder/new", "folder/newer");
}
static int in_link(void)
{
	return link("folder/newer", "folder/link");
}
static int in_unlink(void)
{
	return unlink("folder/link");
}
static int in_mkdir(void)
{
	return mkdir("folder/inside", 0755);
}
static int in_rmdir(void)
{
	return rmdir("folder/inside");
}
static int in_symlink(void)
{
	return symlink("x", "folder/symlink");
}
static int in_rename_out(void)
{
	return rename("folder/newer", "out");
}
static int in_rename_in(void)
{
	return rename("out", "folder/back");
}
static int in_list(void)
{
	return count_entries("folder") ? 0 : -1;
}
static int in_chmod(void)
{
	return chmod("folder", 0700);
}

static const struct {
	const char *name;
	int (*run)(void);
	int moved;
} folder_rows[] = {
	{ "create", in_create, M | C },
	{ "open of what is there", in_create_again, 0 },
	{ "write to a file in it", in_write, 0 },
	{ "rename in it", in_rename, M | C },
	{ "link", in_link, M | C },
	{ "unlink", in_unlink, M | C },
	{ "mkdir", in_mkdir, M | C },
	{ "rmdir", in_rmdir, M | C },
	{ "symlink", in_symlink, M | C },
	{ "rename out of it", in_rename_out, M | C },
	{ "rename into it", in_rename_in, M | C },
	{ "list", in_list, 0 },
	{ "chmod", in_chmod, C },
};

static void moved_in_folders(void)
{
	NEED(mkdir("folder", 0755));
	for (size_t i = 0; i < sizeof folder_rows / sizeof *folder_rows; i++) {
		struct stat before = status_of("folder");
		tick(before.st_ctim);
		if (folder_rows[i].run() < 0)
			STOP("%s: %s", folder_rows[i].name, strerror(errno));
		compare("folder", folder_rows[i].name, &before, folder_rows[i].moved, M | C);
	}
}

/* A set time stays: no write that came before it moves it afterwards, when the file is closed or flushed. */
static void set_after_write(void)
{
	int file = (int)NEED(open("file", O_RDWR | O_CREAT, 0644));
	write_all(file, "text", 4);
	set("file", at(1, 1), at(1000, 5), 0);
	has("file", 1, 1, 1000, 5);
	NEED(fsync(file));
	NEED(close(file));
	has("file", 1, 1, 1000, 5);
	tick(status_of("file").st_ctim);
	has("file", 1, 1, 1000, 5);
}

static const struct check checks[] = {
	{ "nanoseconds", nanoseconds },
	{ "omit-and-now", omit_and_now },
	{ "far", far },
	{ "of-links", of_links },
	{ "who-may", who_may },
	{ "moved-by-operations", moved_by_operations },
	{ "moved-in-folders", moved_in_folders },
	{ "set-after-write", set_after_write },
	{ 0 },
};
const struct check_group times_group = { "times", checks };
