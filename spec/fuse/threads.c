/* threads FOLDER THREADS ROUNDS SEED: so many guests' threads at once, who ask for anything in any order, of each
 * other's nodes and handles, while sessions end and begin and the window is mended.  Exits 0 if nothing is left in the
 * end. */
#include "fuse/fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WINDOW  (8u << 20)
#define GRANULE (2u << 20)
#define KNOWN   64

static struct sm_fuse *server;
static _Atomic uint64_t nodes[KNOWN], handles[KNOWN], owners[KNOWN]; /* owners: whose handle it is */
static unsigned rounds;

struct thread {
	pthread_t thread;
	uint64_t random;
	unsigned number;
};

static uint32_t pick(struct thread *self, uint32_t below)
{
	self->random ^= self->random << 13;
	self->random ^= self->random >> 7;
	self->random ^= self->random << 17;
	return (uint32_t)(self->random >> 11) % below;
}

struct message {
	struct fuse_in_header head;
	uint8_t args[512];
};

static void later(void *arg, void *cookie, const void *reply, size_t len)
{
	(void)arg;
	(void)cookie;
	(void)reply;
	(void)len;
}

static uint64_t any(struct thread *self)
{
	return atomic_load(&nodes[pick(self, KNOWN)]);
}

static void remember(struct thread *self, uint64_t node)
{
	if (node)
		atomic_store(&nodes[pick(self, KNOWN)], node);
}

static void remember_handle(struct thread *self, uint64_t node, uint64_t handle)
{
	unsigned at = pick(self, KNOWN);
	atomic_store(&handles[at], handle);
	atomic_store(&owners[at], node);
}

/* Bytes of the reply's body, or -errno. */
static int64_t ask(uint32_t opcode, uint64_t node, const void *args, size_t len, void *out, size_t room)
{
	struct message message = { .head = { .opcode = opcode, .unique = 5, .nodeid = node } };
	struct fuse_out_header head = { 0 };
	message.head.len = (uint32_t)(sizeof message.head + len);
	memcpy(message.args, args, len);
	int64_t result;
	do {
		struct iovec in = { &message, sizeof message.head + len };
		struct iovec outs[2] = { { &head, sizeof head }, { out, room } };
		const struct sm_fuse_request request = { .in = &in, .nin = 1, .out = outs, .nout = 2, .plain = true };
		result = sm_fuse_serve(server, &request);
		if (result == -EINPROGRESS)
			return result;
		if (result < 0 || (result && (head.len != result || head.unique != 5)))
			abort();
	} while (head.error == -EPROTO && sched_yield() == 0); /* between two sessions */
	return head.error ? head.error : result - (int64_t)sizeof head;
}

static size_t put_name(struct thread *self, char *out)
{
	return (size_t)sprintf(out, "n%u", pick(self, 12)) + 1;
}

static void begin(void)
{
	const struct fuse_init_in init = { .major = 7, .minor = 38, .flags = 0x7fffffff, .flags2 = 2 };
	uint8_t out[64];
	if (ask(FUSE_INIT, 0, &init, sizeof init, out, sizeof out) != sizeof out)
		abort();
}

static void by_name(struct thread *self, uint64_t node)
{
	static const struct {
		uint32_t opcode;
		size_t fixed;
	} all[] = { { FUSE_LOOKUP, 0 }, { FUSE_LOOKUP, 0 }, { FUSE_CREATE, 16 }, { FUSE_MKDIR, 8 }, { FUSE_MKNOD, 16 },
		    { FUSE_UNLINK, 0 }, { FUSE_RMDIR, 0 },  { FUSE_LINK, 8 },    { FUSE_RENAME, 8 } };
	unsigned which = pick(self, sizeof all / sizeof *all);
	uint8_t args[128] = { 0 };
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} out = { 0 };
	uint64_t other = any(self);
	uint32_t mode = all[which].opcode == FUSE_MKDIR ? 0755 : 0100644;
	memcpy(args, &mode, sizeof mode);
	if (all[which].opcode == FUSE_CREATE)
		memcpy(args, &(const uint32_t[2]){ O_RDWR, 0644 }, 8);
	if (all[which].opcode == FUSE_LINK || all[which].opcode == FUSE_RENAME)
		memcpy(args, &other, sizeof other);
	size_t len = all[which].fixed + put_name(self, (char *)args + all[which].fixed);
	if (all[which].opcode == FUSE_RENAME)
		len += put_name(self, (char *)args + len);
	int64_t result = ask(all[which].opcode, node, args, len, &out, sizeof out);
	if (result >= (int64_t)sizeof out.entry)
		remember(self, out.entry.nodeid);
	if (result == (int64_t)sizeof out)
		remember_handle(self, out.entry.nodeid, out.open.fh);
}

static void by_handle(struct thread *self)
{
	static uint8_t sink[16][8192];
	uint8_t args[512] = { 0 };
	unsigned which = pick(self, KNOWN);
	uint64_t handle = atomic_load(&handles[which]), node = atomic_load(&owners[which]);
	uint32_t size = 4096;
	memcpy(args, &handle, sizeof handle);
	switch (pick(self, 8)) {
	case 0:
	case 1:
		memcpy(args + 16, &size, sizeof size);
		ask(FUSE_READ, node, args, 40, sink[self->number], 8192);
		break;
	case 2:
		size = 100;
		memcpy(args + 16, &size, sizeof size);
		ask(FUSE_WRITE, node, args, 140, sink[self->number], 8192);
		break;
	case 3:
		memcpy(args + 16, &size, sizeof size);
		ask(FUSE_READDIRPLUS, node, args, 40, sink[self->number], 8192);
		break;
	case 4:
		ask(FUSE_RELEASE, node, args, 24, NULL, 0);
		break;
	case 5:
		ask(FUSE_RELEASEDIR, node, args, 24, NULL, 0);
		break;
	case 6: {
		struct fuse_lk_in in = { .fh = handle,
			                 .owner = pick(self, 4),
			                 .lk = { .end = 9, .type = pick(self, 3) } };
		ask(pick(self, 2) ? FUSE_SETLK : FUSE_SETLKW, node, &in, sizeof in, NULL, 0);
		break;
	}
	default:
		ask(FUSE_FLUSH, node, args, 24, NULL, 0);
	}
}

static void by_node(struct thread *self, uint64_t node)
{
	uint8_t args[128] = { 0 }, out[512];
	struct fuse_open_out opened;
	uint32_t flags = O_RDWR;
	switch (pick(self, 8)) {
	case 0:
		ask(FUSE_GETATTR, node, args, 16, out, sizeof out);
		break;
	case 1:
	case 2:
		memcpy(args, &flags, sizeof flags);
		if (ask(FUSE_OPEN, node, args, 8, &opened, sizeof opened) == sizeof opened)
			remember_handle(self, node, opened.fh);
		break;
	case 3:
		if (ask(FUSE_OPENDIR, node, args, 8, &opened, sizeof opened) == sizeof opened)
			remember_handle(self, node, opened.fh);
		break;
	case 4: {
		/* More than there can be, too. */
		const struct fuse_forget_in in = { .nlookup = pick(self, 4) ? 1 : 1000 };
		ask(FUSE_FORGET, node, &in, sizeof in, NULL, 0);
		break;
	}
	case 5: {
		const struct fuse_setattr_in in = { .valid = FATTR_SIZE, .size = pick(self, 2) ? 3u << 20 : 5 };
		ask(FUSE_SETATTR, node, &in, sizeof in, out, sizeof out);
		break;
	}
	case 6: {
		const struct fuse_setupmapping_in in = { .len = GRANULE,
			                                 .flags = 3,
			                                 .moffset = pick(self, 4) * GRANULE };
		ask(FUSE_SETUPMAPPING, node, &in, sizeof in, NULL, 0);
		break;
	}
	default: {
		uint64_t one[2] = { pick(self, 4) * GRANULE, GRANULE };
		memcpy(args, &(uint32_t){ 1 }, 4);
		memcpy(args + 4, one, sizeof one);
		ask(FUSE_REMOVEMAPPING, node, args, 20, NULL, 0);
	}
	}
}

static void *run(void *arg)
{
	struct thread *self = arg;
	struct sm_fuse_stats stats;
	for (unsigned i = 0; i < rounds; i++) {
		uint64_t node = pick(self, 3) ? any(self) : FUSE_ROOT_ID;
		switch (pick(self, 3)) {
		case 0:
			by_name(self, pick(self, 3) ? FUSE_ROOT_ID : node);
			break;
		case 1:
			by_handle(self);
			break;
		default:
			by_node(self, node);
		}
		if (self->number == 0 && i % 4000 == 3999) {
			ask(FUSE_DESTROY, 0, "", 0, NULL, 0);
			begin();
		}
		if (self->number == 1 && i % 50 == 0) {
			sm_fuse_mend(server);
			sm_fuse_stats(server, &stats);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	unsigned n = (unsigned)atoi(argv[2]);
	rounds = (unsigned)atoi(argv[3]);
	struct thread threads[16] = { 0 };
	char *map = mmap(NULL, WINDOW * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (n > 16 || map == MAP_FAILED)
		return 2;
	const struct sm_fuse_window window = { map + (-(uintptr_t)map & (GRANULE - 1)), WINDOW };
	const struct sm_mount mount = {
		.root_fd = open(argv[1], O_PATH | O_CLOEXEC),
		.dax = true,
		.host_locks = true,
		.max_nodes = 40,
		.max_descriptors = 16,
	};
	struct sm_error err;
	if (sm_fuse_new(&mount, &window, &server, &err) < 0) {
		fprintf(stderr, "threads: %s\n", err.message);
		return 2;
	}
	sm_fuse_set_later(server, later, NULL);
	begin();
	for (unsigned i = 0; i < n; i++) {
		threads[i].number = i;
		threads[i].random = (uint64_t)atoi(argv[4]) * 1000003 + i + 1;
		if (pthread_create(&threads[i].thread, NULL, run, &threads[i]))
			return 2;
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(threads[i].thread, NULL);
	struct sm_fuse_stats stats;
	sm_fuse_reset(server);
	sm_fuse_stats(server, &stats);
	printf("requests=%llu errors=%llu evicted=%llu nodes=%llu handles=%llu descriptors=%llu dax=%llu\n",
	       (unsigned long long)stats.requests, (unsigned long long)stats.errors, (unsigned long long)stats.evicted,
	       (unsigned long long)stats.nodes, (unsigned long long)stats.handles,
	       (unsigned long long)stats.descriptors, (unsigned long long)stats.dax_bytes);
	sm_fuse_free(server);
	return 0;
}
