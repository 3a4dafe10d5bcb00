/* Bytes in and out: every size and place, vectors, copies within the kernel, syncing, direct I/O. */
#include "posix.h"

#include <sys/sendfile.h>
#include <sys/uio.h>

/* Against a copy in memory: writes and reads of every size at every place, from one of two descriptors. */
static void random_places(void)
{
	enum { BYTES = 300000 };
	uint8_t *expected = calloc(1, BYTES), *got = malloc(BYTES);
	int fds[2] = { (int)NEED(open("file", O_RDWR | O_CREAT, 0644)), (int)NEED(open("file", O_RDWR)) };
	uint64_t seed = 42;
	size_t size = 0;
	for (unsigned i = 0; i < options.rounds * 5; i++) {
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
		size_t from = (seed >> 33) % BYTES, length = 1 + (seed >> 20) % (i % 5 ? 5000 : 100000);
		if (from + length > BYTES)
			length = BYTES - from;
		if (i % 7 == 6) {
			size = from;
			memset(expected + size, 0, BYTES - size);
			NEED(ftruncate(fds[i & 1], (off_t)size));
		} else if (i % 3) {
			for (size_t j = from; j < from + length; j++)
				expected[j] = pattern(j + i);
			IS(pwrite(fds[i & 1], expected + from, length, (off_t)from), length);
			size = from + length > size ? from + length : size;
		}
		length = from >= size ? 0 : from + length > size ? size - from : length;
		IS(pread(fds[~i & 1], got, length, (off_t)from), length);
		if (memcmp(got, expected + from, length))
			STOP("round %u: expected what was written at %zu to %zu, got else", i, from, from + length);
	}
	IS(pread(fds[0], got, BYTES, 0), size);
	IS(memcmp(got, expected, size), 0);
	IS(status_of("file").st_size, size);
}

static void large_calls(void)
{
	enum { BYTES = 5 << 20 };
	uint8_t *block = malloc(BYTES);
	for (size_t i = 0; i < BYTES; i++)
		block[i] = pattern(i);
	int fd = (int)NEED(open("file", O_RDWR | O_CREAT, 0644));
	IS(write(fd, block, BYTES), BYTES);
	memset(block, 0, BYTES);
	IS(pread(fd, block, BYTES, 0), BYTES);
	for (size_t i = 0; i < BYTES; i++)
		if (block[i] != pattern(i))
			STOP("byte %zu: expected %#x, got %#x", i, pattern(i), block[i]);
	IS(pread(fd, block, BYTES, BYTES - 10), 10);
}

static void vectors(void)
{
	char a[] = "one", b[] = "", c[] = "three";
	struct iovec out[] = { { a, 3 }, { b, 0 }, { c, 5 } };
	int fd = (int)NEED(open("file", O_RDWR | O_CREAT, 0644));
	IS(writev(fd, out, 3), 8);
	IS(pwritev(fd, out, 3, 100), 8);
	char first[5] = "", second[50] = "";
	struct iovec in[] = { { first, 4 }, { second, sizeof second } };
	IS(preadv(fd, in, 2, 100), 8);
	IS(strcmp(first, "onet"), 0);
	IS(strcmp(second, "hree"), 0);
	FAILS(preadv(fd, in, 2, -1), EINVAL);
	IS(status_of("file").st_size, 108);
}

/* Memory that cannot be read: what could be written counts, or it is EFAULT; the file has nothing else. */
static void bad_memory(void)
{
	int fd = (int)NEED(open("file", O_RDWR | O_CREAT, 0644));
	volatile uintptr_t nowhere = 16;
	FAILS(write(fd, (void *)nowhere, 100), EFAULT);
	IS(status_of("file").st_size, 0);
	IS(write(fd, "text", 4), 4);
	FAILS(pread(fd, (void *)nowhere, 4, 0), EFAULT);
	TEXT("file", "text");
}

static void copies(void)
{
	make_bytes("from", 200000);
	int from = (int)NEED(open("from", O_RDONLY)), to = (int)NEED(open("to", O_RDWR | O_CREAT, 0644));
	off_t in = 1000, out = 1000;
	while (in < 150000) {
		ssize_t copied = copy_file_range(from, &in, to, &out, (size_t)(150000 - in), 0);
		if (copied < 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
			CANNOT("no copy_file_range here");
		if (NEED(copied) == 0)
			STOP("copy_file_range: expected 150000 bytes, got the end");
	}
	IS(out, 150000);
	IS(status_of("to").st_size, 150000);
	ZEROS(to, 0, 1000);
	PATTERN(to, 1000, 150000);
	in = 300000;
	IS(copy_file_range(from, &in, to, &out, 100, 0), 0);
	/* Within a file, and not over itself. */
	in = 1000;
	out = 300000;
	IS(copy_file_range(to, &in, to, &out, 500, 0), 500);
	IS(status_of("to").st_size, 300500);
	in = 0;
	out = 10;
	FAILS(copy_file_range(to, &in, to, &out, 100, 0), EINVAL);
	FAILS(copy_file_range(to, NULL, from, NULL, 100, 0), EBADF);
	/* By the descriptors' own places. */
	NEED(lseek(to, 0, SEEK_SET));
	IS(copy_file_range(from, NULL, to, NULL, 1000, 0), 1000);
	IS(lseek(to, 0, SEEK_CUR), 1000);
	PATTERN(to, 0, 1000);
}

static void sent(void)
{
	make_bytes("from", 200000);
	int from = (int)NEED(open("from", O_RDONLY)), to = (int)NEED(open("to", O_RDWR | O_CREAT, 0644));
	for (off_t at = 0; at < 200000;)
		if (NEED(sendfile(to, from, &at, 200000)) == 0)
			STOP("sendfile: expected 200000 bytes, got the end at %jd", (intmax_t)at);
	PATTERN(to, 0, 200000);
	int pipe_ends[2];
	NEED(pipe(pipe_ends));
	off_t at = 100;
	IS(splice(from, &at, pipe_ends[1], NULL, 1000, 0) > 0, true);
	uint8_t byte = 0;
	IS(read(pipe_ends[0], &byte, 1), 1);
	IS(byte, pattern(100));
}

static void synced(void)
{
	make_bytes("file", 100000);
	int fd = (int)NEED(open("file", O_RDWR)), folder = (int)NEED(open(".", O_RDONLY | O_DIRECTORY));
	IS(pwrite(fd, "x", 1, 0), 1);
	IS(fsync(fd), 0);
	IS(fdatasync(fd), 0);
	IS(fsync(folder), 0);
	IS(syncfs(fd), 0);
	IS(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE), 0);
	int through = (int)NEED(open("file", O_WRONLY | O_DSYNC));
	IS(pwrite(through, "y", 1, 1), 1);
	char text[3] = "";
	IS(pread(fd, text, 2, 0), 2);
	IS(strcmp(text, "xy"), 0);
	IS(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	IS(pread(fd, text, 2, 0), 2);
	IS(strcmp(text, "xy"), 0);
	PATTERN(fd, 2, 100000);
}

static void direct(void)
{
	enum { BYTES = 64 << 10 };
	uint8_t *block = aligned_alloc(4096, BYTES);
	make_bytes("file", BYTES + 100);
	int fd = open("file", O_RDWR | O_DIRECT);
	if (fd < 0 && errno == EINVAL)
		CANNOT("no O_DIRECT on this file system");
	NEED(fd);
	int cached = (int)NEED(open("file", O_RDWR));
	PATTERN(cached, 0, BYTES + 100);
	IS(pread(fd, block, BYTES, 0), BYTES);
	IS(block[BYTES - 1], pattern(BYTES - 1));
	IS(pread(fd, block, BYTES, BYTES), 100);
	memset(block, 7, BYTES);
	IS(pwrite(fd, block, 4096, 8192), 4096);
	uint8_t byte = 0;
	IS(pread(cached, &byte, 1, 8192), 1);
	IS(byte, 7);
	IS(pwrite(cached, "c", 1, 0), 1);
	IS(pread(fd, block, 4096, 0), 4096);
	IS(block[0], 'c');
	PATTERN(cached, 1, 8192);
	PATTERN(cached, 12288, BYTES + 100);
}

static const struct check checks[] = {
	{ "random-places", random_places },
	{ "large-calls", large_calls },
	{ "vectors", vectors },
	{ "bad-memory", bad_memory },
	{ "copy-file-range", copies },
	{ "sendfile", sent },
	{ "synced", synced },
	{ "direct", direct },
	{ 0 },
};
const struct check_group data_group = { "data", checks };
