/* The checks of the POSIX file-system suite.
 *
 * Each runs in a process of its own, in an empty folder of its own that is also its current one, as root, with umask
 * 022. What is wrong is a line: check, place, expression, expected and got.  IS and FAILS go on after a failure, NEED
 * does not.  A check that cannot run here says why, by CANNOT. */
#ifndef SM_SPEC_FS_POSIX_H
#define SM_SPEC_FS_POSIX_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct check {
	const char *name;
	void (*run)(void);
};

struct check_group {
	const char *name;
	const struct check *checks; /* the last has no name */
};

/* What main.c was told. */
struct options {
	unsigned entries; /* files in a large folder */
	unsigned workers; /* processes at once */
	unsigned rounds;  /* of what is repeated to hit a moment */
	uint64_t big;     /* offset of what is far out, bytes */
	uint64_t full;    /* a file system with no more free bytes than this may be filled */
};
extern struct options options;

extern const struct check_group perms_group, owners_group, rename_group, exchange_group, links_group, names_group,
    times_group, locks_group, sparse_group, mapping_group, opening_group, unlinked_group, data_group, xattr_group,
    folders_group, parallel_group, special_group, space_group;

/* In base 10, and in octal for what comes from a mode. */
void check_is(const char *file, int line, const char *expression, intmax_t got, intmax_t expected);
void check_fails(const char *file, int line, const char *expression, intmax_t got, int error, int expected);
intmax_t check_need(const char *file, int line, const char *expression, intmax_t got);
_Noreturn void check_stop(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
_Noreturn void check_cannot(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define IS(expression, expected) check_is(__FILE__, __LINE__, #expression, (intmax_t)(expression), (intmax_t)(expected))
/* -1, with that errno. */
#define FAILS(expression, expected) \
	do { \
		errno = 0; \
		intmax_t got_ = (intmax_t)(expression); \
		check_fails(__FILE__, __LINE__, #expression, got_, errno, (expected)); \
	} while (0)
/* Not negative, or the check ends here; its value. */
#define NEED(expression) check_need(__FILE__, __LINE__, #expression, (intmax_t)(expression))
/* Has anything failed in this process? */
bool check_failed(void);
#define STOP(...)   check_stop(__FILE__, __LINE__, __VA_ARGS__)
#define CANNOT(...) check_cannot(__VA_ARGS__)

/* tools.c: short forms; where one of these fails, the check ends. */
void make_file(const char *path, const char *text); /* 0644 */
void make_bytes(const char *path, size_t bytes);    /* of a pattern that differs from place to place */
uint8_t pattern(uint64_t offset);
void expect_text(const char *file, int line, const char *path, const char *text);
#define TEXT(path, text) expect_text(__FILE__, __LINE__, path, text)
/* Bytes [from, to) of the file are the pattern's, or all zero. */
void expect_range(const char *file, int line, int fd, uint64_t from, uint64_t to, bool zero);
#define PATTERN(fd, from, to) expect_range(__FILE__, __LINE__, fd, from, to, false)
#define ZEROS(fd, from, to)   expect_range(__FILE__, __LINE__, fd, from, to, true)
void write_all(int fd, const void *data, size_t bytes);
struct stat status_of(const char *path); /* lstat */
unsigned mode_of(const char *path);      /* permission bits */
bool exists(const char *path);           /* lstat */
/* How many names the folder has, without . and .. */
unsigned count_entries(const char *path);
/* Until a file's change time has moved on from `since`. */
void tick(struct timespec since);
int compare_times(struct timespec a, struct timespec b);
/* In a loop's head: the body runs with these effective IDs and no other groups.  Never leave it but by its end. */
int become(uid_t uid, gid_t gid);
int unbecome(void);
#define AS(uid, gid) for (int as_ = become(uid, gid); as_; as_ = unbecome())
/* A child that runs the function with `number`; what it returns is its exit status. */
pid_t start(int (*run)(unsigned number), unsigned number);
/* Its exit status; a failure where it died. */
int join(pid_t pid);
/* `count` children that begin together; each must end with 0. */
void run_all(int (*run)(unsigned number), unsigned count);
/* A pair of ends between which one byte is a signal. */
struct gate {
	int ends[2];
};
struct gate make_gate(void);
void open_gate(const struct gate *gate);
void pass_gate(const struct gate *gate); /* waits for one opening */
void remove_tree(int folder, const char *name);
/* The suite's own program at that path, so that it can be run: with --exit-with N, --exit-euid, --wait. */
void copy_program(const char *path);
/* What the program does as such a copy: its exit status, or -1 where it is the suite. */
int program_main(int argc, char **argv);
int run_program(const char *path, const char *option, const char *value); /* exit status; -errno where exec failed */

/* churn.c: use the folder without end; says `round N' now and then, and what was wrong. */
int churn(const char *path);

/* calls.c: what this C library lacks. */
int call_renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags);
#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE  2
#endif
ssize_t call_getdents(int fd, void *buffer, size_t bytes);

/* mutants.c: each makes one system call lie, so that it shows which checks notice. */
bool mutants_choose(const char *name);
void mutants_list(void);
void mutants_begin(void); /* from now on, in this process */

#endif
