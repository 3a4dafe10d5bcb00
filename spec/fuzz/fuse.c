/* Mounts: a guest that says anything, over a folder of a few files.  Each reply is one; nothing outside is touched;
 * nothing is left after a reset; a session that is saved can be loaded, and saved again it is the same.
 *
 * The input is steps: what (an operation of the protocol, or one of ours), which node and handle of those that replies
 * named so far, how the memory lies, the length of the arguments, and these.  With a first byte that is odd it is a
 * session to load, whose record is mended. */
#include "fuse/fuse.h"
#include "base/buf.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define WINDOW   (4u << 20)
#define ROOM     8192
#define STEPS    64
#define KNOWN    16
#define FILE_MAX (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct world {
	struct sm_mount mount;
	struct sm_fuse_window window;
	struct sm_fuse *fuse;
	uint64_t nodes[KNOWN], handles[KNOWN];
	unsigned nnodes, nhandles;
};

static char home[64];
static int home_fd, root_fd;
static char *window;

#define check(fine) check_that(fine, #fine)

static void check_that(bool fine, const char *what)
{
	if (fine)
		return;
	fprintf(stderr, "not so: %s\n", what);
	abort();
}

static void put_file(int at, const char *name, size_t len)
{
	int fd = openat(at, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	check(fd >= 0 && write(fd, "secret", 6) == 6 && ftruncate(fd, (off_t)len) == 0);
	close(fd);
}

/* Everything below, whatever it was made to be. */
static void clear(int at)
{
	int fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fdopendir(fd);
	check(dir);
	for (struct dirent *entry; (entry = readdir(dir));) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (unlinkat(at, entry->d_name, 0) == 0)
			continue;
		fchmodat(at, entry->d_name, 0700, 0);
		int below = openat(at, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		check(below >= 0);
		clear(below);
		close(below);
		check(unlinkat(at, entry->d_name, AT_REMOVEDIR) == 0);
	}
	closedir(dir);
}

static void fill(void)
{
	check(mkdirat(root_fd, "d", 0700) == 0 && symlinkat("../outside", root_fd, "l") == 0 &&
	      symlinkat("d", root_fd, "m") == 0 && mkfifoat(root_fd, "p", 0600) == 0);
	put_file(root_fd, "f", 3u << 18);
	put_file(root_fd, "d/g", 10);
}

static void remove_home(void)
{
	clear(home_fd);
	rmdir(home);
}

static void begin_process(void)
{
	/* What a guest writes is bounded by its disk; ours by this. */
	const struct rlimit limit = { FILE_MAX, FILE_MAX };
	setrlimit(RLIMIT_FSIZE, &limit);
	signal(SIGXFSZ, SIG_IGN);
	snprintf(home, sizeof home, "/dev/shm/supermachine-fuzz-%d.mount", (int)getpid());
	check(mkdir(home, 0700) == 0);
	home_fd = open(home, O_PATH | O_DIRECTORY | O_CLOEXEC);
	check(home_fd >= 0 && mkdirat(home_fd, "root", 0700) == 0);
	root_fd = openat(home_fd, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
	check(root_fd >= 0);
	put_file(home_fd, "outside", 6);
	char *map = mmap(NULL, WINDOW * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	check(map != MAP_FAILED);
	window = map + (-(uintptr_t)map & (WINDOW - 1));
	atexit(remove_home);
}

static void later(void *arg, void *cookie, const void *reply, size_t len)
{
	const struct fuse_out_header *head = reply;
	(void)arg;
	(void)cookie;
	check(len == sizeof *head && head->len == len);
}

static struct sm_fuse *make(const struct world *world)
{
	struct sm_fuse *fuse;
	check(sm_fuse_new(&world->mount, &world->window, &fuse, NULL) == 0);
	sm_fuse_set_later(fuse, later, NULL);
	return fuse;
}

static void know(uint64_t known[KNOWN], unsigned *n, uint64_t id)
{
	known[(*n)++ % KNOWN] = id;
}

static uint64_t pick(const uint64_t known[KNOWN], unsigned n, uint8_t which, uint64_t other)
{
	if (which >= 240 || !n)
		return which == 255 ? UINT64_MAX : which >= 240 ? which : other;
	return known[which % (n < KNOWN ? n : KNOWN)];
}

/* What the guest would remember of a reply. */
static void learn(struct world *world, uint32_t opcode, const uint8_t *body, size_t len)
{
	uint64_t id = 0, handle = 0;
	bool entry = opcode == FUSE_LOOKUP || opcode == FUSE_CREATE || opcode == FUSE_MKDIR || opcode == FUSE_MKNOD ||
	             opcode == FUSE_SYMLINK || opcode == FUSE_LINK || opcode == FUSE_TMPFILE;
	size_t at = opcode == FUSE_OPEN || opcode == FUSE_OPENDIR ? 0 : sizeof(struct fuse_entry_out);
	if (entry && len >= sizeof(struct fuse_entry_out))
		memcpy(&id, body, sizeof id);
	if ((!at || opcode == FUSE_CREATE || opcode == FUSE_TMPFILE) && len >= at + sizeof(struct fuse_open_out))
		memcpy(&handle, body + at, sizeof handle);
	if (id)
		know(world->nodes, &world->nnodes, id);
	if (handle)
		know(world->handles, &world->nhandles, handle);
}

static bool has_handle(uint32_t opcode)
{
	switch (opcode) {
	case FUSE_READ:
	case FUSE_WRITE:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
	case FUSE_FLUSH:
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
	case FUSE_GETLK:
	case FUSE_SETLK:
	case FUSE_SETLKW:
	case FUSE_IOCTL:
	case FUSE_FALLOCATE:
	case FUSE_LSEEK:
	case FUSE_COPY_FILE_RANGE:
		return true;
	default:
		return false;
	}
}

static unsigned cut(struct iovec iov[8], char *data, size_t len, unsigned how)
{
	size_t piece = how ? (size_t)1 << (3 + how) : len;
	unsigned n = 0;
	for (size_t at = 0; at < len; n++) {
		size_t part = n < 7 && len - at > piece ? piece : len - at;
		iov[n] = (struct iovec){ data + at, part };
		at += part;
	}
	return n;
}

static void ask(struct world *world, const uint8_t step[6], const uint8_t *args, size_t len)
{
	static char in[ROOM], out[ROOM];
	struct fuse_in_header head = { .opcode = step[0],
		                       .unique = 99,
		                       .nodeid = pick(world->nodes, world->nnodes, step[1], 1) };
	head.len = (uint32_t)(sizeof head + len) + (step[3] >= 250);
	memcpy(in, &head, sizeof head);
	memcpy(in + sizeof head, args, len);
	uint64_t handle = pick(world->handles, world->nhandles, step[2], 0);
	if (has_handle(head.opcode) && len >= sizeof handle)
		memcpy(in + sizeof head, &handle, sizeof handle);
	if (head.opcode == FUSE_COPY_FILE_RANGE && len >= 32) {
		memcpy(in + sizeof head + 16, &head.nodeid, 8);
		memcpy(in + sizeof head + 24, &handle, 8);
	}
	if (head.opcode == FUSE_FALLOCATE && len >= 24) {
		memset(in + sizeof head + 11, 0, 5);
		memset(in + sizeof head + 19, 0, 5);
	}
	/* In ordinary memory, or in the window, which may be any file by now. */
	bool plain = !(step[3] & 1);
	char *from = plain ? in : window + (step[3] & 2 ? 2u << 20 : 0), *to = plain ? out : from + ROOM;
	size_t room = step[3] & 4 ? step[3] : ROOM;
	struct iovec ins[8], outs[8], mine = { in, sizeof head + len }, there = { from, sizeof head + len };
	if (!plain && process_vm_writev(getpid(), &mine, 1, &there, 1, 0) < 0)
		return;
	const struct sm_fuse_request request = {
		.in = ins,
		.nin = cut(ins, from, sizeof head + len, step[3] >> 3 & 3),
		.out = outs,
		.nout = cut(outs, to, room, step[3] >> 5 & 3),
		.plain = plain,
	};
	int64_t result = sm_fuse_serve(world->fuse, &request);
	check(result >= -4095 && result <= (int64_t)room);
	if (!plain || result <= 0)
		return;
	struct fuse_out_header reply;
	check((size_t)result >= sizeof reply);
	memcpy(&reply, out, sizeof reply);
	check(reply.len == result && reply.unique == 99 && reply.error <= 0 && reply.error > -4096);
	check(!reply.error || reply.len == sizeof reply);
	learn(world, head.opcode, (const uint8_t *)out + sizeof reply, (size_t)result - sizeof reply);
}

/* The session goes on in a server of its own, and is the same there. */
static void move(struct world *world)
{
	struct sm_buf saved, again;
	struct sm_reader reader;
	sm_buf_init(&saved, 1u << 20);
	sm_buf_init(&again, 1u << 20);
	sm_fuse_save(world->fuse, &saved);
	check(!saved.failed);
	struct sm_fuse *old = world->fuse;
	world->fuse = make(world);
	sm_reader_init(&reader, saved.data, saved.len);
	/* The window is one, and the old one makes it memory again. */
	sm_fuse_free(old);
	check(sm_fuse_load(world->fuse, &reader, NULL) == 0 && sm_reader_at_end(&reader));
	sm_fuse_save(world->fuse, &again);
	check(again.len == saved.len && !memcmp(again.data, saved.data, saved.len));
	sm_buf_done(&saved);
	sm_buf_done(&again);
}

static void load(struct world *world, const uint8_t *data, size_t len)
{
	struct sm_buf record;
	struct sm_reader reader;
	struct sm_error err = { 0 };
	sm_buf_init(&record, 1u << 20);
	size_t at = sm_record_begin(&record, SM_TAG('F', 'U', 'S', 'E'), 1);
	sm_buf_append(&record, data, len);
	sm_record_end(&record, at);
	sm_reader_init(&reader, record.data, record.len);
	if (sm_fuse_load(world->fuse, &reader, &err) < 0) {
		struct sm_fuse_stats stats;
		sm_fuse_stats(world->fuse, &stats);
		check(err.code && err.message[0] && !stats.nodes && !stats.handles && !stats.dax_bytes);
	} else {
		/* Every node and handle that there can be is asked for. */
		for (unsigned i = 0; i < 12; i++) {
			know(world->nodes, &world->nnodes, i + 1);
			know(world->handles, &world->nhandles, 1ull << 32 | i);
		}
		move(world);
	}
	sm_buf_done(&record);
}

static void run(struct world *world, const uint8_t *data, size_t len)
{
	for (unsigned i = 0; i < STEPS && len >= 6; i++) {
		const uint8_t *step = data;
		size_t args = (size_t)step[4] | (size_t)step[5] << 8;
		data += 6;
		len -= 6;
		args = args < len ? args : len;
		args = args < ROOM - 64 ? args : ROOM - 64;
		if (step[0] == 200)
			move(world);
		else if (step[0] == 201)
			sm_fuse_mend(world->fuse);
		else if (step[0] == 202)
			sm_fuse_reset(world->fuse);
		else
			ask(world, step, data, args);
		data += args;
		len -= args;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!home[0])
		begin_process();
	if (len < 2)
		return 0;
	uint8_t kind = data[1];
	struct world world = {
		.mount = { .root_fd = root_fd,
		           .only = kind & 1 ? "f" : NULL,
		           .readonly = (kind & 6) == 6,
		           .host_locks = kind & 8,
		           .dax = !(kind & 16),
		           .symlinks = kind >> 5 & 1,
		           .cache = kind >> 6 & 3 ? SM_MOUNT_CACHE_ALWAYS : SM_MOUNT_CACHE_STRICT,
		           .max_descriptors = 16,
		           .max_nodes = 40 },
		.window = { window, WINDOW },
	};
	fill();
	world.fuse = make(&world);
	if (data[0] & 1) {
		load(&world, data + 2, len - 2);
	} else {
		static const struct fuse_init_in init = { .major = 7, .minor = 38, .flags = 0x7fffffff, .flags2 = 2 };
		ask(&world, (const uint8_t[6]){ FUSE_INIT }, (const uint8_t *)&init, sizeof init);
		know(world.nodes, &world.nnodes, FUSE_ROOT_ID);
		run(&world, data + 2, len - 2);
		move(&world);
	}
	struct sm_fuse_stats stats;
	sm_fuse_reset(world.fuse);
	sm_fuse_stats(world.fuse, &stats);
	check(stats.nodes == 0 && stats.handles == 0 && stats.descriptors == 1 && stats.dax_bytes == 0);
	sm_fuse_free(world.fuse);
	check(!world.mount.dax || (window[0] == 0 && window[WINDOW - 1] == 0));
	madvise(window, WINDOW, MADV_DONTNEED); /* without one it is ours to clean */

	struct stat outside;
	char content[8];
	int fd = openat(home_fd, "outside", O_RDONLY | O_CLOEXEC);
	check(fd >= 0 && fstat(fd, &outside) == 0 && outside.st_nlink == 1 && (outside.st_mode & 07777) == 0600);
	check(read(fd, content, sizeof content) == 6 && !memcmp(content, "secret", 6));
	close(fd);
	fchmod(root_fd, 0700);
	fchmodat(home_fd, "root", 0700, 0);
	clear(root_fd);
	return 0;
}
