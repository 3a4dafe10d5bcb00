/* READ_FILE and WRITE_FILE. */
#include "agent/protocol.h"
#include "requests.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

struct file {
	int fd;
	uint64_t max, done; /* bytes */
	mode_t mode;
	char path[PATH_MAX];
	char temporary[PATH_MAX]; /* empty: none */
};

static void over(struct sm_conn *conn)
{
	struct file *file = conn->request;
	if (file->fd >= 0)
		close(file->fd);
	if (file->temporary[0])
		unlink(file->temporary);
	free(file);
}

static struct file *file_new(struct sm_conn *conn, const char *path)
{
	if (path[0] != '/' || strlen(path) >= PATH_MAX) {
		sm_conn_fail(conn, path[0] == '/' ? ENAMETOOLONG : EINVAL, "file '%.256s': not an absolute path", path);
		return NULL;
	}
	struct file *file = calloc(1, sizeof *file);
	if (!file) {
		sm_conn_fail(conn, ENOMEM, "file '%.256s': %s", path, strerror(ENOMEM));
		return NULL;
	}
	file->fd = -1;
	memcpy(file->path, path, strlen(path) + 1);
	return file;
}

static void fail(struct sm_conn *conn, int code, const char *what)
{
	/* Copied: the failure ends the request, and with it what it names. */
	char path[257];
	snprintf(path, sizeof path, "%.256s", ((const struct file *)conn->request)->path);
	sm_conn_fail(conn, code, "%s '%s': %s", what, path, strerror(code < 0 ? -code : code));
}

static void send_end(struct sm_conn *conn, const struct file *file)
{
	struct stat status;
	uint8_t payload[20];
	if (fstat(file->fd, &status) < 0) {
		fail(conn, errno, "read");
		return;
	}
	uint8_t *at = sm_wire_put_u64(payload, file->done);
	at = sm_wire_put_u32(at, status.st_mode & 07777);
	at = sm_wire_put_u32(at, status.st_uid);
	sm_wire_put_u32(at, status.st_gid);
	sm_conn_send(conn, SM_AGENT_FILE_END, payload, sizeof payload);
	sm_conn_finish(conn);
}

static void read_room(struct sm_conn *conn)
{
	struct file *file = conn->request;
	size_t max;
	uint8_t *place;
	/* Until the queue is full; a socket as quick as the disk is given up now and then, for the others. */
	for (unsigned i = 0; (place = sm_conn_room(conn, &max)); i++) {
		ssize_t got = read(file->fd, place, max);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			fail(conn, errno, "read");
			return;
		}
		if (got == 0) {
			send_end(conn, file);
			return;
		}
		file->done += (size_t)got;
		if (file->done > file->max) {
			fail(conn, EFBIG, "read");
			return;
		}
		sm_conn_commit(conn, SM_AGENT_DATA, (size_t)got);
		if (conn->broken)
			return;
	}
}

static void read_frame(struct sm_conn *conn, unsigned type, uint8_t *payload, size_t len)
{
	(void)payload;
	(void)len;
	sm_conn_unexpected(conn, type);
}

void sm_files_open_read(struct sm_conn *conn, struct sm_wire *body)
{
	static const struct sm_conn_ops ops = { .frame = read_frame, .room = read_room, .over = over };
	const char *path = sm_wire_string(body);
	uint64_t max = sm_wire_u64(body);
	if (!sm_wire_ended(body)) {
		sm_conn_fail(conn, EBADMSG, "malformed READ_FILE request");
		return;
	}
	struct file *file = file_new(conn, path);
	if (!file)
		return;
	conn->request = file;
	conn->ops = &ops;
	file->max = max;
	/* O_NONBLOCK: a FIFO may not stop the agent. */
	file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat status;
	if (file->fd < 0 || fstat(file->fd, &status) < 0)
		fail(conn, errno, "read");
	else if (!S_ISREG(status.st_mode))
		fail(conn, S_ISDIR(status.st_mode) ? EISDIR : EINVAL, "read");
	else if ((uint64_t)status.st_size > max)
		fail(conn, EFBIG, "read");
	else
		read_room(conn);
}

static void place_file(struct sm_conn *conn, struct file *file)
{
	if (fchmod(file->fd, file->mode) < 0 || rename(file->temporary, file->path) < 0) {
		fail(conn, errno, "write");
		return;
	}
	file->temporary[0] = 0;
	sm_conn_send(conn, SM_AGENT_OK, NULL, 0);
	sm_conn_finish(conn);
}

static void write_frame(struct sm_conn *conn, unsigned type, uint8_t *payload, size_t len)
{
	struct file *file = conn->request;
	if (type == SM_AGENT_DATA_END && len == 0) {
		place_file(conn, file);
		return;
	}
	if (type != SM_AGENT_DATA) {
		sm_conn_unexpected(conn, type);
		return;
	}
	while (len) {
		ssize_t put = write(file->fd, payload, len);
		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0) {
			fail(conn, put < 0 ? errno : EIO, "write");
			return;
		}
		payload += put;
		len -= (size_t)put;
	}
}

static int open_temporary(struct file *file)
{
	for (int tries = 0; tries < 100; tries++) {
		uint32_t random;
		if (getrandom(&random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random)
			random = (uint32_t)sm_epoll_now_us();
		int len = snprintf(file->temporary, sizeof file->temporary, "%s.tmp.%08x", file->path, random);
		if ((size_t)len >= sizeof file->temporary) {
			file->temporary[0] = 0;
			return -ENAMETOOLONG;
		}
		file->fd = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (file->fd >= 0)
			return 0;
		if (errno != EEXIST)
			break;
	}
	int code = -errno;
	file->temporary[0] = 0;
	return code;
}

void sm_files_open_write(struct sm_conn *conn, struct sm_wire *body)
{
	static const struct sm_conn_ops ops = { .frame = write_frame, .over = over };
	const char *path = sm_wire_string(body);
	uint32_t mode = sm_wire_u32(body);
	if (!sm_wire_ended(body) || (mode & ~07777u)) {
		sm_conn_fail(conn, EBADMSG, "malformed WRITE_FILE request");
		return;
	}
	struct file *file = file_new(conn, path);
	if (!file)
		return;
	conn->request = file;
	conn->ops = &ops;
	file->mode = mode;
	int code = open_temporary(file);
	if (code < 0)
		fail(conn, code, "write");
	else
		sm_conn_send(conn, SM_AGENT_OK, NULL, 0);
}
