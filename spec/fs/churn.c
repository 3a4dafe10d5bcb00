/* posix --churn FOLDER: files under constant use, each looked at for what was written last, until one named `stop' is
 * there.  What is open stays so across rounds: a machine may be saved and restored in any of them.
 * Says `round N' now and then, `stopped' at the end, and the first thing that is wrong. */
#include "posix.h"

#include <dirent.h>
#include <stdarg.h>
#include <sys/mman.h>

#define SLOTS 24
#define BYTES 20000
#define PAGE  4096

static struct slot {
	int fd; /* -1: not open */
	bool exists, moved;
	unsigned version;
	size_t size;
} slots[SLOTS];

static uint64_t rounds, seed = 1;
static int held, mapped_fd;
static volatile uint64_t *mapped;
static DIR *list;

static _Noreturn void wrong(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	printf("wrong in round %ju: ", (uintmax_t)rounds);
	vprintf(format, arguments);
	printf(" (%s)\n", strerror(errno));
	fflush(stdout);
	_exit(1);
}

#define MUST(expression) \
	({ \
		errno = 0; \
		intmax_t result_ = (intmax_t)(expression); \
		if (result_ < 0) \
			wrong("%s", #expression); \
		result_; \
	})

static unsigned any(unsigned below)
{
	seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (unsigned)(seed >> 33) % below;
}

static const char *name_of(const struct slot *slot)
{
	static char name[32];
	snprintf(name, sizeof name, slot->moved ? "folder/moved-%u" : "file-%u", (unsigned)(slot - slots));
	return name;
}

static void content(const struct slot *slot, uint8_t *data)
{
	for (size_t i = 0; i < slot->size; i++)
		data[i] = pattern(i + (uint64_t)slot->version * 1000003 + (uint64_t)(slot - slots) * 77);
}

static int descriptor(struct slot *slot)
{
	if (slot->fd < 0)
		slot->fd = (int)MUST(open(name_of(slot), O_RDWR | O_CLOEXEC));
	return slot->fd;
}

static void put(struct slot *slot)
{
	static uint8_t data[BYTES];
	if (!slot->exists) {
		slot->moved = false;
		slot->fd = (int)MUST(open(name_of(slot), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
		slot->exists = true;
	}
	slot->version++;
	slot->size = any(BYTES);
	content(slot, data);
	MUST(ftruncate(descriptor(slot), (off_t)slot->size));
	if ((size_t)MUST(pwrite(slot->fd, data, slot->size, 0)) != slot->size)
		wrong("%s: a short write", name_of(slot));
}

static void look(struct slot *slot)
{
	static uint8_t data[BYTES + 1], expected[BYTES];
	struct stat by_name, by_fd;
	if (!slot->exists) {
		if (lstat(name_of(slot), &by_name) == 0 || errno != ENOENT)
			wrong("%s: expected none", name_of(slot));
		return;
	}
	content(slot, expected);
	int fd = any(2) ? descriptor(slot) : (int)MUST(open(name_of(slot), O_RDONLY | O_CLOEXEC));
	if ((size_t)MUST(pread(fd, data, sizeof data, 0)) != slot->size || memcmp(data, expected, slot->size))
		wrong("%s: expected version %u of %zu bytes", name_of(slot), slot->version, slot->size);
	MUST(lstat(name_of(slot), &by_name));
	MUST(fstat(fd, &by_fd));
	if (by_name.st_ino != by_fd.st_ino || (size_t)by_fd.st_size != slot->size || by_fd.st_nlink != 1)
		wrong("%s: by its name it is another than by its descriptor", name_of(slot));
	if (fd != slot->fd)
		close(fd);
}

static void move(struct slot *slot)
{
	if (!slot->exists)
		return;
	char from[32];
	snprintf(from, sizeof from, "%s", name_of(slot));
	slot->moved = !slot->moved;
	MUST(rename(from, name_of(slot)));
}

static void close_one(struct slot *slot)
{
	if (slot->fd >= 0)
		MUST(close(slot->fd));
	slot->fd = -1;
}

static void drop(struct slot *slot)
{
	if (!slot->exists)
		return;
	close_one(slot);
	MUST(unlink(name_of(slot)));
	slot->exists = false;
	slot->moved = false;
}

/* The mapping counts; a read sees it. */
static void count(void)
{
	uint64_t seen = 0;
	mapped[0] = rounds;
	mapped[PAGE / 8] = ~rounds;
	MUST(pread(mapped_fd, &seen, sizeof seen, PAGE));
	if (seen != ~rounds || mapped[0] != rounds)
		wrong("the mapping: %jx in the file", (uintmax_t)seen);
}

/* The lock that was taken in the beginning is still held. */
static void locked(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = (int)MUST(open("lock", O_RDWR | O_CLOEXEC));
	if (fcntl(fd, F_OFD_SETLK, &lock) == 0 || errno != EAGAIN)
		wrong("the lock is not held any more");
	close(fd);
}

/* One cursor goes round and round; names that are there all the time are seen each time. */
static void listed(void)
{
	static unsigned fixed;
	struct dirent *entry = readdir(list);
	if (entry) {
		fixed += !strncmp(entry->d_name, "fixed-", 6);
		return;
	}
	if (fixed != 8)
		wrong("the list: expected 8 names that stay, got %u", fixed);
	fixed = 0;
	rewinddir(list);
}

static void begin(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	for (unsigned i = 0; i < SLOTS; i++)
		slots[i].fd = -1;
	MUST(mkdir("folder", 0755));
	for (unsigned i = 0; i < 8; i++) {
		char name[32];
		snprintf(name, sizeof name, "fixed-%u", i);
		close((int)MUST(open(name, O_WRONLY | O_CREAT | O_EXCL, 0644)));
	}
	held = (int)MUST(open("lock", O_RDWR | O_CREAT | O_CLOEXEC, 0644));
	MUST(fcntl(held, F_OFD_SETLK, &lock));
	mapped_fd = (int)MUST(open("mapped", O_RDWR | O_CREAT | O_CLOEXEC, 0644));
	MUST(ftruncate(mapped_fd, 2 << 20));
	mapped = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, mapped_fd, 0);
	if (mapped == MAP_FAILED)
		wrong("mmap");
	list = opendir(".");
	if (!list)
		wrong("opendir");
}

int churn(const char *path)
{
	struct stat status;
	MUST(chdir(path));
	begin();
	while (lstat("stop", &status) < 0) {
		struct slot *slot = &slots[any(SLOTS)];
		switch (any(8)) {
		case 0:
		case 1:
			put(slot);
			break;
		case 2:
			move(slot);
			break;
		case 3:
			drop(slot);
			break;
		case 4:
			close_one(slot);
			break;
		default:
			look(slot);
		}
		count();
		listed();
		if (rounds++ % 16 == 0) {
			locked();
			printf("round %ju\n", (uintmax_t)rounds);
			fflush(stdout);
		}
	}
	for (unsigned i = 0; i < SLOTS; i++)
		look(&slots[i]);
	printf("stopped\n");
	return 0;
}
