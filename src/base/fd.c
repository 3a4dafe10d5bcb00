#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

void sm_fd_close(int *fd)
{
	if (*fd >= 0) {
		int saved = errno;
		close(*fd);
		errno = saved;
	}
	*fd = -1;
}

int sm_fd_dup(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return copy < 0 ? -errno : copy;
}

int sm_fd_nonblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

/* After a failed transfer: 0 when it is to be tried again (once a non-blocking descriptor is ready), or -errno. */
static int retry(int fd, short events)
{
	if (errno == EINTR)
		return 0;
	if (errno != EAGAIN)
		return -errno;
	int ready = sm_fd_wait(fd, events, -1);
	return ready < 0 ? ready : 0;
}

int sm_fd_read_full(int fd, void *data, size_t len)
{
	for (uint8_t *at = data; len;) {
		ssize_t got = read(fd, at, len);
		if (got == 0)
			return -ENODATA;
		if (got < 0) {
			int code = retry(fd, POLLIN);
			if (code < 0)
				return code;
			continue;
		}
		at += got;
		len -= (size_t)got;
	}
	return 0;
}

/* A closed peer must be an error here, not a SIGPIPE in a process whose signals are not ours. */
static ssize_t write_some(int fd, const void *data, size_t len)
{
	ssize_t sent = send(fd, data, len, MSG_NOSIGNAL);
	return sent < 0 && errno == ENOTSOCK ? write(fd, data, len) : sent;
}

int sm_fd_write_full(int fd, const void *data, size_t len)
{
	for (const uint8_t *at = data; len;) {
		ssize_t sent = write_some(fd, at, len);
		if (sent == 0)
			return -EPIPE;
		if (sent < 0) {
			int code = retry(fd, POLLOUT);
			if (code < 0)
				return code;
			continue;
		}
		at += sent;
		len -= (size_t)sent;
	}
	return 0;
}

int sm_fd_pread_full(int fd, void *data, size_t len, uint64_t offset)
{
	for (uint8_t *at = data; len;) {
		ssize_t got = pread(fd, at, len, (off_t)offset);
		if (got == 0)
			return -ENODATA;
		if (got < 0) {
			if (errno != EINTR)
				return -errno;
			continue;
		}
		at += got;
		offset += (uint64_t)got;
		len -= (size_t)got;
	}
	return 0;
}

int sm_fd_pwrite_full(int fd, const void *data, size_t len, uint64_t offset)
{
	for (const uint8_t *at = data; len;) {
		ssize_t sent = pwrite(fd, at, len, (off_t)offset);
		if (sent == 0)
			return -EPIPE;
		if (sent < 0) {
			if (errno != EINTR)
				return -errno;
			continue;
		}
		at += sent;
		offset += (uint64_t)sent;
		len -= (size_t)sent;
	}
	return 0;
}

int sm_fd_event(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

void sm_fd_event_raise(int fd)
{
	const uint64_t one = 1;
	/* EAGAIN means that the count is full: the event is raised already. */
	while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
		;
}

static void count_edge(void *arg, unsigned irq)
{
	(void)irq;
	sm_fd_event_raise((int)(intptr_t)arg);
}

struct sm_line sm_fd_event_line(int fd)
{
	return (struct sm_line){ .raise = count_edge, .arg = (void *)(intptr_t)fd };
}

uint64_t sm_fd_event_take(int fd)
{
	uint64_t count = 0;
	ssize_t got;
	while ((got = read(fd, &count, sizeof count)) < 0 && errno == EINTR)
		;
	return got == (ssize_t)sizeof count ? count : 0;
}

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int sm_fd_wait(int fd, short events, int timeout_ms)
{
	int64_t deadline = timeout_ms < 0 ? 0 : now_ms() + timeout_ms;
	struct pollfd pollfd = { .fd = fd, .events = events };
	for (;;) {
		int ready = poll(&pollfd, 1, timeout_ms);
		if (ready > 0)
			return pollfd.revents & POLLNVAL ? -EBADF : pollfd.revents;
		if (ready == 0)
			return 0;
		if (errno != EINTR)
			return -errno;
		if (timeout_ms > 0) {
			int64_t left = deadline - now_ms();
			timeout_ms = left > 0 ? (int)left : 0;
		}
	}
}

union pass_control {
	struct cmsghdr align;
	char space[CMSG_SPACE(sizeof(int) * SM_FD_PASS_MAX)];
};

ssize_t sm_fd_send(int sock, const void *data, size_t len, const int *fds, size_t nfds)
{
	if (nfds > SM_FD_PASS_MAX)
		return -EINVAL;
	union pass_control control;
	memset(&control, 0, sizeof control);
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	if (nfds) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(header), fds, sizeof(int) * nfds);
	}
	ssize_t sent;
	while ((sent = sendmsg(sock, &msg, MSG_NOSIGNAL)) < 0 && errno == EINTR)
		;
	return sent < 0 ? -errno : sent;
}

/* Every descriptor the kernel installed is taken over, so that none leaks whatever the message looks like. */
static size_t take_fds(struct msghdr *msg, int *ret_fds)
{
	size_t total = 0;
	for (struct cmsghdr *header = CMSG_FIRSTHDR(msg); header; header = CMSG_NXTHDR(msg, header)) {
		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
			if (total < SM_FD_PASS_MAX)
				ret_fds[total++] = fd;
			else
				close(fd);
		}
	}
	return total;
}

ssize_t sm_fd_recv(int sock, void *data, size_t max, int *ret_fds, size_t *ret_nfds)
{
	union pass_control control;
	struct iovec iov = { .iov_base = data, .iov_len = max };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control
	};
	*ret_nfds = 0;
	ssize_t got;
	while ((got = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
		;
	if (got < 0)
		return -errno;
	*ret_nfds = take_fds(&msg, ret_fds);
	if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		while (*ret_nfds)
			sm_fd_close(&ret_fds[--*ret_nfds]);
		return -EMSGSIZE;
	}
	return got;
}
