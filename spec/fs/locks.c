/* Locks: of processes (fcntl), of open files (OFD) and flock; who is refused, who waits, and what frees them. */
#include "posix.h"

#include <sys/file.h>

static struct gate there, back;

static int lock(int fd, int command, int type, off_t from, off_t length)
{
	struct flock lock = { .l_type = (short)type, .l_whence = SEEK_SET, .l_start = from, .l_len = length };
	return fcntl(fd, command, &lock);
}

static int open_file(void)
{
	return (int)NEED(open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0644));
}

/* In another process: is [from, from + length) free for such a lock?  0, or EAGAIN. */
static struct {
	int type;
	off_t from, length;
} asked;

static int ask_child(unsigned command)
{
	int fd = open_file();
	if (lock(fd, (int)command, asked.type, asked.from, asked.length) == 0)
		return 0;
	return errno == EACCES ? EAGAIN : errno;
}

static int ask(int type, off_t from, off_t length)
{
	asked.type = type;
	asked.from = from;
	asked.length = length;
	return join(start(ask_child, F_SETLK));
}

static void process_ranges(void)
{
	int fd = open_file();
	NEED(lock(fd, F_SETLK, F_WRLCK, 100, 100));
	IS(ask(F_WRLCK, 0, 100), 0);
	IS(ask(F_WRLCK, 0, 101), EAGAIN);
	IS(ask(F_RDLCK, 150, 1), EAGAIN);
	IS(ask(F_WRLCK, 199, 1), EAGAIN);
	IS(ask(F_WRLCK, 200, 0), 0);
	/* The middle is freed, then only shared. */
	NEED(lock(fd, F_SETLK, F_UNLCK, 140, 20));
	IS(ask(F_WRLCK, 140, 20), 0);
	IS(ask(F_WRLCK, 139, 1), EAGAIN);
	IS(ask(F_WRLCK, 160, 1), EAGAIN);
	NEED(lock(fd, F_SETLK, F_RDLCK, 100, 10));
	IS(ask(F_RDLCK, 100, 10), 0);
	IS(ask(F_WRLCK, 100, 1), EAGAIN);
	IS(ask(F_RDLCK, 110, 1), EAGAIN);
	/* To the end, wherever that is. */
	NEED(lock(fd, F_SETLK, F_WRLCK, 1000, 0));
	IS(ask(F_RDLCK, (off_t)1 << 40, 1), EAGAIN);
	NEED(lock(fd, F_SETLK, F_UNLCK, 0, 0));
	IS(ask(F_WRLCK, 0, 0), 0);
}

static int getlk_child(unsigned pid)
{
	int fd = open_file();
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0 };
	NEED(fcntl(fd, F_GETLK, &lock));
	IS(lock.l_type, F_RDLCK);
	IS(lock.l_start, 10);
	IS(lock.l_len, 5);
	IS(lock.l_pid, pid);
	lock = (struct flock){ .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0 };
	NEED(fcntl(fd, F_GETLK, &lock));
	IS(lock.l_type, F_UNLCK);
	return 0;
}

static void process_getlk(void)
{
	int fd = open_file();
	NEED(lock(fd, F_SETLK, F_RDLCK, 10, 5));
	IS(join(start(getlk_child, (unsigned)getpid())), 0);
}

/* Closing any descriptor of the file frees all that the process holds on it. */
static void process_close(void)
{
	int fd = open_file();
	NEED(lock(fd, F_SETLK, F_WRLCK, 0, 0));
	IS(ask(F_RDLCK, 0, 1), EAGAIN);
	NEED(close(open_file()));
	IS(ask(F_WRLCK, 0, 0), 0);
}

static int hold_and_end(unsigned unused)
{
	(void)unused;
	int fd = open_file();
	NEED(lock(fd, F_SETLK, F_WRLCK, 0, 0));
	open_gate(&there);
	pass_gate(&back);
	return 0;
}

static void process_end(void)
{
	there = make_gate();
	back = make_gate();
	pid_t pid = start(hold_and_end, 0);
	pass_gate(&there);
	int fd = open_file();
	FAILS(lock(fd, F_SETLK, F_WRLCK, 0, 1), EAGAIN);
	open_gate(&back);
	IS(join(pid), 0);
	IS(lock(fd, F_SETLK, F_WRLCK, 0, 1), 0);
}

static int inherited_fd;

static int try_inherited(unsigned command)
{
	return lock(inherited_fd, (int)command, F_WRLCK, 0, 1) == 0 ? 0 : errno;
}

static void process_fork(void)
{
	inherited_fd = open_file();
	NEED(lock(inherited_fd, F_SETLK, F_WRLCK, 0, 1));
	IS(join(start(try_inherited, F_SETLK)), EAGAIN);
}

static int wait_child(unsigned command)
{
	int fd = open_file();
	open_gate(&there);
	NEED(lock(fd, (int)command, F_WRLCK, 0, 1));
	char text[4] = "";
	IS(pread(fd, text, 3, 0), 3);
	IS(memcmp(text, "now", 3), 0);
	return 0;
}

/* Who waits goes on when it is free, and not before: what was written by then is there. */
static void waiting(int command, int free_command)
{
	int fd = open_file();
	there = make_gate();
	NEED(lock(fd, free_command, F_WRLCK, 0, 1));
	pid_t pid = start(wait_child, (unsigned)command);
	pass_gate(&there);
	/* It may be about to ask; that it is let in too soon then shows in what it reads, most of the time. */
	usleep(50000);
	IS(pwrite(fd, "now", 3, 0), 3);
	NEED(lock(fd, free_command, F_UNLCK, 0, 1));
	IS(join(pid), 0);
}

static void process_wait(void)
{
	waiting(F_SETLKW, F_SETLK);
}

static int deadlock_child(unsigned unused)
{
	(void)unused;
	int fd = open_file();
	NEED(lock(fd, F_SETLK, F_WRLCK, 1, 1));
	open_gate(&there);
	if (lock(fd, F_SETLKW, F_WRLCK, 0, 1) < 0)
		return errno == EDEADLK ? 2 : 3;
	return 0;
}

static void process_deadlock(void)
{
	int fd = open_file();
	there = make_gate();
	NEED(lock(fd, F_SETLK, F_WRLCK, 0, 1));
	pid_t pid = start(deadlock_child, 0);
	pass_gate(&there);
	/* Whoever asks last is told. */
	int result = lock(fd, F_SETLKW, F_WRLCK, 1, 1) < 0 ? errno : 0;
	NEED(lock(fd, F_SETLK, F_UNLCK, 0, 1));
	IS(join(pid), result == EDEADLK ? 0 : 2);
	IS(result == 0 || result == EDEADLK, true);
}

static void refused(void)
{
	make_file("file", "x");
	int reader = (int)NEED(open("file", O_RDONLY)), writer = (int)NEED(open("file", O_WRONLY));
	FAILS(lock(reader, F_SETLK, F_WRLCK, 0, 1), EBADF);
	FAILS(lock(writer, F_SETLK, F_RDLCK, 0, 1), EBADF);
	FAILS(lock(reader, F_SETLK, F_RDLCK, -1, 1), EINVAL);
	IS(lock(reader, F_SETLK, F_RDLCK, 0, 1), 0);
}

static void ofd(void)
{
	int first = open_file(), second = open_file();
	NEED(lock(first, F_OFD_SETLK, F_WRLCK, 0, 10));
	FAILS(lock(second, F_OFD_SETLK, F_WRLCK, 5, 1), EAGAIN);
	FAILS(lock(second, F_OFD_SETLK, F_RDLCK, 5, 1), EAGAIN);
	IS(lock(second, F_OFD_SETLK, F_WRLCK, 10, 1), 0);
	/* A process's lock is another's, too, even in the same process. */
	FAILS(lock(first, F_SETLK, F_WRLCK, 0, 1), EAGAIN);
	/* Another descriptor's close frees nothing; a copy keeps it. */
	NEED(close(open_file()));
	FAILS(lock(second, F_OFD_SETLK, F_WRLCK, 5, 1), EAGAIN);
	int copy = (int)NEED(dup(first));
	NEED(close(first));
	FAILS(lock(second, F_OFD_SETLK, F_WRLCK, 5, 1), EAGAIN);
	NEED(close(copy));
	IS(lock(second, F_OFD_SETLK, F_WRLCK, 5, 1), 0);
}

static void ofd_fork(void)
{
	inherited_fd = open_file();
	NEED(lock(inherited_fd, F_OFD_SETLK, F_WRLCK, 0, 1));
	IS(join(start(try_inherited, F_OFD_SETLK)), 0);
	/* The child's end was not the last close. */
	int fd = open_file();
	FAILS(lock(fd, F_OFD_SETLK, F_WRLCK, 0, 1), EAGAIN);
}

static void ofd_wait(void)
{
	waiting(F_OFD_SETLKW, F_OFD_SETLK);
}

static int flock_child(unsigned operation)
{
	int fd = open_file();
	return flock(fd, (int)operation) == 0 ? 0 : errno;
}

static void whole(void)
{
	int first = open_file(), second = open_file();
	NEED(flock(first, LOCK_SH));
	IS(flock(second, LOCK_SH | LOCK_NB), 0);
	FAILS(flock(first, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	NEED(flock(second, LOCK_UN));
	IS(flock(first, LOCK_EX | LOCK_NB), 0);
	FAILS(flock(second, LOCK_SH | LOCK_NB), EWOULDBLOCK);
	IS(join(start(flock_child, LOCK_SH | LOCK_NB)), EWOULDBLOCK);
	/* By a copy it is the same lock. */
	int copy = (int)NEED(dup(first));
	IS(flock(copy, LOCK_EX | LOCK_NB), 0);
	NEED(close(first));
	FAILS(flock(second, LOCK_SH | LOCK_NB), EWOULDBLOCK);
	NEED(close(copy));
	IS(flock(second, LOCK_EX | LOCK_NB), 0);
	NEED(flock(second, LOCK_UN));
	/* A read-only descriptor will do. */
	int reader = (int)NEED(open("file", O_RDONLY));
	IS(flock(reader, LOCK_EX | LOCK_NB), 0);
}

static int flock_wait_child(unsigned unused)
{
	(void)unused;
	int fd = open_file();
	open_gate(&there);
	NEED(flock(fd, LOCK_EX));
	char text[4] = "";
	IS(pread(fd, text, 3, 0), 3);
	IS(memcmp(text, "now", 3), 0);
	return 0;
}

static void whole_wait(void)
{
	int fd = open_file();
	there = make_gate();
	NEED(flock(fd, LOCK_EX));
	pid_t pid = start(flock_wait_child, 0);
	pass_gate(&there);
	usleep(50000);
	IS(pwrite(fd, "now", 3, 0), 3);
	NEED(flock(fd, LOCK_UN)); /* the child has a copy of the descriptor: closing ours frees nothing */
	IS(join(pid), 0);
}

/* Readings and writings under a lock, by many: no count is lost. */
static int counter(unsigned kind)
{
	int fd = open_file();
	for (unsigned i = 0; i < options.rounds; i++) {
		unsigned count = 0;
		if (kind & 1)
			NEED(flock(fd, LOCK_EX));
		else
			NEED(lock(fd, F_SETLKW, F_WRLCK, 0, 0));
		NEED(pread(fd, &count, sizeof count, 0));
		count++;
		usleep(1000); /* all the others are at the lock by then, or past one that does not hold */
		NEED(pwrite(fd, &count, sizeof count, 0));
		if (kind & 1)
			NEED(flock(fd, LOCK_UN));
		else
			NEED(lock(fd, F_SETLK, F_UNLCK, 0, 0));
	}
	return 0;
}

static int count_by_posix(unsigned unused)
{
	return (void)unused, counter(0);
}
static int count_by_flock(unsigned unused)
{
	return (void)unused, counter(1);
}

static void mutual(int (*run)(unsigned))
{
	run_all(run, options.workers);
	unsigned count = 0;
	IS(read(open_file(), &count, sizeof count), sizeof count);
	IS(count, options.workers * options.rounds);
}

static void mutual_posix(void)
{
	mutual(count_by_posix);
}
static void mutual_flock(void)
{
	mutual(count_by_flock);
}

static const struct check checks[] = {
	{ "posix-ranges", process_ranges },
	{ "posix-getlk", process_getlk },
	{ "posix-freed-by-close", process_close },
	{ "posix-freed-by-end", process_end },
	{ "posix-not-inherited", process_fork },
	{ "posix-wait", process_wait },
	{ "posix-deadlock", process_deadlock },
	{ "refused", refused },
	{ "ofd", ofd },
	{ "ofd-inherited", ofd_fork },
	{ "ofd-wait", ofd_wait },
	{ "flock", whole },
	{ "flock-wait", whole_wait },
	{ "mutual-posix", mutual_posix },
	{ "mutual-flock", mutual_flock },
	{ 0 },
};
const struct check_group locks_group = { "locks", checks };
