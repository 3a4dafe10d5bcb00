/* INTERPRETER: have the kernel run another architecture's programs by an emulator (binfmt_misc). */
#include "init.h"
#include "requests.h"

#include "agent/protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#define FOLDER   "/proc/sys/fs/binfmt_misc"
#define WORD_MAX 1920 /* bytes the kernel takes at once: fs/binfmt_misc.c */

/* The body, decoded.  Everything points into it. */
struct request {
	const char *name, *path;
	const uint8_t *magic, *mask;
	size_t len;
};

static bool decode(struct request *request, struct sm_wire *body)
{
	size_t mask_len = 0;
	request->name = sm_wire_string(body);
	request->path = sm_wire_string(body);
	request->magic = sm_wire_bytes(body, &request->len);
	request->mask = sm_wire_bytes(body, &mask_len);
	return sm_wire_ended(body) && request->name[0] && request->path[0] == '/' && request->len &&
	       request->len <= 128 && mask_len == request->len && strlen(request->name) <= 64 &&
	       strlen(request->path) <= 512 && !strpbrk(request->name, "/:") && !strchr(request->path, ':');
}

static int write_word(const char *path, const char *word, size_t len)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t written = fd < 0 ? -1 : write(fd, word, len);
	int code = written == (ssize_t)len ? 0 : written < 0 ? -errno : -EIO;
	if (fd >= 0)
		close(fd);
	return code;
}

static size_t put_bytes(char *at, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		snprintf(at + 4 * i, 5, "\\x%02x", bytes[i]);
	return 4 * len;
}

/* Flags (admin-guide/binfmt-misc): P: argv[0] stays what it was; O, C: the program is opened for the emulator, and a
 * set-user-ID one counts; F: the emulator is opened now, so that it is found whatever the program's root is. */
static int enter(const struct request *request, struct sm_failure *failure)
{
	char word[WORD_MAX], entry[128];
	if (mount("binfmt_misc", FOLDER, "binfmt_misc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 && errno != EBUSY)
		return sm_fail_errno(failure, "mount binfmt_misc");
	snprintf(entry, sizeof entry, FOLDER "/%s", request->name);
	int code = write_word(entry, "-1", 2);
	if (code < 0 && code != -ENOENT) {
		errno = -code;
		return sm_fail_errno(failure, "remove %s", entry);
	}
	size_t len = (size_t)snprintf(word, sizeof word, ":%s:M:0:", request->name);
	len += put_bytes(word + len, request->magic, request->len);
	word[len++] = ':';
	len += put_bytes(word + len, request->mask, request->len);
	len += (size_t)snprintf(word + len, sizeof word - len, ":%s:POCF", request->path);
	errno = -write_word(FOLDER "/register", word, len);
	return errno ? sm_fail_errno(failure, "interpreter %.128s", request->path) : 0;
}

void sm_interpreter_open(struct sm_conn *conn, struct sm_wire *body)
{
	struct request request;
	struct sm_failure failure = { .code = 0 };
	if (!decode(&request, body)) {
		sm_conn_fail(conn, EBADMSG, "malformed INTERPRETER request");
	} else if (!conn->agent->machine) {
		sm_conn_fail(conn, EPERM, "interpreter: this agent is not a machine's init");
	} else if (enter(&request, &failure) < 0) {
		sm_conn_fail(conn, failure.code, "%s", failure.message);
	} else {
		sm_conn_send(conn, SM_AGENT_OK, NULL, 0);
		sm_conn_finish(conn);
	}
}
