/* MOUNT: what the host gave the machine, put where the host says. */
#include "agent/protocol.h"
#include "init.h"
#include "requests.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DISK_WAIT_MS 2000

/* The body, decoded.  Everything points into it. */
struct request {
	const char *type, *source, *target, *name, *options;
	uint32_t flags;
};

static bool decode(struct request *request, struct sm_wire *body)
{
	request->type = sm_wire_string(body);
	request->source = sm_wire_string(body);
	request->target = sm_wire_string(body);
	request->name = sm_wire_string(body);
	request->flags = sm_wire_u32(body);
	request->options = sm_wire_string(body);
	return sm_wire_ended(body) && request->type[0] && request->source[0] &&
	       !(request->flags & ~SM_AGENT_MOUNT_FLAGS);
}

static unsigned long flags_of(const struct request *request)
{
	return request->flags & SM_AGENT_MOUNT_READONLY ? MS_RDONLY : 0;
}

static int mount_whole(const struct request *request, const char *where, struct sm_failure *failure)
{
	if (mount(request->source, where, request->type, flags_of(request),
	          request->options[0] ? request->options : NULL) == 0)
		return 0;
	return sm_fail_errno(failure, "mount %s '%.64s' on %.128s", request->type, request->source, request->target);
}

/* A file to be covered: one is made where there is none. */
static int make_file(const char *path, struct sm_failure *failure)
{
	char folder[PATH_MAX];
	snprintf(folder, sizeof folder, "%s", path);
	*strrchr(folder, '/') = 0;
	if (sm_mounts_folders(folder, failure) < 0)
		return -1;
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0 && errno != EEXIST)
		return sm_fail_errno(failure, "make file %.128s", path);
	if (fd >= 0)
		close(fd);
	return 0;
}

/* The file system is mounted out of the way, its one file is bound, and what is out of the way goes: the bound file
 * keeps what it is on. */
static int mount_file(const struct request *request, struct sm_failure *failure)
{
	char place[] = "/run/supermachine.XXXXXX", from[sizeof place + NAME_MAX + 1];
	if (make_file(request->target, failure) < 0)
		return -1;
	if (!mkdtemp(place))
		return sm_fail_errno(failure, "make a folder in /run");
	int code = mount_whole(request, place, failure);
	if (code == 0) {
		snprintf(from, sizeof from, "%s/%s", place, request->name);
		if (mount(from, request->target, NULL, MS_BIND, NULL) < 0)
			code = sm_fail_errno(failure, "bind '%.64s' on %.128s", request->name, request->target);
		/* The flags of the first are not the second's. */
		else if (flags_of(request) &&
		         mount(NULL, request->target, NULL, MS_REMOUNT | MS_BIND | flags_of(request), NULL) < 0)
			code = sm_fail_errno(failure, "make %.128s read-only", request->target);
		(void)umount2(place, MNT_DETACH);
	}
	(void)rmdir(place);
	return code;
}

/* The kernel hears of what is put behind a disk's slot by an interrupt, and sets its size at a moment of its own, of
 * which nobody is told. */
static void await_disk(const char *path)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	unsigned long long bytes = 0;
	for (unsigned i = 0; i < DISK_WAIT_MS && bytes == 0; i++) {
		int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes) < 0)
			i = DISK_WAIT_MS; /* no disk: mount says so */
		if (fd >= 0)
			close(fd);
		if (bytes == 0)
			(void)nanosleep(&pause, NULL);
	}
}

static int attach(const struct request *request, struct sm_failure *failure)
{
	const size_t len = strlen(request->target);
	if (request->target[0] != '/' || len >= PATH_MAX || strlen(request->name) > NAME_MAX ||
	    strchr(request->name, '/') || (request->name[0] && request->target[len - 1] == '/')) {
		errno = EINVAL;
		return sm_fail_errno(failure, "mount '%.64s' on '%.128s'", request->source, request->target);
	}
	if (request->name[0])
		return mount_file(request, failure);
	if (sm_mounts_folders(request->target, failure) < 0)
		return -1;
	if (request->source[0] == '/')
		await_disk(request->source);
	return mount_whole(request, request->target, failure);
}

void sm_attach_open(struct sm_conn *conn, struct sm_wire *body)
{
	struct request request;
	struct sm_failure failure = { .code = 0 };
	if (!decode(&request, body)) {
		sm_conn_fail(conn, EBADMSG, "malformed MOUNT request");
	} else if (!conn->agent->machine) {
		sm_conn_fail(conn, EPERM, "mount: this agent is not a machine's init");
	} else if (attach(&request, &failure) < 0) {
		sm_conn_fail(conn, failure.code, "%s", failure.message);
	} else {
		sm_conn_send(conn, SM_AGENT_OK, NULL, 0);
		sm_conn_finish(conn);
	}
}
