/* posix FOLDER: the POSIX file-system suite, run in a folder of the file system that is judged.
 * One static program, so that it runs in any guest; as root, since half of what it asks is about others. */
#include "posix.h"

#include <dirent.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>

#define CHOSEN_MAX  64
#define STATUS_SKIP 77

struct options options = {
	.entries = 10000, .workers = 4, .rounds = 40, .big = UINT64_C(5) << 30, .full = UINT64_C(64) << 20
};

static const struct check_group *const groups[] = {
	&perms_group, &owners_group, &rename_group,  &exchange_group, &links_group,   &names_group,
	&times_group, &locks_group,  &sparse_group,  &mapping_group,  &opening_group, &unlinked_group,
	&data_group,  &xattr_group,  &folders_group, &parallel_group, &special_group, &space_group,
};

static struct {
	const char *only[CHOSEN_MAX], *skip[CHOSEN_MAX];
	unsigned nonly, nskip, seconds;
	bool verbose;
} chosen = { .seconds = 300 };

static const char *running; /* the check's name */
static bool failed;         /* in this process */

/* One write a line: children report, too. */
static void say(const char *word, const char *format, va_list arguments)
{
	char line[1024];
	int used = snprintf(line, sizeof line, "%s %s: ", word, running);
	used += vsnprintf(line + used, sizeof line - (size_t)used, format, arguments);
	if ((size_t)used > sizeof line - 2)
		used = sizeof line - 2;
	line[used] = '\n';
	if (write(STDOUT_FILENO, line, (size_t)used + 1) < 0)
		_exit(2);
}

static void fail(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	say("FAILED", format, arguments);
	va_end(arguments);
	failed = true;
}

bool check_failed(void)
{
	return failed;
}

static const char *base(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

void check_is(const char *file, int line, const char *expression, intmax_t got, intmax_t expected)
{
	const char *format =
	    strstr(expression, "mode") ? "%s:%d: %s: expected 0%jo, got 0%jo" : "%s:%d: %s: expected %jd, got %jd";
	int error = errno;
	if (got == -1 && expected >= 0)
		fail("%s:%d: %s: expected %jd, got -1 (%s)", base(file), line, expression, expected, strerror(error));
	else if (got != expected)
		fail(format, base(file), line, expression, expected, got);
}

void check_fails(const char *file, int line, const char *expression, intmax_t got, int error, int expected)
{
	if (got >= 0)
		fail("%s:%d: %s: expected %s, got %jd", base(file), line, expression, strerror(expected), got);
	else if (error != expected)
		fail("%s:%d: %s: expected %s, got %s", base(file), line, expression, strerror(expected),
		     strerror(error));
}

intmax_t check_need(const char *file, int line, const char *expression, intmax_t got)
{
	if (got < 0)
		check_stop(file, line, "%s: expected success, got %s", expression, strerror(errno));
	return got;
}

void check_stop(const char *file, int line, const char *format, ...)
{
	char text[600];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	fail("%s:%d: %s", base(file), line, text);
	_exit(1);
}

void check_cannot(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	say("cannot", format, arguments);
	va_end(arguments);
	_exit(STATUS_SKIP);
}

static _Noreturn void usage(void)
{
	fprintf(stderr,
	        "usage: posix [--list] [--list-mutants] [--only NAME]... [--skip NAME]... [--mutant NAME]\n"
	        "             [--entries N] [--workers N] [--rounds N] [--big BYTES] [--full BYTES] [--seconds N]\n"
	        "             [--verbose] FOLDER\n"
	        "       posix --churn FOLDER\n"
	        "NAME is a group or group.check.\n");
	exit(2);
}

/* Does one of the names mean this check, or its group? */
static bool is_named(const char *const *names, unsigned count, const char *group, const char *full)
{
	for (unsigned i = 0; i < count; i++)
		if (!strcmp(names[i], group) || !strcmp(names[i], full))
			return true;
	return false;
}

static bool is_known(const char *name)
{
	char full[128];
	for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
		for (const struct check *check = groups[i]->checks; check->name; check++) {
			snprintf(full, sizeof full, "%s.%s", groups[i]->name, check->name);
			if (!strcmp(name, full) || !strcmp(name, groups[i]->name))
				return true;
		}
	return false;
}

/* In the child: a folder of its own, and the check. */
static _Noreturn void run_here(const struct check *check, int folder)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || setpgid(0, 0) < 0 || fchdir(folder) < 0)
		STOP("%s", strerror(errno));
	umask(022);
	alarm(chosen.seconds);
	mutants_begin();
	check->run();
	_exit(failed ? 1 : 0);
}

enum result { PASSED, FAILED, SKIPPED };

static enum result run_one(const struct check *check, int root)
{
	failed = false;
	if (mkdirat(root, running, 0755) < 0) {
		fail("mkdir: %s", strerror(errno));
		return FAILED;
	}
	int folder = openat(root, running, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	pid_t pid = folder < 0 ? -1 : fork();
	if (pid == 0)
		run_here(check, folder);
	if (pid < 0) {
		fail("open, fork: %s", strerror(errno));
		return FAILED;
	}
	close(folder);
	int status;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return FAILED;
	kill(-pid, SIGKILL);
	if (WIFSIGNALED(status))
		fail("ended by signal %d%s", WTERMSIG(status), WTERMSIG(status) == SIGALRM ? ", the time limit" : "");
	else if (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != STATUS_SKIP)
		failed = true;
	remove_tree(root, running);
	if (faccessat(root, running, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		fail("its folder cannot be removed");
	if (failed)
		return FAILED;
	return WIFEXITED(status) && WEXITSTATUS(status) == STATUS_SKIP ? SKIPPED : PASSED;
}

static int run_chosen(const char *path)
{
	unsigned counts[3] = { 0 };
	char name[64];
	snprintf(name, sizeof name, "posix-%d", (int)getpid());
	int above = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (above < 0 || mkdirat(above, name, 0755) < 0) {
		fprintf(stderr, "posix: %s: %s\n", path, strerror(errno));
		return 2;
	}
	int root = openat(above, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
		for (const struct check *check = groups[i]->checks; check->name; check++) {
			char full[128];
			snprintf(full, sizeof full, "%s.%s", groups[i]->name, check->name);
			running = full;
			if (chosen.nonly && !is_named(chosen.only, chosen.nonly, groups[i]->name, full))
				continue;
			if (is_named(chosen.skip, chosen.nskip, groups[i]->name, full))
				continue;
			struct timespec begin, end;
			clock_gettime(CLOCK_MONOTONIC, &begin);
			counts[run_one(check, root)]++;
			clock_gettime(CLOCK_MONOTONIC, &end);
			if (chosen.verbose)
				printf("%6.0f ms %s\n",
				       (double)(end.tv_sec - begin.tv_sec) * 1e3 +
				           (double)(end.tv_nsec - begin.tv_nsec) / 1e6,
				       full);
			fflush(stdout);
		}
	close(root);
	if (unlinkat(above, name, AT_REMOVEDIR) < 0) {
		printf("FAILED suite.clean: rmdir %s: %s\n", name, strerror(errno));
		counts[FAILED]++;
	}
	printf("%u passed, %u failed, %u cannot run\n", counts[PASSED], counts[FAILED], counts[SKIPPED]);
	return counts[FAILED] || !counts[PASSED] ? 1 : 0;
}

static uint64_t number_of(const char *text)
{
	char *end;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (errno || end == text || *end)
		usage();
	return value;
}

static void list(void)
{
	for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
		for (const struct check *check = groups[i]->checks; check->name; check++)
			printf("%s.%s\n", groups[i]->name, check->name);
}

/* A name that is none would quietly choose nothing. */
static void add_name(const char **names, unsigned *count, const char *name)
{
	if (*count == CHOSEN_MAX || !is_known(name)) {
		fprintf(stderr, "posix: %s: no such check, or too many names\n", name);
		exit(2);
	}
	names[(*count)++] = name;
}

static bool take_option(const char *key, const char *value)
{
	if (!strcmp(key, "--only"))
		add_name(chosen.only, &chosen.nonly, value);
	else if (!strcmp(key, "--skip"))
		add_name(chosen.skip, &chosen.nskip, value);
	else if (!strcmp(key, "--entries"))
		options.entries = (unsigned)number_of(value);
	else if (!strcmp(key, "--workers"))
		options.workers = (unsigned)number_of(value);
	else if (!strcmp(key, "--rounds"))
		options.rounds = (unsigned)number_of(value);
	else if (!strcmp(key, "--big"))
		options.big = number_of(value);
	else if (!strcmp(key, "--full"))
		options.full = number_of(value);
	else if (!strcmp(key, "--seconds"))
		chosen.seconds = (unsigned)number_of(value);
	else if (!strcmp(key, "--mutant"))
		return mutants_choose(value);
	else
		return false;
	return true;
}

int main(int argc, char **argv)
{
	int status = program_main(argc, argv);
	if (status >= 0)
		return status;
	int i = 1;
	for (; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--list"))
			return (list(), 0);
		if (!strcmp(argv[i], "--list-mutants"))
			return (mutants_list(), 0);
		if (!strcmp(argv[i], "--churn") && i + 2 == argc)
			return churn(argv[i + 1]);
		if (!strcmp(argv[i], "--verbose"))
			chosen.verbose = true;
		else if (i + 1 == argc || !take_option(argv[i], argv[i + 1]))
			usage();
		else
			i++;
	}
	if (i + 1 != argc)
		usage();
	if (geteuid() != 0) {
		fprintf(stderr, "posix: must be root\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	return run_chosen(argv[i]);
}
