/* Extended attributes: user.*, on files and folders. */
#include "posix.h"

#include <sys/xattr.h>

static void need_xattrs(void)
{
	make_file("probe", "");
	if (setxattr("probe", "user.probe", "", 0, 0) < 0 && errno == EOPNOTSUPP)
		CANNOT("no user.* attributes on this file system");
	NEED(unlink("probe"));
}

static void is_value(const char *path, const char *name, const char *value, size_t length)
{
	char got[512];
	ssize_t bytes = getxattr(path, name, got, sizeof got);
	if (bytes < 0)
		STOP("%s of %s: %s", name, path, strerror(errno));
	IS(bytes, length);
	IS(memcmp(got, value, length), 0);
	IS(getxattr(path, name, NULL, 0), length);
}

static void values(void)
{
	need_xattrs();
	make_file("file", "x");
	NEED(mkdir("folder", 0755));
	static const char *const paths[] = { "file", "folder" };
	for (size_t i = 0; i < 2; i++) {
		NEED(setxattr(paths[i], "user.one", "value", 5, 0));
		is_value(paths[i], "user.one", "value", 5);
		NEED(setxattr(paths[i], "user.one", "\0\xff\n", 3, 0));
		is_value(paths[i], "user.one", "\0\xff\n", 3);
		NEED(setxattr(paths[i], "user.empty", "", 0, 0));
		is_value(paths[i], "user.empty", "", 0);
		NEED(removexattr(paths[i], "user.one"));
		FAILS(getxattr(paths[i], "user.one", NULL, 0), ENODATA);
		FAILS(removexattr(paths[i], "user.one"), ENODATA);
	}
	int fd = (int)NEED(open("file", O_RDONLY));
	NEED(fsetxattr(fd, "user.fd", "by fd", 5, 0));
	is_value("file", "user.fd", "by fd", 5);
	NEED(fremovexattr(fd, "user.fd"));
	FAILS(fgetxattr(fd, "user.fd", NULL, 0), ENODATA);
	FAILS(getxattr("none", "user.one", NULL, 0), ENOENT);
}

static void flags(void)
{
	need_xattrs();
	make_file("file", "x");
	FAILS(setxattr("file", "user.one", "x", 1, XATTR_REPLACE), ENODATA);
	NEED(setxattr("file", "user.one", "x", 1, XATTR_CREATE));
	FAILS(setxattr("file", "user.one", "y", 1, XATTR_CREATE), EEXIST);
	is_value("file", "user.one", "x", 1);
	NEED(setxattr("file", "user.one", "z", 1, XATTR_REPLACE));
	is_value("file", "user.one", "z", 1);
}

static bool is_listed(const char *list, ssize_t bytes, const char *name)
{
	for (ssize_t at = 0; at < bytes; at += (ssize_t)strlen(list + at) + 1)
		if (!strcmp(list + at, name))
			return true;
	return false;
}

static void lists(void)
{
	need_xattrs();
	make_file("file", "x");
	char list[4096], name[32];
	ssize_t before = NEED(listxattr("file", list, sizeof list)), expected = before;
	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof name, "user.name-%u", i);
		NEED(setxattr("file", name, name, strlen(name), 0));
		expected += (ssize_t)strlen(name) + 1;
	}
	IS(listxattr("file", NULL, 0), expected);
	IS(listxattr("file", list, sizeof list), expected);
	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof name, "user.name-%u", i);
		IS(is_listed(list, expected, name), true);
		is_value("file", name, name, strlen(name));
	}
	FAILS(listxattr("file", list, (size_t)expected - 1), ERANGE);
	for (unsigned i = 0; i < 20; i += 2) {
		snprintf(name, sizeof name, "user.name-%u", i);
		NEED(removexattr("file", name));
	}
	ssize_t rest = NEED(listxattr("file", list, sizeof list));
	IS(is_listed(list, rest, "user.name-0"), false);
	IS(is_listed(list, rest, "user.name-1"), true);
}

static void limits(void)
{
	need_xattrs();
	make_file("file", "x");
	char name[300] = "user.", value[1000], got[1000];
	memset(name + 5, 'n', sizeof name - 5);
	name[255] = '\0';
	NEED(setxattr("file", name, "long", 4, 0));
	is_value("file", name, "long", 4);
	name[255] = 'n';
	name[256] = '\0';
	FAILS(setxattr("file", name, "longer", 6, 0), ERANGE);
	for (size_t i = 0; i < sizeof value; i++)
		value[i] = (char)pattern(i);
	NEED(setxattr("file", "user.big", value, sizeof value, 0));
	FAILS(getxattr("file", "user.big", got, 999), ERANGE);
	IS(getxattr("file", "user.big", got, 1000), 1000);
	IS(memcmp(got, value, 1000), 0);
	static char huge[65537];
	FAILS(setxattr("file", "user.huge", huge, 65537, 0), E2BIG);
	FAILS(setxattr("file", "nonsense", "x", 1, 0), EOPNOTSUPP);
}

static void permissions(void)
{
	need_xattrs();
	make_file("file", "x");
	NEED(setxattr("file", "user.one", "x", 1, 0));
	NEED(chmod("file", 0604));
	AS(1000, 1000)
	{
		is_value("file", "user.one", "x", 1);
		FAILS(setxattr("file", "user.one", "y", 1, 0), EACCES);
		FAILS(removexattr("file", "user.one"), EACCES);
	}
	NEED(chmod("file", 0602));
	AS(1000, 1000)
	{
		FAILS(getxattr("file", "user.one", NULL, 0), EACCES);
		IS(setxattr("file", "user.one", "y", 1, 0), 0);
	}
	is_value("file", "user.one", "y", 1);
	/* Links and fifos have none. */
	NEED(symlink("file", "link"));
	FAILS(lsetxattr("link", "user.one", "x", 1, 0), EPERM);
	NEED(mkfifo("fifo", 0666));
	FAILS(setxattr("fifo", "user.one", "x", 1, 0), EPERM);
	is_value("link", "user.one", "y", 1);
}

static void stays(void)
{
	need_xattrs();
	make_file("file", "x");
	NEED(setxattr("file", "user.one", "value", 5, 0));
	struct stat before = status_of("file");
	tick(before.st_ctim);
	NEED(setxattr("file", "user.two", "x", 1, 0));
	IS(compare_times(status_of("file").st_ctim, before.st_ctim) > 0, true);
	IS(compare_times(status_of("file").st_mtim, before.st_mtim), 0);
	NEED(rename("file", "moved"));
	NEED(link("moved", "link"));
	NEED(chmod("moved", 0600));
	int fd = (int)NEED(open("moved", O_WRONLY | O_TRUNC));
	is_value("link", "user.one", "value", 5);
	NEED(unlink("moved"));
	NEED(unlink("link"));
	char got[8];
	IS(fgetxattr(fd, "user.one", got, sizeof got), 5);
	make_file("file", "");
	FAILS(getxattr("file", "user.one", NULL, 0), ENODATA);
}

static const struct check checks[] = {
	{ "values", values },
	{ "flags", flags },
	{ "lists", lists },
	{ "limits", limits },
	{ "permissions", permissions },
	{ "stays", stays },
	{ 0 },
};
const struct check_group xattr_group = { "xattr", checks };
