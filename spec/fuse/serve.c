/* serve FOLDER POINT CACHE [writeback|reload]: the file server over FOLDER, by this machine's own kernel: mounted on
 * POINT through /dev/fuse, without a machine in between.  Says `ready', and ends when it is unmounted.  CACHE: strict,
 * auto, always. At SIGUSR1 the session is saved, forgotten and loaded, as when a machine is restored: then it says
 * `loaded'.  With reload that is done before each request. */
#include "fuse/fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#define THREADS 4
#define BYTES   ((1 << 20) + 65536) /* the largest write and its header */

static struct sm_fuse *fuse;
static int device;
static bool reload_each;
static pthread_rwlock_t serving = PTHREAD_RWLOCK_INITIALIZER;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "serve: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* What a machine's restore does between two requests. */
static void reload(void)
{
	SM_BUF_CLEANUP struct sm_buf session;
	struct sm_error error = { 0 };
	struct sm_reader reader;
	sm_buf_init(&session, 64 << 20);
	pthread_rwlock_wrlock(&serving);
	sm_fuse_save(fuse, &session);
	sm_fuse_reset(fuse);
	sm_reader_init(&reader, session.data, session.len);
	if (sm_buf_failed(&session) || sm_fuse_load(fuse, &reader, &error) < 0) {
		fprintf(stderr, "serve: load: %s\n", error.message);
		exit(1);
	}
	pthread_rwlock_unlock(&serving);
}

static void *run(void *unused)
{
	(void)unused;
	char *in = malloc(BYTES), *out = malloc(BYTES);
	if (!in || !out)
		die("no memory");
	for (;;) {
		ssize_t bytes = read(device, in, BYTES);
		if (bytes < 0 && errno == ENODEV)
			break; /* unmounted */
		if (bytes < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
			continue;
		if (bytes < 0)
			die("read /dev/fuse");
		struct iovec from = { in, (size_t)bytes }, to = { out, BYTES };
		struct sm_fuse_request request = { .in = &from, .nin = 1, .out = &to, .nout = 1 };
		if (reload_each)
			reload();
		pthread_rwlock_rdlock(&serving);
		int64_t reply = sm_fuse_serve(fuse, &request);
		pthread_rwlock_unlock(&serving);
		if (reply < 0) {
			errno = (int)-reply;
			die("serve");
		}
		/* ENOENT: who asked has given up. */
		if (reply > 0 && write(device, out, (size_t)reply) < 0 && errno != ENOENT && errno != ENODEV)
			die("write /dev/fuse");
	}
	free(in);
	free(out);
	return NULL;
}

static void *reload_when_told(void *signals)
{
	int number;
	while (sigwait(signals, &number) == 0) {
		reload();
		printf("loaded\n");
		fflush(stdout);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	static const char *const modes[] = { "strict", "auto", "always" };
	struct sm_mount mount_options = {
		.owners = SM_MOUNT_OWNERS_PASSTHROUGH,
	};
	unsigned mode = 0;
	mount_options.writeback = argc == 5 && strcmp(argv[4], "writeback") == 0;
	reload_each = argc == 5 && strcmp(argv[4], "reload") == 0;
	if (argc < 4 || argc > 5 || (argc == 5 && !mount_options.writeback && !reload_each)) {
		fprintf(stderr, "usage: serve FOLDER POINT CACHE [writeback|reload]\n");
		return 2;
	}
	while (mode < 3 && strcmp(argv[3], modes[mode]) != 0)
		mode++;
	mount_options.cache = (enum sm_mount_cache)mode;
	mount_options.root_fd = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (mount_options.root_fd < 0)
		die(argv[1]);
	struct sm_error error = { 0 };
	if (sm_fuse_new(&mount_options, NULL, &fuse, &error) < 0) {
		fprintf(stderr, "serve: %s\n", error.message);
		return 1;
	}
	device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (device < 0)
		die("/dev/fuse");
	char words[128];
	snprintf(words, sizeof words, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
	         device);
	if (mount("supermachine", argv[2], "fuse", 0, words) < 0)
		die("mount");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	static sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	pthread_t threads[THREADS], loader;
	if (pthread_create(&loader, NULL, reload_when_told, &signals) != 0)
		die("a thread");
	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, run, NULL) != 0)
			die("a thread");
	printf("ready\n");
	fflush(stdout);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	sm_fuse_free(fuse);
	return 0;
}
