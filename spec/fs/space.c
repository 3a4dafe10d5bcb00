/* How much there is, and what happens when there is no more. */
#include "posix.h"

#include <sys/statvfs.h>

static void numbers(void)
{
	struct statvfs status, by_fd;
	NEED(statvfs(".", &status));
	IS(status.f_frsize >= 512, true);
	IS(status.f_blocks >= status.f_bfree, true);
	IS(status.f_bfree >= status.f_bavail, true);
	IS(status.f_namemax, 255);
	make_file("file", "x");
	NEED(fstatvfs((int)NEED(open("file", O_RDONLY)), &by_fd));
	IS(by_fd.f_blocks, status.f_blocks);
	IS(by_fd.f_frsize, status.f_frsize);
}

static uint64_t available(void)
{
	struct statvfs status;
	NEED(statvfs(".", &status));
	return (uint64_t)status.f_bavail * status.f_frsize;
}

/* Bytes until the error, which is returned. */
static int fill(int fd, uint64_t *ret_bytes)
{
	static uint8_t block[65536];
	uint64_t at = 0;
	for (;;) {
		for (size_t i = 0; i < sizeof block; i++)
			block[i] = pattern(at + i);
		ssize_t bytes = pwrite(fd, block, sizeof block, (off_t)at);
		if (bytes < 0 || at > 4 * options.full) {
			*ret_bytes = at;
			return bytes < 0 ? errno : 0;
		}
		at += (uint64_t)bytes;
	}
}

static void need_small(void)
{
	uint64_t bytes = available();
	if (bytes > options.full)
		CANNOT("%ju MiB are free here: only a file system with no more than %ju is filled (--full)",
		       (uintmax_t)bytes >> 20, (uintmax_t)options.full >> 20);
}

static void used_up(void)
{
	need_small();
	uint64_t before = available(), bytes;
	make_file("other", "untouched");
	int fd = (int)NEED(open("file", O_RDWR | O_CREAT, 0644));
	int error = fill(fd, &bytes);
	if (error == 0) {
		error = fsync(fd) < 0 ? errno : 0;
		STOP("write: expected No space left on device, got %ju MiB in (fsync: %s)", (uintmax_t)bytes >> 20,
		     strerror(error));
	}
	IS(error, ENOSPC);
	IS(bytes > before / 2, true);
	/* What was taken is there, and the rest as it was. */
	PATTERN(fd, 0, bytes < 1 << 20 ? bytes : 1 << 20);
	PATTERN(fd, bytes - 65536, bytes);
	TEXT("other", "untouched");
	IS(available() < before / 8, true);
	NEED(ftruncate(fd, 0));
	NEED(close(fd));
	NEED(unlink("file"));
	make_bytes("again", (size_t)(before / 4));
	fd = (int)NEED(open("again", O_RDONLY));
	PATTERN(fd, 0, before / 4);
}

static void allocated(void)
{
	need_small();
	int fd = (int)NEED(open("file", O_RDWR | O_CREAT, 0644));
	int result = fallocate(fd, 0, 0, (off_t)(available() * 4));
	if (result < 0 && errno == EOPNOTSUPP)
		CANNOT("no fallocate on this file system");
	FAILS((errno = ENOSPC, result), ENOSPC);
	NEED(ftruncate(fd, 0));
	/* A hole takes nothing. */
	IS(ftruncate(fd, (off_t)(available() * 2)), 0);
	ZEROS(fd, 0, 65536);
}

static const struct check checks[] = {
	{ "numbers", numbers },
	{ "used-up", used_up },
	{ "fallocate", allocated },
	{ 0 },
};
const struct check_group space_group = { "space", checks };
