/* Names: the longest, every byte, deep paths. */
#include "posix.h"

#include <dirent.h>
#include <limits.h>

static void longest(void)
{
	char name[258], longer[300];
	memset(name, 'n', 257);
	name[255] = '\0';
	make_file(name, "text");
	TEXT(name, "text");
	NEED(mkdir("folder", 0755));
	NEED(rename(name, "short"));
	NEED(rename("short", name));
	NEED(link(name, "other"));
	NEED(unlink(name));
	NEED(mkdir(name, 0755));
	snprintf(longer, sizeof longer, "%s/file", name);
	make_file(longer, "deep");
	TEXT(longer, "deep");
	NEED(unlink(longer));
	NEED(rmdir(name));
	NEED(symlink("x", name));
	IS(count_entries("."), 3);
	/* One more. */
	memset(name, 'n', 257);
	name[256] = '\0';
	struct stat status;
	FAILS(open(name, O_RDONLY), ENAMETOOLONG);
	FAILS(open(name, O_WRONLY | O_CREAT, 0644), ENAMETOOLONG);
	FAILS(mkdir(name, 0755), ENAMETOOLONG);
	FAILS(symlink("x", name), ENAMETOOLONG);
	FAILS(mkfifo(name, 0644), ENAMETOOLONG);
	FAILS(link("other", name), ENAMETOOLONG);
	FAILS(rename("other", name), ENAMETOOLONG);
	FAILS(lstat(name, &status), ENAMETOOLONG);
	FAILS(unlink(name), ENAMETOOLONG);
	IS(count_entries("."), 3);
}

static bool is_listed(const char *name)
{
	DIR *folder = opendir(".");
	bool found = false;
	if (!folder)
		STOP("opendir: %s", strerror(errno));
	for (struct dirent *entry; (entry = readdir(folder));)
		found = found || !strcmp(entry->d_name, name);
	closedir(folder);
	return found;
}

/* Names are bytes: none but / and NUL means anything, and none is changed. */
static void every_byte(void)
{
	unsigned count = 0;
	for (unsigned first = 1; first < 256; first += 16) {
		char name[20];
		unsigned length = 0;
		for (unsigned byte = first; byte < first + 16 && byte < 256; byte++)
			if (byte != '/')
				name[length++] = (char)byte;
		name[length] = '\0';
		make_file(name, "text");
		TEXT(name, "text");
		IS(is_listed(name), true);
		count++;
	}
	static const char *const odd[] = {
		"...",
		" ",
		"-",
		"\\",
		"~",
		"*",
		"a\nb",
		".hidden",
		"trailing ",
		"trailing.",
		"\xff",
		"\xc3\xa4",
		"a\xcc\x88",
		"CON",
		"lost+found.",
		".wh.x",
		".wh..wh..opq",
		"%s%n",
		"\x1b[31m",
		"\xf0\x9f\x90\x82",
		"\xed\xa0\x80",
	};
	for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
		int fd = open(odd[i], O_WRONLY | O_CREAT | O_EXCL, 0644);
		/* An overlay keeps these for itself. */
		if (fd < 0 && errno == EPERM && !strncmp(odd[i], ".wh.", 4))
			continue;
		NEED(fd);
		close(fd);
		IS(is_listed(odd[i]), true);
		count++;
	}
	IS(count_entries("."), count);
}

static void cases(void)
{
	make_file("name", "small");
	make_file("NAME", "large");
	make_file("Name", "mixed");
	TEXT("name", "small");
	TEXT("NAME", "large");
	TEXT("Name", "mixed");
	/* One composed and one not. */
	make_file("\xc3\xa4", "one");
	make_file("a\xcc\x88", "two");
	TEXT("\xc3\xa4", "one");
	IS(count_entries("."), 5);
}

/* Deeper than any path that one call takes. */
static void deep(void)
{
	char name[201];
	memset(name, 'd', 200);
	name[200] = '\0';
	struct stat top = status_of(".");
	for (unsigned i = 0; i < 24; i++) {
		NEED(mkdir(name, 0755));
		NEED(chdir(name));
	}
	make_file("file", "deep");
	TEXT("file", "deep");
	struct stat bottom = status_of(".");
	for (unsigned i = 0; i < 24; i++)
		NEED(chdir(".."));
	IS(status_of(".").st_ino, top.st_ino);
	for (unsigned i = 0; i < 24; i++)
		NEED(chdir(name));
	IS(status_of(".").st_ino, bottom.st_ino);
	IS(unlink("file"), 0);
}

static void dots(void)
{
	NEED(mkdir("folder", 0755));
	make_file("file", "text");
	TEXT("./folder/./../file", "text");
	TEXT("folder//..//file", "text");
	FAILS(mkdir(".", 0755), EEXIST);
	FAILS(mkdir("folder/..", 0755), EEXIST);
	FAILS(open("folder/../none", O_RDONLY), ENOENT);
	FAILS(open("none/../file", O_RDONLY), ENOENT);
	FAILS(open("file/../file", O_RDONLY), ENOTDIR);
	IS(status_of("folder/..").st_ino, status_of(".").st_ino);
}

static const struct check checks[] = {
	{ "longest", longest }, { "every-byte", every_byte },
	{ "cases", cases },     { "deep", deep },
	{ "dots", dots },       { 0 },
};
const struct check_group names_group = { "names", checks };
