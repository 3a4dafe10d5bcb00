#include "identity.h"
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FOLDER        "/run/supermachine"
#define MACHINE_ID    "/etc/machine-id"
#define BOOT_ID       "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_COVER FOLDER "/boot_id"

void sm_identity_text(const uint8_t id[16], char text[SM_IDENTITY_TEXT])
{
	static const char digits[] = "0123456789abcdef";
	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*text++ = '-';
		*text++ = digits[id[i] >> 4];
		*text++ = digits[id[i] & 15];
	}
	*text = 0;
}

static int write_all(int fd, const uint8_t *bytes, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t put = pwrite(fd, bytes + done, len - done, (off_t)done);
		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return -1;
		done += (size_t)put;
	}
	return ftruncate(fd, (off_t)len);
}

/* In place, since a mount may show this very file elsewhere.  Whoever reads it meanwhile never finds it empty. */
static int write_file(const char *path, int flags, mode_t mode, const void *bytes, size_t len,
                      struct sm_failure *failure)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK | flags, mode);
	int code = fd < 0 ? -1 : write_all(fd, bytes, len);
	if (code < 0)
		sm_fail_errno(failure, "write %s", path);
	if (fd >= 0)
		close(fd);
	return code;
}

/* machine-id(5): 32 hexadecimal digits and a newline.  An image without one is left without. */
static int write_machine_id(const char *text, struct sm_failure *failure)
{
	struct stat status;
	char line[34], *at = line;
	if (stat(MACHINE_ID, &status) < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : sm_fail_errno(failure, "file " MACHINE_ID);
	if (!S_ISREG(status.st_mode))
		return 0;
	for (; *text; text++)
		if (*text != '-')
			*at++ = *text;
	*at++ = '\n';
	return write_file(MACHINE_ID, 0, 0, line, (size_t)(at - line), failure);
}

static int write_line(const char *path, const char *text, struct sm_failure *failure)
{
	char line[SM_IDENTITY_TEXT + 1];
	int len = snprintf(line, sizeof line, "%s\n", text);
	return write_file(path, O_CREAT | O_NOFOLLOW, 0444, line, (size_t)len, failure);
}

/* The kernel draws its boot ID once: a file is laid over it, as systemd-nspawn(1) does. */
static int cover_boot_id(const char *text, struct sm_failure *failure)
{
	struct statfs status;
	if (write_line(BOOT_ID_COVER, text, failure) < 0)
		return -1;
	if (statfs(BOOT_ID, &status) < 0)
		return sm_fail_errno(failure, "file " BOOT_ID);
	if (status.f_type == SM_PROC_MAGIC && mount(BOOT_ID_COVER, BOOT_ID, NULL, MS_BIND, NULL) < 0)
		return sm_fail_errno(failure, "mount on " BOOT_ID);
	return 0;
}

/* RFC 9562, version 4. */
static int renew_boot_id(struct sm_failure *failure)
{
	uint8_t id[16];
	char text[SM_IDENTITY_TEXT];
	if (getrandom(id, sizeof id, 0) != (ssize_t)sizeof id)
		return sm_fail_errno(failure, "boot ID: random bytes");
	id[6] = (uint8_t)((id[6] & 0x0f) | 0x40);
	id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
	sm_identity_text(id, text);
	return cover_boot_id(text, failure);
}

void sm_identity_prepare(void)
{
	struct sm_failure failure;
	char text[SM_IDENTITY_TEXT];
	int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	if (len != sizeof text - 1 || sm_mounts_memory(FOLDER, &failure) < 0)
		return;
	text[len] = 0;
	cover_boot_id(text, &failure);
}

int sm_identity_write(const uint8_t id[16], struct sm_failure *failure)
{
	char text[SM_IDENTITY_TEXT];
	sm_identity_text(id, text);
	if (sm_mounts_memory(FOLDER, failure) < 0 || write_line(FOLDER "/id", text, failure) < 0 ||
	    write_machine_id(text, failure) < 0)
		return -1;
	return renew_boot_id(failure);
}

int sm_identity_write_secret(const char *path, const uint8_t *value, size_t len, struct sm_failure *failure)
{
	char folder[PATH_MAX];
	const char *name = strrchr(path, '/');
	if (path[0] != '/' || !name[1] || name == path || strlen(path) >= sizeof folder) {
		errno = EINVAL;
		return sm_fail_errno(failure, "secret '%.128s'", path);
	}
	snprintf(folder, sizeof folder, "%.*s", (int)(name - path), path);
	if (sm_mounts_memory(folder, failure) < 0)
		return -1;
	if (unlink(path) < 0 && errno != ENOENT)
		return sm_fail_errno(failure, "secret '%.128s'", path);
	return write_file(path, O_CREAT | O_EXCL | O_NOFOLLOW, 0400, value, len, failure);
}
