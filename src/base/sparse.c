#include "base/sparse.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define CHUNK (1u << 20)

static int copy_by_hand(int from, int to, uint64_t offset, uint64_t bytes)
{
	uint8_t *chunk = malloc(CHUNK);
	int code = chunk ? 0 : -ENOMEM;
	while (bytes && code >= 0) {
		size_t len = bytes < CHUNK ? (size_t)bytes : CHUNK;
		code = sm_fd_pread_full(from, chunk, len, offset);
		if (code >= 0)
			code = sm_fd_pwrite_full(to, chunk, len, offset);
		offset += len;
		bytes -= len;
	}
	free(chunk);
	return code < 0 ? code : 0;
}

static int copy_run(int from, int to, uint64_t offset, uint64_t bytes)
{
	off_t in = (off_t)offset, out = (off_t)offset;
	while (bytes) {
		ssize_t done = copy_file_range(from, &in, to, &out, bytes, 0);
		if (done < 0 && errno == EINTR)
			continue;
		/* Not between these two, or not at all: so it says in many ways, which depend on the kernel. */
		if (done < 0 &&
		    (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP || errno == EBADF))
			return copy_by_hand(from, to, (uint64_t)in, bytes);
		if (done < 0)
			return -errno;
		if (done == 0)
			return -ENODATA;
		bytes -= (uint64_t)done;
	}
	return 0;
}

/* The next run of data in [*offset, end).  False: there is none, *code says whether that is a failure. */
static bool next_data(int fd, uint64_t *offset, uint64_t end, uint64_t *ret_until, int *code)
{
	*code = 0;
	if (*offset >= end)
		return false;
	off_t start = lseek(fd, (off_t)*offset, SEEK_DATA);
	if (start < 0) {
		*code = errno == ENXIO ? 0 : -errno;
		return false;
	}
	if ((uint64_t)start >= end)
		return false;
	off_t hole = lseek(fd, start, SEEK_HOLE);
	if (hole < 0) {
		*code = -errno;
		return false;
	}
	*offset = (uint64_t)start;
	*ret_until = (uint64_t)hole < end ? (uint64_t)hole : end;
	return true;
}

int sm_sparse_copy(int from, int to, uint64_t offset, uint64_t end, uint64_t *data_bytes)
{
	int code;
	for (uint64_t until; next_data(from, &offset, end, &until, &code); offset = until) {
		code = copy_run(from, to, offset, until - offset);
		if (code < 0)
			return code;
		if (data_bytes)
			*data_bytes += until - offset;
	}
	return code;
}

bool sm_sparse_clone(int from, int to)
{
	return ioctl(to, FICLONE, from) == 0;
}

int sm_sparse_punch(int fd, uint64_t offset, uint64_t bytes)
{
	while (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}
