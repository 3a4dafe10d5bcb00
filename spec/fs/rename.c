/* rename(2): what over what, where to, and what stays as it is. */
#include "posix.h"

enum kind { MISSING, PLAIN, FIFO, LINK, EMPTY, FULL, KINDS };

static const char *const kind_names[KINDS] = { "nothing", "a file",          "a fifo",
	                                       "a link",  "an empty folder", "a full folder" };

static void make(enum kind kind, const char *path)
{
	char inside[64];
	switch (kind) {
	case PLAIN:
		make_file(path, path);
		break;
	case FIFO:
		NEED(mkfifo(path, 0644));
		break;
	case LINK: /* to a folder that is full, and not followed */
		NEED(symlink("/", path));
		break;
	case EMPTY:
	case FULL:
		NEED(mkdir(path, 0755));
		snprintf(inside, sizeof inside, "%s/inside", path);
		if (kind == FULL)
			make_file(inside, "inside");
		break;
	default:
		break;
	}
}

/* What must come of it: 0, or an errno. */
static int expected_of(enum kind from, enum kind to)
{
	bool from_folder = from == EMPTY || from == FULL, to_folder = to == EMPTY || to == FULL;
	if (from == MISSING)
		return ENOENT;
	if (to == MISSING)
		return 0;
	if (from_folder != to_folder)
		return to_folder ? EISDIR : ENOTDIR;
	return to == FULL ? ENOTEMPTY : 0;
}

static ino_t inode_of(const char *path)
{
	struct stat status;
	return lstat(path, &status) == 0 ? status.st_ino : 0;
}

static void cell(enum kind from, enum kind to, const char *source, const char *target)
{
	make(from, source);
	make(to, target);
	ino_t moved = inode_of(source), replaced = inode_of(target);
	int expected = expected_of(from, to);
	int got = rename(source, target) < 0 ? errno : 0;
	/* POSIX leaves these two open. */
	if (got == EEXIST && expected == ENOTEMPTY)
		got = ENOTEMPTY;
	if (got != expected)
		STOP("%s over %s: expected %s, got %s", kind_names[from], kind_names[to], strerror(expected),
		     strerror(got));
	if (expected == 0 && (exists(source) || inode_of(target) != moved))
		STOP("%s over %s: expected it under its new name alone, got inode %ju for %ju", kind_names[from],
		     kind_names[to], (uintmax_t)inode_of(target), (uintmax_t)moved);
	if (expected != 0 && (inode_of(source) != moved || inode_of(target) != replaced))
		STOP("%s over %s: expected no change, got one", kind_names[from], kind_names[to]);
	if (expected == 0 && from == FULL) {
		char inside[64];
		snprintf(inside, sizeof inside, "%s/inside", target);
		TEXT(inside, "inside");
	}
	remove_tree(AT_FDCWD, source);
	remove_tree(AT_FDCWD, target);
}

static void matrix(void)
{
	for (enum kind from = MISSING; from < KINDS; from++)
		for (enum kind to = MISSING; to < KINDS; to++)
			cell(from, to, "from", "to");
}

static void matrix_across(void)
{
	NEED(mkdir("a", 0755));
	NEED(mkdir("b", 0755));
	for (enum kind from = MISSING; from < KINDS; from++)
		for (enum kind to = MISSING; to < KINDS; to++)
			cell(from, to, "a/from", "b/to");
}

static void into_itself(void)
{
	NEED(mkdir("a", 0755));
	NEED(mkdir("a/b", 0755));
	NEED(mkdir("a/b/c", 0755));
	FAILS(rename("a", "a/new"), EINVAL);
	FAILS(rename("a", "a/b/c/new"), EINVAL);
	FAILS(rename("a", "a/b"), EINVAL);
	/* Over what it is in. */
	FAILS(rename("a/b/c", "a"), ENOTEMPTY);
	IS(rename("a", "a"), 0);
	FAILS(rename("a/.", "new"), EBUSY);
	FAILS(rename("a/b/..", "new"), EBUSY);
	IS(exists("a/b/c"), true);
}

static void same_file(void)
{
	make_file("a", "text");
	NEED(link("a", "b"));
	IS(rename("a", "b"), 0);
	IS(exists("a"), true);
	IS(exists("b"), true);
	IS(status_of("a").st_nlink, 2);
	IS(rename("a", "a"), 0);
	TEXT("a", "text");
}

static void open_files(void)
{
	make_file("old", "the old one");
	make_file("new", "the new one");
	int old = (int)NEED(open("old", O_RDWR)), new = (int)NEED(open("new", O_RDWR));
	NEED(rename("new", "old"));
	char text[32] = "";
	struct stat status;
	IS(pread(old, text, sizeof text, 0), 11);
	IS(memcmp(text, "the old one", 11), 0);
	NEED(fstat(old, &status));
	IS(status.st_nlink, 0);
	IS(pwrite(old, "THE", 3, 0), 3);
	TEXT("old", "the new one");
	IS(pwrite(new, "THE", 3, 0), 3);
	TEXT("old", "THE new one");
	NEED(fstat(new, &status));
	IS(status.st_ino, status_of("old").st_ino);
	/* Twice more, and it is still reached by its descriptor and by its name. */
	NEED(rename("old", "third"));
	NEED(rename("third", "fourth"));
	NEED(ftruncate(new, 3));
	TEXT("fourth", "THE");
}

/* Whoever is in a folder goes with it, and .. is where it is now. */
static void current_folder(void)
{
	NEED(mkdir("a", 0755));
	NEED(mkdir("a/inside", 0755));
	NEED(mkdir("b", 0755));
	struct stat b = status_of("b");
	int folder = (int)NEED(open("a/inside", O_RDONLY | O_DIRECTORY));
	NEED(chdir("a/inside"));
	NEED(rename("../../a/inside", "../../b/moved"));
	char path[4096];
	if (!getcwd(path, sizeof path))
		STOP("getcwd: %s", strerror(errno));
	IS(strcmp(path + strlen(path) - 8, "/b/moved"), 0);
	IS(status_of("..").st_ino, b.st_ino);
	make_file("new", "text");
	TEXT("../../b/moved/new", "text");
	IS(faccessat(folder, "new", F_OK, 0), 0);
	IS(fchdir(folder), 0);
	TEXT("../moved/new", "text");
}

/* A folder counts its sub-folders, where the file system counts them at all. */
static void folder_links(void)
{
	NEED(mkdir("a", 0755));
	NEED(mkdir("b", 0755));
	if (status_of("a").st_nlink != 2)
		CANNOT("an empty folder has %ju links here", (uintmax_t)status_of("a").st_nlink);
	NEED(mkdir("a/x", 0755));
	IS(status_of("a").st_nlink, 3);
	NEED(rename("a/x", "b/x"));
	IS(status_of("a").st_nlink, 2);
	IS(status_of("b").st_nlink, 3);
	NEED(mkdir("a/y", 0755));
	NEED(rename("a/y", "b/x"));
	IS(status_of("a").st_nlink, 2);
	IS(status_of("b").st_nlink, 3);
	NEED(rmdir("b/x"));
	IS(status_of("b").st_nlink, 2);
}

static void bad_paths(void)
{
	make_file("file", "x");
	NEED(mkdir("folder", 0755));
	FAILS(rename("file", "none/file"), ENOENT);
	FAILS(rename("none/file", "file"), ENOENT);
	FAILS(rename("file", "file/below"), ENOTDIR);
	FAILS(rename("file/below", "other"), ENOTDIR);
	FAILS(rename("file", "other/"), ENOTDIR);
	FAILS(rename("file/", "other"), ENOTDIR);
	FAILS(rename("", "other"), ENOENT);
	FAILS(rename("file", ""), ENOENT);
	IS(rename("folder/", "folder2/"), 0);
	IS(exists("folder2"), true);
	TEXT("file", "x");
}

static void whole_tree(void)
{
	NEED(mkdir("a", 0755));
	NEED(chdir("a"));
	char path[256] = "b";
	for (unsigned depth = 0; depth < 20; depth++) {
		char name[16];
		snprintf(name, sizeof name, "%u", depth);
		NEED(mkdir(name, 0755));
		make_file("file", name);
		NEED(chdir(name));
	}
	for (unsigned depth = 0; depth <= 20; depth++)
		NEED(chdir(".."));
	NEED(rename("a", "b"));
	for (unsigned depth = 0; depth < 20; depth++) {
		char name[16], file[300];
		snprintf(name, sizeof name, "%u", depth);
		snprintf(file, sizeof file, "%s/file", path);
		TEXT(file, name);
		strcat(strcat(path, "/"), name);
	}
	FAILS(access("a/0", F_OK), ENOENT);
}

/* A new name is seen at once by whoever looked for it in vain, and an old one is not. */
static void no_stale_names(void)
{
	for (unsigned i = 0; i < options.rounds; i++) {
		IS(exists("b"), false);
		make_file("a", "text");
		IS(exists("a"), true);
		NEED(rename("a", "b"));
		IS(exists("a"), false);
		TEXT("b", "text");
		NEED(unlink("b"));
	}
}

static const struct check checks[] = {
	{ "matrix", matrix },
	{ "matrix-across-folders", matrix_across },
	{ "into-itself", into_itself },
	{ "same-file", same_file },
	{ "open-files", open_files },
	{ "current-folder", current_folder },
	{ "folder-links", folder_links },
	{ "bad-paths", bad_paths },
	{ "whole-tree", whole_tree },
	{ "no-stale-names", no_stale_names },
	{ 0 },
};
const struct check_group rename_group = { "rename", checks };
