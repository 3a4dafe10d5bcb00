/* readdir(3): every name once, whatever happens meanwhile to others. */
#include "posix.h"

#include <dirent.h>

static DIR *open_list(const char *path)
{
	DIR *list = opendir(path);
	if (!list)
		STOP("opendir %s: %s", path, strerror(errno));
	return list;
}

static void name_of(unsigned i, char name[32])
{
	snprintf(name, 32, "file-%06u", i);
}

static void fill(unsigned count)
{
	char name[32];
	for (unsigned i = 0; i < count; i++) {
		name_of(i, name);
		NEED(close((int)NEED(open(name, O_WRONLY | O_CREAT | O_EXCL, 0644))));
	}
}

static bool is_dot(const char *name)
{
	return !strcmp(name, ".") || !strcmp(name, "..");
}

/* Counts the name in `seen`, of `count` numbers; others are refused. */
static void see(uint8_t *seen, unsigned count, const char *name)
{
	unsigned number;
	char expected[32];
	if (sscanf(name, "file-%u", &number) != 1 || number >= count)
		STOP("a name: expected one that was made, got \"%s\"", name);
	name_of(number, expected);
	if (strcmp(name, expected))
		STOP("a name: expected %s, got %s", expected, name);
	if (seen[number]++)
		STOP("%s: expected it once, got it twice", name);
}

static uint8_t *new_seen(unsigned count)
{
	uint8_t *seen = calloc(1, count ? count : 1);
	if (!seen)
		STOP("no memory");
	return seen;
}

static void all_once(void)
{
	unsigned count = options.entries, dots = 0;
	fill(count);
	uint8_t *seen = new_seen(count);
	DIR *list = open_list(".");
	for (struct dirent *entry; (entry = readdir(list));) {
		if (is_dot(entry->d_name)) {
			dots++;
			continue;
		}
		see(seen, count, entry->d_name);
		if (entry->d_type != DT_UNKNOWN)
			IS(entry->d_type, DT_REG);
	}
	IS(dots, 2);
	for (unsigned i = 0; i < count; i++)
		if (!seen[i])
			STOP("file-%06u: expected it once, got it never", i);
	/* Once more by the same handle, which sees what is new. */
	make_file("file-new", "");
	rewinddir(list);
	unsigned again = 0;
	bool found = false;
	for (struct dirent *entry; (entry = readdir(list));) {
		again += !is_dot(entry->d_name);
		found = found || !strcmp(entry->d_name, "file-new");
	}
	IS(again, count + 1);
	IS(found, true);
}

static void kinds(void)
{
	make_file("file", "");
	NEED(mkdir("folder", 0755));
	NEED(symlink("x", "link"));
	NEED(mkfifo("fifo", 0644));
	DIR *list = open_list(".");
	unsigned count = 0;
	for (struct dirent *entry; (entry = readdir(list));) {
		if (is_dot(entry->d_name)) {
			IS(entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN, true);
			continue;
		}
		struct stat status = status_of(entry->d_name);
		count++;
		IS(entry->d_ino, status.st_ino);
		if (entry->d_type != DT_UNKNOWN)
			IS(entry->d_type, (status.st_mode & S_IFMT) >> 12);
	}
	IS(count, 4);
}

/* Those that are there from the beginning to the end are seen once; those that go, at most once. */
static void unlink_meanwhile(void)
{
	unsigned count = options.entries / 2, read = 0;
	fill(count);
	uint8_t *seen = new_seen(count), *gone = new_seen(count);
	DIR *list = open_list(".");
	for (struct dirent *entry; (entry = readdir(list));) {
		if (is_dot(entry->d_name))
			continue;
		see(seen, count, entry->d_name);
		/* Now the one that was read, now one that comes later or was before. */
		unsigned number = (unsigned)atoi(entry->d_name + 5),
			 victim = read++ % 3 ? number : number * 7919 % count;
		char name[32];
		name_of(victim, name);
		if (!gone[victim]) {
			NEED(unlink(name));
			gone[victim] = 1;
		}
	}
	for (unsigned i = 0; i < count; i++)
		if (!seen[i] && !gone[i])
			STOP("file-%06u: expected it once, got it never", i);
	unsigned left = 0;
	for (unsigned i = 0; i < count; i++)
		left += !gone[i];
	IS(count_entries("."), left);
}

/* rm -r as it is often written: read and remove until the end of one pass. */
static void remove_all(void)
{
	unsigned count = options.entries / 2, removed = 0;
	fill(count);
	DIR *list = open_list(".");
	for (struct dirent *entry; (entry = readdir(list));)
		if (!is_dot(entry->d_name)) {
			NEED(unlink(entry->d_name));
			removed++;
		}
	IS(removed, count);
	IS(count_entries("."), 0);
}

static void create_meanwhile(void)
{
	unsigned count = options.entries / 4, made = 0;
	fill(count);
	uint8_t *seen = new_seen(count);
	DIR *list = open_list(".");
	for (struct dirent *entry; (entry = readdir(list));) {
		if (is_dot(entry->d_name) || !strncmp(entry->d_name, "new", 3))
			continue;
		see(seen, count, entry->d_name);
		char name[32], renamed[32];
		snprintf(name, sizeof name, "new-%u", made);
		snprintf(renamed, sizeof renamed, "newer-%u", made++);
		NEED(close((int)NEED(open(name, O_WRONLY | O_CREAT | O_EXCL, 0644))));
		if (made % 2)
			NEED(rename(name, renamed));
	}
	for (unsigned i = 0; i < count; i++)
		if (!seen[i])
			STOP("file-%06u: expected it once, got it never", i);
	IS(count_entries("."), 2 * count);
}

/* telldir names a place: what follows it is the same again. */
static void places(void)
{
	enum { MOST = 300 };
	unsigned number = options.entries < MOST ? options.entries : MOST;
	fill(number);
	DIR *list = open_list(".");
	static long place[MOST + 3];
	static char names[MOST + 3][32];
	unsigned count = 0;
	place[0] = telldir(list);
	for (struct dirent *entry; (entry = readdir(list)) && count < number + 2;) {
		snprintf(names[count], 32, "%.31s", entry->d_name);
		place[++count] = telldir(list);
	}
	IS(count, number + 2);
	for (unsigned i = 0; i < count; i++) {
		unsigned at = i * 101 % count;
		seekdir(list, place[at]);
		struct dirent *entry = readdir(list);
		if (!entry || strcmp(entry->d_name, names[at]))
			STOP("place %u: expected %s, got %s", at, names[at], entry ? entry->d_name : "the end");
		entry = readdir(list);
		const char *next = at + 1 < count ? names[at + 1] : NULL;
		if (!entry != !next || (next && strcmp(entry->d_name, next)))
			STOP("place %u: expected %s, got %s", at + 1, next ? next : "the end",
			     entry ? entry->d_name : "the end");
	}
	seekdir(list, place[count]);
	IS(readdir(list) == NULL, true);
	/* What was read before stays where it is when it is gone. */
	NEED(unlink(strcmp(names[5], ".") && strcmp(names[5], "..") ? names[5] : names[7]));
	seekdir(list, place[20]);
	struct dirent *entry = readdir(list);
	if (!entry || strcmp(entry->d_name, names[20]))
		STOP("place 20: expected %s, got %s", names[20], entry ? entry->d_name : "the end");
}

/* The kernel's own call with little room: as many names as fit, never half of one, and EINVAL where none does. */
static void small_buffers(void)
{
	enum { COUNT = 60 };
	static char buffer[512];
	char name[256];
	for (unsigned i = 0; i < COUNT; i++) {
		memset(name, 'a' + (int)i % 26, 255);
		name[snprintf(NULL, 0, "%u", i)] = '-';
		snprintf(name, 8, "%u", i);
		name[strlen(name)] = '-';
		name[200 + i % 56] = '\0';
		make_file(name, "");
	}
	int fd = (int)NEED(open(".", O_RDONLY | O_DIRECTORY));
	unsigned names = 0;
	for (ssize_t bytes; (bytes = NEED(call_getdents(fd, buffer, sizeof buffer))) > 0;)
		for (ssize_t at = 0; at < bytes;) {
			struct dirent *entry = (struct dirent *)(buffer + at);
			IS(entry->d_reclen > 0 && at + entry->d_reclen <= bytes, true);
			if (!is_dot(entry->d_name)) {
				names++;
				IS(exists(entry->d_name), true);
			}
			at += entry->d_reclen;
		}
	IS(names, COUNT);
	NEED(lseek(fd, 0, SEEK_SET));
	FAILS(call_getdents(fd, buffer, 8), EINVAL);
}

static void two_handles(void)
{
	enum { COUNT = 40 };
	fill(COUNT);
	DIR *first = open_list("."), *second = open_list(".");
	unsigned counts[2] = { 0 };
	for (bool more = true; more;) {
		struct dirent *entry = readdir(first);
		more = entry;
		counts[0] += entry && !is_dot(entry->d_name);
		for (unsigned i = 0; i < 2; i++) {
			entry = readdir(second);
			more = more || entry;
			counts[1] += entry && !is_dot(entry->d_name);
		}
	}
	IS(counts[0], COUNT);
	IS(counts[1], COUNT);
}

/* A tree of many folders: listed, counted and removed. */
static unsigned walk(const char *path, bool remove)
{
	unsigned count = 0;
	char inside[512];
	DIR *list = open_list(path);
	for (struct dirent *entry; (entry = readdir(list));) {
		if (is_dot(entry->d_name))
			continue;
		snprintf(inside, sizeof inside, "%s/%s", path, entry->d_name);
		count++;
		if (S_ISDIR(status_of(inside).st_mode))
			count += walk(inside, remove);
		else if (remove)
			NEED(unlink(inside));
	}
	closedir(list);
	if (remove)
		NEED(rmdir(path));
	return count;
}

static void trees(void)
{
	unsigned wide = options.entries < 1000 ? 4 : 10, expected = 0;
	char path[64];
	NEED(mkdir("top", 0755));
	for (unsigned i = 0; i < wide; i++) {
		snprintf(path, sizeof path, "top/%u", i);
		NEED(mkdir(path, 0755));
		for (unsigned j = 0; j < wide; j++) {
			snprintf(path, sizeof path, "top/%u/%u", i, j);
			NEED(mkdir(path, 0755));
			strcat(path, "/file");
			make_file(path, path);
			expected += 2;
		}
		expected++;
	}
	IS(walk("top", false), expected);
	IS(walk("top", true), expected);
	IS(exists("top"), false);
}

static const struct check checks[] = {
	{ "all-once", all_once },
	{ "kinds", kinds },
	{ "unlink-meanwhile", unlink_meanwhile },
	{ "remove-all", remove_all },
	{ "create-meanwhile", create_meanwhile },
	{ "places", places },
	{ "small-buffers", small_buffers },
	{ "two-handles", two_handles },
	{ "trees", trees },
	{ 0 },
};
const struct check_group folders_group = { "readdir", checks };
