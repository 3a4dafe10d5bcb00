/* renameat2(2): RENAME_NOREPLACE and RENAME_EXCHANGE. */
#include "posix.h"

static int rename2(const char *from, const char *to, unsigned flags)
{
	return call_renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
}

/* Not every file system has them; then it must say EINVAL and change nothing. */
static void need_flag(unsigned flag)
{
	make_file("probe", "");
	make_file("probe2", "");
	int result = rename2("probe", flag == RENAME_EXCHANGE ? "probe2" : "probe3", flag);
	if (result < 0 && errno == EINVAL)
		CANNOT("renameat2: no flag %u on this file system", flag);
	NEED(result);
}

static void noreplace(void)
{
	need_flag(RENAME_NOREPLACE);
	make_file("a", "a");
	make_file("b", "b");
	NEED(mkdir("folder", 0755));
	NEED(mkdir("other", 0755));
	NEED(symlink("nowhere", "link"));
	FAILS(rename2("a", "b", RENAME_NOREPLACE), EEXIST);
	FAILS(rename2("a", "folder", RENAME_NOREPLACE), EEXIST);
	FAILS(rename2("folder", "other", RENAME_NOREPLACE), EEXIST);
	FAILS(rename2("a", "link", RENAME_NOREPLACE), EEXIST);
	FAILS(rename2("a", "a", RENAME_NOREPLACE), EEXIST);
	FAILS(rename2("none", "new", RENAME_NOREPLACE), ENOENT);
	TEXT("a", "a");
	TEXT("b", "b");
	IS(rename2("a", "new", RENAME_NOREPLACE), 0);
	IS(rename2("folder", "other/inside", RENAME_NOREPLACE), 0);
	TEXT("new", "a");
	IS(exists("a"), false);
	IS(exists("other/inside"), true);
}

static void exchange(void)
{
	need_flag(RENAME_EXCHANGE);
	NEED(mkdir("folder", 0755));
	make_file("folder/inside", "inside");
	NEED(mkdir("place", 0755));
	make_file("place/file", "file");
	make_file("a", "a");
	make_file("b", "b");
	ino_t a = status_of("a").st_ino, b = status_of("b").st_ino;
	IS(rename2("a", "b", RENAME_EXCHANGE), 0);
	TEXT("a", "b");
	TEXT("b", "a");
	IS(status_of("a").st_ino, b);
	IS(status_of("b").st_ino, a);
	/* A file and a folder, across folders. */
	IS(rename2("folder", "place/file", RENAME_EXCHANGE), 0);
	TEXT("folder", "file");
	TEXT("place/file/inside", "inside");
	NEED(symlink("b", "link"));
	IS(rename2("a", "link", RENAME_EXCHANGE), 0);
	TEXT("link", "b");
	TEXT("a", "a");
	IS(S_ISLNK(status_of("a").st_mode), true);
}

static void exchange_refused(void)
{
	need_flag(RENAME_EXCHANGE);
	make_file("a", "a");
	NEED(mkdir("folder", 0755));
	NEED(mkdir("folder/inside", 0755));
	FAILS(rename2("a", "none", RENAME_EXCHANGE), ENOENT);
	FAILS(rename2("none", "a", RENAME_EXCHANGE), ENOENT);
	FAILS(rename2("folder", "folder/inside", RENAME_EXCHANGE), EINVAL);
	FAILS(rename2("folder/inside", "folder", RENAME_EXCHANGE), EINVAL);
	FAILS(rename2("a", "folder", RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
	FAILS(rename2("a", "folder", 1u << 30), EINVAL);
	TEXT("a", "a");
}

static void exchange_open(void)
{
	need_flag(RENAME_EXCHANGE);
	make_file("a", "a");
	make_file("b", "b");
	int fd = (int)NEED(open("a", O_RDWR));
	NEED(rename2("a", "b", RENAME_EXCHANGE));
	IS(pwrite(fd, "A", 1, 0), 1);
	TEXT("b", "A");
	TEXT("a", "b");
	NEED(unlink("a"));
	struct stat status;
	NEED(fstat(fd, &status));
	IS(status.st_nlink, 1);
}

static const struct check checks[] = {
	{ "noreplace", noreplace },
	{ "swap", exchange },
	{ "refused", exchange_refused },
	{ "open-files", exchange_open },
	{ 0 },
};
const struct check_group exchange_group = { "exchange", checks };
