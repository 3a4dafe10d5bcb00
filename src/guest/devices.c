#include "epoll.h"
#include "init.h"
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MODULES "/modules/"

static int load_module(const char *name, struct sm_failure *failure)
{
	char path[320];
	snprintf(path, sizeof path, MODULES "%s", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return sm_fail_errno(failure, "open %s", path);
	/* ENODEV: a driver whose hardware is not here. */
	int code = 0;
	if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST && errno != ENODEV)
		code = sm_fail_errno(failure, "load %s", path);
	close(fd);
	unlink(path); /* it would stay in memory for good */
	return code;
}

int sm_devices_load_modules(struct sm_failure *failure)
{
	FILE *list = fopen(MODULES "list", "re");
	if (!list)
		return errno == ENOENT ? 0 : sm_fail_errno(failure, "open " MODULES "list");
	char name[256];
	int code = 0;
	while (code == 0 && fgets(name, sizeof name, list)) {
		name[strcspn(name, "\n")] = 0;
		if (name[0])
			code = load_module(name, failure);
	}
	fclose(list);
	return code;
}

int sm_devices_raise_loopback(struct sm_failure *failure)
{
	struct ifreq request = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return sm_fail_errno(failure, "loopback: socket");
	request.ifr_flags = IFF_UP;
	int code = ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? sm_fail_errno(failure, "loopback: raise") : 0;
	close(fd);
	return code;
}

int sm_devices_wait(const char *path, int timeout_ms, struct sm_failure *failure)
{
	struct sm_sockaddr_nl address = { .family = AF_NETLINK, .groups = 1 };
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, SM_NETLINK_KOBJECT_UEVENT);
	/* Listening before looking: a device that comes in between is announced. */
	if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
		sm_fail_errno(failure, "uevents");
		if (fd >= 0)
			close(fd);
		return -1;
	}
	int64_t deadline = sm_epoll_now_ms() + timeout_ms;
	int code = 0;
	while (access(path, F_OK) < 0) {
		int64_t left = deadline - sm_epoll_now_ms();
		if (left <= 0) {
			code = sm_fail(failure, "device %s did not appear", path);
			break;
		}
		struct pollfd wait = { .fd = fd, .events = POLLIN };
		if (poll(&wait, 1, (int)left) < 0 && errno != EINTR) {
			code = sm_fail_errno(failure, "device %s: poll", path);
			break;
		}
		char event[4096];
		while (recv(fd, event, sizeof event, 0) > 0)
			; /* any event is a reason to look again */
	}
	close(fd);
	return code;
}
