/* mmap(2): what a mapping shows and what reads and writes show are one thing. */
#include "posix.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/vfs.h>

#define TMPFS 0x01021994

#define PAGE ((size_t)sysconf(_SC_PAGESIZE))

static uint8_t *map(int fd, size_t bytes, int protection, int flags)
{
	void *result = mmap(NULL, bytes, protection, flags, fd, 0);
	if (result == MAP_FAILED && errno == ENODEV && (flags & MAP_SHARED))
		CANNOT("this file system has no shared mappings");
	if (result == MAP_FAILED)
		STOP("mmap: %s", strerror(errno));
	return result;
}

static int open_bytes(size_t bytes)
{
	make_bytes("file", bytes);
	return (int)NEED(open("file", O_RDWR | O_CLOEXEC));
}

static void shared_writes(void)
{
	int fd = open_bytes(3 * PAGE);
	uint8_t *at = map(fd, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	for (size_t i = 0; i < 3 * PAGE; i++)
		if (at[i] != pattern(i))
			STOP("byte %zu: expected %#x, got %#x", i, pattern(i), at[i]);
	/* The mapping's is read. */
	memcpy(at + PAGE - 3, "across", 6);
	char text[16] = "";
	IS(pread(fd, text, 6, (off_t)PAGE - 3), 6);
	IS(memcmp(text, "across", 6), 0);
	int other = (int)NEED(open("file", O_RDONLY));
	IS(pread(other, text, 6, (off_t)PAGE - 3), 6);
	IS(memcmp(text, "across", 6), 0);
	/* The written is in the mapping. */
	IS(pwrite(fd, "written", 7, 100), 7);
	IS(memcmp(at + 100, "written", 7), 0);
	NEED(msync(at, 3 * PAGE, MS_SYNC));
	NEED(munmap(at, 3 * PAGE));
	NEED(close(fd));
	fd = (int)NEED(open("file", O_RDONLY));
	IS(pread(fd, text, 6, (off_t)PAGE - 3), 6);
	IS(memcmp(text, "across", 6), 0);
	IS(status_of("file").st_size, 3 * PAGE);
}

static void two_mappings(void)
{
	int fd = open_bytes(PAGE), other = (int)NEED(open("file", O_RDWR));
	uint8_t *first = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	uint8_t *second = map(other, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	first[10] = 1;
	IS(second[10], 1);
	second[10] = 2;
	IS(first[10], 2);
	NEED(munmap(first, PAGE));
	IS(second[10], 2);
}

static int write_there(unsigned unused)
{
	(void)unused;
	int fd = (int)NEED(open("file", O_RDWR));
	uint8_t *at = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	at[0] = 'c';
	return 0;
}

static void other_process(void)
{
	int fd = open_bytes(PAGE);
	uint8_t *at = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	at[0] = 'p';
	IS(join(start(write_there, 0)), 0);
	IS(at[0], 'c');
	char byte = 0;
	IS(pread(fd, &byte, 1, 0), 1);
	IS(byte, 'c');
}

static void private_stays(void)
{
	int fd = open_bytes(2 * PAGE);
	uint8_t *at = map(fd, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	at[5] = (uint8_t)~pattern(5);
	PATTERN(fd, 0, 2 * PAGE);
	IS(pwrite(fd, "written", 7, 0), 7);
	IS(at[5], (uint8_t)~pattern(5));
	IS(pwrite(fd, "written", 7, (off_t)PAGE), 7);
	IS(memcmp(at + PAGE, "written", 7), 0);
	NEED(msync(at, 2 * PAGE, MS_SYNC));
	NEED(munmap(at, 2 * PAGE));
	char byte;
	IS(pread(fd, &byte, 1, 5), 1);
	IS(byte, 'e');
}

static sigjmp_buf jump;

static void on_bus(int number)
{
	(void)number;
	siglongjmp(jump, 1);
}

static bool faults(const volatile uint8_t *at)
{
	if (sigsetjmp(jump, 1))
		return true;
	(void)*at;
	return false;
}

static void past_the_end(void)
{
	struct sigaction action = { .sa_handler = on_bus };
	NEED(sigaction(SIGBUS, &action, NULL));
	int fd = open_bytes(PAGE + 10);
	uint8_t *at = map(fd, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	IS(faults(at + PAGE), false);
	IS(at[PAGE + 10], 0);
	IS(faults(at + 2 * PAGE), true);
	/* Longer: what is written there is the file's. */
	NEED(ftruncate(fd, (off_t)(3 * PAGE)));
	IS(faults(at + 2 * PAGE), false);
	at[2 * PAGE] = 'x';
	char byte = 0;
	IS(pread(fd, &byte, 1, (off_t)(2 * PAGE)), 1);
	IS(byte, 'x');
	/* Shorter: gone, and zero when it is long again. */
	memset(at, 'x', 3 * PAGE);
	NEED(ftruncate(fd, 10));
	IS(faults(at + PAGE), true);
	IS(faults(at), false);
	NEED(ftruncate(fd, (off_t)(3 * PAGE)));
	IS(at[9], 'x');
	IS(at[10], 0);
	IS(at[2 * PAGE], 0);
	ZEROS(fd, 10, 3 * PAGE);
}

static bool is_tmpfs(void)
{
	struct statfs status;
	NEED(statfs(".", &status));
	return status.f_type == TMPFS;
}

/* What is written behind the end, within its page, never reaches the file. */
static void behind_the_end(void)
{
	if (is_tmpfs())
		CANNOT("tmpfs keeps what is stored behind the end");
	int fd = open_bytes(10);
	uint8_t *at = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	at[20] = 'y';
	NEED(msync(at, PAGE, MS_SYNC));
	IS(status_of("file").st_size, 10);
	NEED(munmap(at, PAGE));
	NEED(ftruncate(fd, 100));
	ZEROS(fd, 10, 100);
}

static void outlives_names(void)
{
	int fd = open_bytes(PAGE);
	uint8_t *at = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	NEED(close(fd));
	NEED(rename("file", "other"));
	at[0] = 'x';
	NEED(unlink("other"));
	IS(at[0], 'x');
	IS(at[1], pattern(1));
	at[1] = 'y';
	NEED(msync(at, PAGE, MS_SYNC));
	IS(at[1], 'y');
	NEED(madvise(at, PAGE, MADV_DONTNEED));
	IS(at[0], 'x');
	IS(at[1], 'y');
}

static void refused(void)
{
	make_bytes("file", PAGE);
	int reader = (int)NEED(open("file", O_RDONLY)), writer = (int)NEED(open("file", O_WRONLY));
	IS(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, reader, 0) == MAP_FAILED && errno == EACCES, true);
	IS(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, writer, 0) == MAP_FAILED && errno == EACCES, true);
	IS(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, reader, 1) == MAP_FAILED && errno == EINVAL, true);
	uint8_t *at = map(reader, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	at[0] = 'x';
	PATTERN(reader, 0, PAGE);
}

/* Many pages, in no order, checked against reads; and what is far out. */
static void many_pages(void)
{
	size_t pages = 256;
	int fd = open_bytes(pages * PAGE);
	uint8_t *at = map(fd, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	for (size_t i = 0; i < pages; i++) {
		size_t page = i * 97 % pages;
		if (at[page * PAGE + page] != pattern(page * PAGE + page))
			STOP("page %zu: expected %#x, got %#x", page, pattern(page * PAGE + page),
			     at[page * PAGE + page]);
		at[page * PAGE] = (uint8_t)page;
	}
	NEED(msync(at, pages * PAGE, MS_ASYNC));
	for (size_t i = 0; i < pages; i += 5) {
		uint8_t byte;
		IS(pread(fd, &byte, 1, (off_t)(i * PAGE)), 1);
		IS(byte, (uint8_t)i);
	}
	NEED(munmap(at, pages * PAGE));
	NEED(ftruncate(fd, (off_t)(options.big + PAGE)));
	at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)(options.big & ~(uint64_t)(PAGE - 1)));
	if (at == MAP_FAILED)
		STOP("mmap far out: %s", strerror(errno));
	at[7] = 'f';
	char byte = 0;
	IS(pread(fd, &byte, 1, (off_t)(options.big & ~(uint64_t)(PAGE - 1)) + 7), 1);
	IS(byte, 'f');
}

static void moves_times(void)
{
	if (is_tmpfs())
		CANNOT("tmpfs does not notice stores");
	int fd = open_bytes(PAGE);
	uint8_t *at = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	struct stat before = status_of("file");
	tick(before.st_ctim);
	at[0] = 'x';
	NEED(msync(at, PAGE, MS_SYNC));
	NEED(munmap(at, PAGE));
	NEED(close(fd));
	struct stat after = status_of("file");
	IS(compare_times(after.st_mtim, before.st_mtim) > 0, true);
}

static const struct check checks[] = {
	{ "shared-and-write", shared_writes },
	{ "two-mappings", two_mappings },
	{ "two-processes", other_process },
	{ "private", private_stays },
	{ "past-the-end", past_the_end },
	{ "behind-the-end", behind_the_end },
	{ "outlives-names", outlives_names },
	{ "refused", refused },
	{ "many-pages", many_pages },
	{ "moves-times", moves_times },
	{ 0 },
};
const struct check_group mapping_group = { "mmap", checks };
