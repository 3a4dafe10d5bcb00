/* File descriptors: ownership by attribute, whole reads and writes, passing over a socket. */
#ifndef SM_BASE_FD_H
#define SM_BASE_FD_H

#include "base/error.h"
#include "base/line.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SM_FD_CLEANUP  __attribute__((cleanup(sm_fd_close)))
#define SM_FD_PASS_MAX 253 /* most descriptors one message carries: SCM_MAX_FD, unix(7) */

/* Close *fd if it is not negative, set it to -1, keep errno. */
void sm_fd_close(int *fd);

/* Move the descriptor out of a guarded variable. */
static inline int sm_fd_take(int *fd)
{
	int taken = *fd;
	*fd = -1;
	return taken;
}

/* dup with close-on-exec; -errno on failure. */
int sm_fd_dup(int fd);
int sm_fd_nonblock(int fd);

/* Whole transfers; EINTR is retried.  0 on success, -errno, or -EPIPE/-ENODATA on an early end of file. */
int sm_fd_read_full(int fd, void *data, size_t len);
int sm_fd_write_full(int fd, const void *data, size_t len);
int sm_fd_pread_full(int fd, void *data, size_t len, uint64_t offset);
int sm_fd_pwrite_full(int fd, const void *data, size_t len, uint64_t offset);

/* eventfd helpers: a non-blocking close-on-exec eventfd (or -errno); add 1; take the count (0: none). */
int sm_fd_event(void);
void sm_fd_event_raise(int fd);
uint64_t sm_fd_event_take(int fd);
/* A line whose edges are counted by an eventfd (borrowed). */
struct sm_line sm_fd_event_line(int fd);

/* Wait until fd has any of `events` (poll(2)).  timeout_ms < 0: no limit.
 * Returns the events seen, 0 on timeout, or -errno. */
int sm_fd_wait(int fd, short events, int timeout_ms);

/* One message with up to SM_FD_PASS_MAX descriptors over a SOCK_SEQPACKET or SOCK_STREAM socket.
 * recv: *ret_nfds descriptors, owned by the caller, close-on-exec.  Returns bytes (0: end of file) or -errno. */
ssize_t sm_fd_send(int sock, const void *data, size_t len, const int *fds, size_t nfds);
ssize_t sm_fd_recv(int sock, void *data, size_t max, int *ret_fds, size_t *ret_nfds);

#endif
