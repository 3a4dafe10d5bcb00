/* kernel HOST MOUNTPOINT OPTIONS THREADS COMMAND..: mount the file server by /dev/fuse, with Linux's own driver on the
 * other side, in a mount namespace of its own, and run the command there.  OPTIONS: words of "strict", "auto",
 * "always", "writeback", "readonly", "passthrough", "few" (descriptors), "flock" (locks of the host), "save" (the
 * session is moved to another server again and again meanwhile).  Prints the statistics to stderr; exits as the command
 * does. */
#include "base/buf.h"
#include "fuse/fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#define BUFFER (2u << 20)

static int device;
static struct sm_mount mount_plan;
static struct sm_fuse *server;
static pthread_rwlock_t moving = PTHREAD_RWLOCK_INITIALIZER; /* serving: shared; the server is replaced: alone */
static volatile sig_atomic_t ended;

static void fail(const char *what)
{
	fprintf(stderr, "kernel: %s: %s\n", what, strerror(errno));
	exit(125);
}

/* A reply that came later. */
static void later(void *arg, void *cookie, const void *reply, size_t len)
{
	(void)arg;
	(void)cookie;
	if (write(device, reply, len) < 0 && errno != ENOENT)
		fprintf(stderr, "kernel: late reply: %s\n", strerror(errno));
}

static struct sm_fuse *make(void)
{
	struct sm_error err;
	struct sm_fuse *fuse;
	if (sm_fuse_new(&mount_plan, NULL, &fuse, &err) < 0) {
		fprintf(stderr, "kernel: %s\n", err.message);
		exit(125);
	}
	sm_fuse_set_later(fuse, later, NULL);
	return fuse;
}

static void *serve(void *arg)
{
	(void)arg;
	char *in = malloc(BUFFER), *out = malloc(BUFFER);
	if (!in || !out)
		fail("memory");
	for (;;) {
		ssize_t len = read(device, in, BUFFER);
		if (len < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
			continue;
		if (len <= 0)
			break; /* unmounted */
		struct iovec ins = { in, (size_t)len }, outs = { out, BUFFER };
		const struct sm_fuse_request request = { .in = &ins, .nin = 1, .out = &outs, .nout = 1, .plain = true };
		pthread_rwlock_rdlock(&moving);
		int64_t result = sm_fuse_serve(server, &request);
		pthread_rwlock_unlock(&moving);
		if (result > 0 && write(device, out, (size_t)result) < 0 && errno != ENOENT)
			fprintf(stderr, "kernel: reply to operation %u: %s\n", ((uint32_t *)in)[1], strerror(errno));
	}
	free(in);
	free(out);
	return NULL;
}

/* Another server goes on with the session. */
static void move(void)
{
	struct sm_buf saved, again;
	struct sm_reader reader;
	struct sm_error err;
	sm_buf_init(&saved, 64u << 20);
	sm_buf_init(&again, 64u << 20);
	pthread_rwlock_wrlock(&moving);
	sm_fuse_save(server, &saved);
	struct sm_fuse *other = make();
	sm_reader_init(&reader, saved.data, saved.len);
	if (saved.failed || sm_fuse_load(other, &reader, &err) < 0) {
		fprintf(stderr, "kernel: move: %s\n", saved.failed ? "too long" : err.message);
		exit(125);
	}
	sm_fuse_save(other, &again);
	if (again.len != saved.len || memcmp(again.data, saved.data, saved.len)) {
		fprintf(stderr, "kernel: saved again it is another\n");
		exit(125);
	}
	sm_fuse_free(server);
	server = other;
	pthread_rwlock_unlock(&moving);
	sm_buf_done(&saved);
	sm_buf_done(&again);
}

static void has_ended(int number)
{
	(void)number;
	ended = 1;
}

int main(int argc, char **argv)
{
	if (argc < 6) {
		fprintf(stderr, "usage: kernel HOST MOUNTPOINT OPTIONS THREADS COMMAND..\n");
		return 125;
	}
	const char *options = argv[3];
	int threads = atoi(argv[4]);
	mount_plan.root_fd = open(argv[1], O_PATH | O_CLOEXEC);
	mount_plan.cache = strstr(options, "always") ? SM_MOUNT_CACHE_ALWAYS
	                   : strstr(options, "auto") ? SM_MOUNT_CACHE_AUTO
	                                             : SM_MOUNT_CACHE_STRICT;
	mount_plan.writeback = strstr(options, "writeback");
	mount_plan.readonly = strstr(options, "readonly");
	mount_plan.host_locks = strstr(options, "flock");
	mount_plan.max_descriptors = strstr(options, "few") ? 16 : 0;
	mount_plan.owners = strstr(options, "passthrough") ? SM_MOUNT_OWNERS_PASSTHROUGH : SM_MOUNT_OWNERS_SQUASH;
	server = make();

	device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (device < 0)
		fail("/dev/fuse");
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		fail("a mount namespace");
	char data[128];
	snprintf(data, sizeof data, "fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
	         device);
	if (mount("supermachine", argv[2], "fuse", MS_NODEV | MS_NOSUID, data) < 0)
		fail("mount");
	pthread_t thread[64];
	for (int i = 0; i < threads && i < 64; i++)
		if (pthread_create(&thread[i], NULL, serve, NULL))
			fail("thread");
	/* No SA_RESTART: it ends the sleep between two moves. */
	const struct sigaction action = { .sa_handler = has_ended };
	sigaction(SIGCHLD, &action, NULL);
	pid_t child = fork();
	if (child == 0) {
		if (chdir(argv[2]) < 0)
			fail(argv[2]);
		execvp(argv[5], argv + 5);
		fail(argv[5]);
	}
	int status = 0;
	while (strstr(options, "save") && !ended) {
		usleep(20000);
		move();
	}
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	/* Linux closes files a little later than programs do. */
	struct sm_fuse_stats stats;
	sm_fuse_stats(server, &stats);
	for (int i = 0; stats.handles && i < 10000; i++) {
		usleep(1000);
		sm_fuse_stats(server, &stats);
	}
	if (umount2(argv[2], MNT_DETACH) < 0)
		fail("unmount");
	for (int i = 0; i < threads && i < 64; i++)
		pthread_join(thread[i], NULL);
	fprintf(stderr, "requests=%llu hostile=%llu stale=%llu evicted=%llu nodes=%llu handles=%llu\n",
	        (unsigned long long)stats.requests, (unsigned long long)stats.hostile, (unsigned long long)stats.stale,
	        (unsigned long long)stats.evicted, (unsigned long long)stats.nodes, (unsigned long long)stats.handles);
	sm_fuse_free(server);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
