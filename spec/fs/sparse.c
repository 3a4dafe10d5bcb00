/* Holes, truncation, fallocate, and what lies far out. */
#include "posix.h"

#include <linux/falloc.h>

static int make_sparse(void)
{
	return (int)NEED(open("file", O_RDWR | O_CREAT | O_TRUNC, 0644));
}

static off_t size_of(int fd)
{
	struct stat status;
	NEED(fstat(fd, &status));
	return status.st_size;
}

static void put(int fd, uint64_t from, uint64_t to)
{
	uint8_t block[4096];
	for (uint64_t at = from; at < to;) {
		size_t bytes = to - at < sizeof block ? (size_t)(to - at) : sizeof block;
		for (size_t i = 0; i < bytes; i++)
			block[i] = pattern(at + i);
		at += (uint64_t)NEED(pwrite(fd, block, bytes, (off_t)at));
	}
}

static void gaps(void)
{
	int fd = make_sparse();
	put(fd, 100000, 100010);
	IS(size_of(fd), 100010);
	ZEROS(fd, 0, 100000);
	PATTERN(fd, 100000, 100010);
	put(fd, 5000, 5001);
	ZEROS(fd, 0, 5000);
	ZEROS(fd, 5001, 100000);
	char byte;
	IS(pread(fd, &byte, 1, 100010), 0);
	IS(pread(fd, &byte, 1, 1 << 30), 0);
}

static void truncation(void)
{
	/* Down and up again: what was there does not come back, not even within a page. */
	static const off_t sizes[] = { 0, 1, 100, 4095, 4096, 4097, 10000, 65535 };
	int fd = make_sparse();
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		put(fd, 0, 70000);
		NEED(ftruncate(fd, sizes[i]));
		IS(size_of(fd), sizes[i]);
		IS(status_of("file").st_size, sizes[i]);
		NEED(ftruncate(fd, 70000));
		PATTERN(fd, 0, (uint64_t)sizes[i]);
		ZEROS(fd, (uint64_t)sizes[i], 70000);
	}
	NEED(truncate("file", 5));
	IS(size_of(fd), 5);
	put(fd, 100, 200);
	ZEROS(fd, 5, 100);
}

static void truncation_refused(void)
{
	make_file("file", "text");
	NEED(mkdir("folder", 0755));
	int reader = (int)NEED(open("file", O_RDONLY));
	FAILS(ftruncate(reader, 1), EINVAL);
	FAILS(truncate("folder", 1), EISDIR);
	FAILS(truncate("none", 1), ENOENT);
	FAILS(truncate("file", -1), EINVAL);
	FAILS(truncate("file/below", 1), ENOTDIR);
	NEED(chmod("file", 0444));
	AS(1000, 1000)
	FAILS(truncate("file", 0), EACCES);
	TEXT("file", "text");
	IS(truncate("file", 4), 0);
	TEXT("file", "text");
}

/* Where data and holes are; a file system that does not know says that all is data. */
static void seek_holes(void)
{
	enum { STEP = 1 << 20 };
	int fd = make_sparse();
	put(fd, STEP, STEP + 4096);
	NEED(ftruncate(fd, 4 * STEP));
	IS(lseek(fd, 0, SEEK_END), 4 * STEP);
	FAILS(lseek(fd, 4 * STEP, SEEK_DATA), ENXIO);
	FAILS(lseek(fd, 4 * STEP, SEEK_HOLE), ENXIO);
	FAILS(lseek(fd, -1, SEEK_SET), EINVAL);
	off_t data = (off_t)NEED(lseek(fd, 0, SEEK_DATA));
	if (data == 0 && lseek(fd, 0, SEEK_HOLE) == 4 * STEP)
		CANNOT("this file system has no SEEK_DATA of its own");
	IS(data, STEP);
	IS(lseek(fd, 0, SEEK_HOLE), 0);
	off_t hole = (off_t)NEED(lseek(fd, STEP, SEEK_HOLE));
	IS(hole >= STEP + 4096 && hole < 2 * STEP, true);
	IS(lseek(fd, 0, SEEK_CUR), hole);
	FAILS(lseek(fd, hole, SEEK_DATA), ENXIO);
	IS(lseek(fd, STEP + 17, SEEK_DATA), STEP + 17);
}

static void blocks(void)
{
	int fd = make_sparse();
	NEED(ftruncate(fd, 1 << 30));
	struct stat status;
	NEED(fstat(fd, &status));
	IS(status.st_blocks < 2048, true);
	put(fd, 1 << 20, (1 << 20) + 65536);
	NEED(fsync(fd));
	NEED(fstat(fd, &status));
	IS(status.st_blocks >= 128, true);
	IS(status.st_blocks < 2048, true);
}

static void need_mode(int fd, int mode, const char *name)
{
	if (fallocate(fd, mode, 0, 4096) < 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
		CANNOT("fallocate has no %s on this file system", name);
}

static void allocation(void)
{
	int fd = make_sparse();
	need_mode(fd, 0, "plain mode");
	NEED(ftruncate(fd, 0));
	put(fd, 0, 100);
	NEED(fallocate(fd, 0, 0, 100000));
	IS(size_of(fd), 100000);
	PATTERN(fd, 0, 100);
	ZEROS(fd, 100, 100000);
	struct stat status;
	NEED(fstat(fd, &status));
	IS(status.st_blocks >= 100000 / 512, true);
	NEED(fallocate(fd, 0, 0, 500));
	IS(size_of(fd), 100000);
	FAILS(fallocate(fd, 0, 0, 0), EINVAL);
	FAILS(fallocate(fd, 0, -1, 10), EINVAL);
	int reader = (int)NEED(open("file", O_RDONLY));
	FAILS(fallocate(reader, 0, 0, 10), EBADF);
}

static void allocation_keeps_size(void)
{
	int fd = make_sparse();
	need_mode(fd, FALLOC_FL_KEEP_SIZE, "KEEP_SIZE");
	put(fd, 0, 100);
	NEED(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1 << 20));
	IS(size_of(fd), 100);
	char byte;
	IS(pread(fd, &byte, 1, 100), 0);
	struct stat status;
	NEED(fstat(fd, &status));
	IS(status.st_blocks >= (1 << 20) / 512, true);
}

static void punched(void)
{
	int fd = make_sparse(), mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	need_mode(fd, mode, "PUNCH_HOLE");
	put(fd, 0, 200000);
	NEED(fallocate(fd, mode, 10000, 100000));
	IS(size_of(fd), 200000);
	PATTERN(fd, 0, 10000);
	ZEROS(fd, 10000, 110000);
	PATTERN(fd, 110000, 200000);
	NEED(fallocate(fd, mode, 190000, 1 << 20));
	IS(size_of(fd), 200000);
	ZEROS(fd, 190000, 200000);
	struct stat status;
	NEED(fsync(fd));
	NEED(fstat(fd, &status));
	IS(status.st_blocks < 200000 / 512, true);
	FAILS(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4096), EOPNOTSUPP);
}

static void zeroed(void)
{
	int fd = make_sparse();
	need_mode(fd, FALLOC_FL_ZERO_RANGE, "ZERO_RANGE");
	put(fd, 0, 100000);
	NEED(fallocate(fd, FALLOC_FL_ZERO_RANGE, 5000, 50000));
	PATTERN(fd, 0, 5000);
	ZEROS(fd, 5000, 55000);
	PATTERN(fd, 55000, 100000);
	NEED(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 90000, 50000));
	IS(size_of(fd), 100000);
	ZEROS(fd, 90000, 100000);
	NEED(fallocate(fd, FALLOC_FL_ZERO_RANGE, 95000, 50000));
	IS(size_of(fd), 145000);
	ZEROS(fd, 90000, 145000);
}

/* Past what 32 bits count. */
static void big(void)
{
	int fd = make_sparse();
	static const uint64_t edges[] = { UINT64_C(1) << 31, UINT64_C(1) << 32 };
	for (size_t i = 0; i < 2; i++)
		put(fd, edges[i] - 5000, edges[i] + 5000);
	put(fd, options.big, options.big + 100);
	IS(size_of(fd), options.big + 100);
	IS(status_of("file").st_size, options.big + 100);
	for (size_t i = 0; i < 2; i++) {
		ZEROS(fd, edges[i] - 10000, edges[i] - 5000);
		PATTERN(fd, edges[i] - 5000, edges[i] + 5000);
		ZEROS(fd, edges[i] + 5000, edges[i] + 10000);
	}
	PATTERN(fd, options.big, options.big + 100);
	IS(lseek(fd, 0, SEEK_END), options.big + 100);
	/* Not there for anybody who forgets the upper half. */
	ZEROS(fd, (uint32_t)options.big, (uint32_t)options.big + 100);
	int append = (int)NEED(open("file", O_WRONLY | O_APPEND));
	IS(write(append, "end", 3), 3);
	IS(size_of(fd), options.big + 103);
	NEED(ftruncate(fd, (off_t)(UINT64_C(1) << 32) + 1));
	IS(size_of(fd), (UINT64_C(1) << 32) + 1);
	PATTERN(fd, UINT64_C(1) << 32, (UINT64_C(1) << 32) + 1);
}

static const struct check checks[] = {
	{ "gaps", gaps },
	{ "truncate", truncation },
	{ "truncate-refused", truncation_refused },
	{ "seek-holes", seek_holes },
	{ "blocks", blocks },
	{ "fallocate", allocation },
	{ "fallocate-keep-size", allocation_keeps_size },
	{ "punch-hole", punched },
	{ "zero-range", zeroed },
	{ "big", big },
	{ 0 },
};
const struct check_group sparse_group = { "sparse", checks };
