#include "snapshot/tool.h"

#include "base/fd.h"
#include "base/process.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORDS 400 /* of what it says, in an error */

/* A file in memory for what it says: it never waits for us to read. */
static int open_output(void)
{
	int fd SM_FD_CLEANUP = memfd_create("output", MFD_CLOEXEC);
	int code = fd < 0 ? -errno : sm_process_lift(&fd);
	return code < 0 ? code : sm_fd_take(&fd);
}

/* One line of its last words. */
static void last_words(int output, char words[WORDS])
{
	struct stat st;
	off_t size = fstat(output, &st) == 0 ? st.st_size : 0;
	ssize_t got = pread(output, words, WORDS - 1, size > WORDS - 1 ? size - (WORDS - 1) : 0);
	size_t len = got > 0 ? (size_t)got : 0;
	while (len && (words[len - 1] == '\n' || words[len - 1] == ' '))
		len--;
	words[len] = '\0';
	for (size_t i = 0; i < len; i++)
		if (words[i] == '\n' || words[i] == '\r' || words[i] == '\t')
			words[i] = ' ';
}

int sm_tool_run(const char *const *argv, const char *package, int fine, struct sm_error *err)
{
	int output SM_FD_CLEANUP = open_output();
	if (output < 0)
		return sm_error_sys(err, output, "%s", argv[0]);
	pid_t pid;
	int code = sm_process_start(argv, (int[]){ -1, output, output }, false, &pid), status = 0;
	if (code == -ENOENT)
		return sm_error_set(err, ENOENT, "%s is not installed: it is in the package %s", argv[0], package);
	if (code < 0)
		return sm_error_sys(err, code, "run %s", argv[0]);
	/* Whoever waits for all children may have taken it: then how it ended is not for us to know. */
	pid_t ended;
	while ((ended = waitpid(pid, &status, 0)) < 0 && errno == EINTR) {
	}
	char words[WORDS];
	last_words(output, words);
	if (ended < 0)
		return sm_error_sys(err, errno, "%s: wait for it", argv[0]);
	if (WIFSIGNALED(status))
		return sm_error_set(err, EIO, "%s was killed by signal %d: %s", argv[0], WTERMSIG(status), words);
	if (WEXITSTATUS(status) > fine)
		return sm_error_set(err, EIO, "%s ended with %d: %s", argv[0], WEXITSTATUS(status), words);
	return WEXITSTATUS(status);
}
