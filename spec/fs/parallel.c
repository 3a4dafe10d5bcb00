/* Many processes in one folder. */
#include "posix.h"

#include <sys/mman.h>

/* Counters that all see. */
static unsigned *shared;

static void share(void)
{
	shared = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		STOP("mmap: %s", strerror(errno));
}

static int create_some(unsigned number)
{
	char name[64];
	for (unsigned i = 0; i < options.rounds; i++) {
		snprintf(name, sizeof name, "%u-%u", number, i);
		make_file(name, name);
		if (i % 4 == 1)
			NEED(unlink(name));
		if (i % 4 == 2) {
			char other[80];
			snprintf(other, sizeof other, "%s-moved", name);
			NEED(rename(name, other));
			TEXT(other, name);
		}
	}
	return 0;
}

static void create(void)
{
	run_all(create_some, options.workers);
	IS(count_entries("."), options.workers * (options.rounds - (options.rounds + 2) / 4));
}

/* All want to be the one that makes it: by each way that is told to be atomic. */
static int race_to_make(unsigned number)
{
	char name[32], own[32];
	snprintf(own, sizeof own, "own-%u", number);
	make_file(own, "");
	for (unsigned i = 0; i < options.rounds * 4; i++) {
		snprintf(name, sizeof name, "prize-%u", i);
		int result = -1;
		switch (i % 4) {
		case 0:
			result = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
			if (result >= 0)
				close(result);
			break;
		case 1:
			result = mkdir(name, 0755);
			break;
		case 2:
			result = link(own, name);
			break;
		case 3:
			result = symlink(own, name);
			break;
		}
		if (result < 0 && errno != EEXIST)
			STOP("%s: expected File exists, got %s", name, strerror(errno));
		if (result >= 0)
			__atomic_fetch_add(&shared[i], 1, __ATOMIC_SEQ_CST);
	}
	return 0;
}

static void one_winner(void)
{
	share();
	run_all(race_to_make, options.workers);
	for (unsigned i = 0; i < options.rounds * 4; i++)
		if (shared[i] != 1)
			STOP("prize-%u: expected one winner, got %u", i, shared[i]);
}

static int race_to_remove(unsigned unused)
{
	(void)unused;
	char name[32], other[32];
	for (unsigned i = 0; i < options.rounds * 2; i++) {
		snprintf(name, sizeof name, "file-%u", i);
		snprintf(other, sizeof other, "taken-%u", i);
		int result = i % 2 ? rename(name, other) : unlink(name);
		if (result < 0 && errno != ENOENT)
			STOP("%s: expected No such file, got %s", name, strerror(errno));
		if (result >= 0)
			__atomic_fetch_add(&shared[i], 1, __ATOMIC_SEQ_CST);
	}
	return 0;
}

static void removed_once(void)
{
	char name[32];
	share();
	for (unsigned i = 0; i < options.rounds * 2; i++) {
		snprintf(name, sizeof name, "file-%u", i);
		make_file(name, "");
	}
	run_all(race_to_remove, options.workers);
	for (unsigned i = 0; i < options.rounds * 2; i++)
		if (shared[i] != 1)
			STOP("file-%u: expected it to go once, got %u times", i, shared[i]);
	IS(count_entries("."), options.rounds);
}

/* Who reads sees the old content or the new, whole, and never no file at all. */
static int replace_or_read(unsigned number)
{
	char name[32], text[64];
	snprintf(name, sizeof name, "new-%u", number);
	for (unsigned i = 0; i < options.rounds * 2; i++) {
		if (number == 0) {
			snprintf(text, sizeof text, "version %06u of the file", i);
			make_file(name, text);
			NEED(rename(name, "file"));
			continue;
		}
		int fd = (int)NEED(open("file", O_RDONLY));
		IS(read(fd, text, sizeof text), 26);
		IS(memcmp(text, "version ", 8), 0);
		NEED(close(fd));
	}
	return 0;
}

static void replaced_whole(void)
{
	make_file("file", "version 000000 of the file");
	run_all(replace_or_read, options.workers);
	IS(count_entries("."), 1);
}

enum { RECORD = 50 };

static int append_records(unsigned number)
{
	int fd = (int)NEED(open("file", O_WRONLY | O_APPEND));
	char record[RECORD];
	memset(record, 'a' + (int)number, RECORD);
	record[RECORD - 1] = '\n';
	for (unsigned i = 0; i < options.rounds; i++)
		IS(write(fd, record, RECORD), RECORD);
	return 0;
}

static void appended(void)
{
	make_file("file", "");
	run_all(append_records, options.workers);
	unsigned counts[26] = { 0 };
	char record[RECORD];
	int fd = (int)NEED(open("file", O_RDONLY));
	IS(status_of("file").st_size, RECORD * options.workers * options.rounds);
	while (read(fd, record, RECORD) == RECORD) {
		for (unsigned i = 1; i < RECORD - 1; i++)
			IS(record[i], record[0]);
		counts[(unsigned)(record[0] - 'a') % 26]++;
	}
	for (unsigned i = 0; i < options.workers && i < 26; i++)
		IS(counts[i], options.rounds);
}

/* Folders that come, are filled, moved and go, under everybody's feet. */
static int turn_over(unsigned number)
{
	char name[32], inside[64], moved[32];
	for (unsigned i = 0; i < options.rounds; i++) {
		snprintf(name, sizeof name, "folder-%u", (number + i) % options.workers);
		snprintf(inside, sizeof inside, "%s/file-%u", name, number);
		snprintf(moved, sizeof moved, "moved-%u", number);
		if (mkdir(name, 0755) < 0 && errno != EEXIST)
			STOP("mkdir: %s", strerror(errno));
		int fd = open(inside, O_WRONLY | O_CREAT, 0644);
		if (fd < 0 && errno != ENOENT)
			STOP("create: expected No such folder, got %s", strerror(errno));
		if (fd >= 0) {
			IS(write(fd, "x", 1), 1);
			close(fd);
		}
		if (rename(name, moved) < 0) {
			if (errno != ENOENT && errno != ENOTEMPTY)
				STOP("rename: %s", strerror(errno));
			continue;
		}
		remove_tree(AT_FDCWD, moved);
	}
	return 0;
}

static void folders(void)
{
	run_all(turn_over, options.workers);
	for (unsigned i = 0; i < options.workers; i++) {
		char name[32];
		snprintf(name, sizeof name, "folder-%u", i);
		remove_tree(AT_FDCWD, name);
		snprintf(name, sizeof name, "moved-%u", i);
		remove_tree(AT_FDCWD, name);
	}
	IS(count_entries("."), 0);
}

/* Each its own part of one file. */
enum { PART = 20000 };

static int write_part(unsigned number)
{
	int fd = (int)NEED(open("file", O_RDWR | O_CREAT, 0644));
	uint64_t from = (uint64_t)number * PART;
	uint8_t block[PART];
	for (unsigned i = 0; i < PART; i++)
		block[i] = pattern(from + i);
	for (unsigned i = 0; i < PART; i += 1000)
		IS(pwrite(fd, block + i, 1000, (off_t)(from + i)), 1000);
	PATTERN(fd, from, from + PART);
	return 0;
}

static void parts(void)
{
	run_all(write_part, options.workers);
	int fd = (int)NEED(open("file", O_RDONLY));
	PATTERN(fd, 0, (uint64_t)PART * options.workers);
	IS(status_of("file").st_size, PART * options.workers);
}

static const struct check checks[] = {
	{ "create", create },
	{ "one-winner", one_winner },
	{ "removed-once", removed_once },
	{ "replaced-whole", replaced_whole },
	{ "appended", appended },
	{ "folders", folders },
	{ "parts", parts },
	{ 0 },
};
const struct check_group parallel_group = { "parallel", checks };
