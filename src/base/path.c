#include "base/path.h"

#include "base/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define REMOVE_DEPTH_MAX 256 /* each level holds one descriptor */
#define NAME_TRIES       100

static int xdg_home(char out[PATH_MAX], const char *variable, const char *below_home, const char *program,
                    struct sm_error *err)
{
	const char *base = getenv(variable);
	/* The specification: a relative path is invalid and to be ignored. */
	if (base && base[0] == '/')
		return sm_path_format(out, err, "%s/%s", base, program);
	const char *home = getenv("HOME");
	if (!home || home[0] != '/')
		return sm_error_set(err, ENOENT, "neither $%s nor $HOME is set to an absolute path", variable);
	return sm_path_format(out, err, "%s/%s/%s", home, below_home, program);
}

int sm_path_data_home(char out[PATH_MAX], struct sm_error *err)
{
	return xdg_home(out, "XDG_DATA_HOME", ".local/share", "supermachine", err);
}

int sm_path_cache_home(char out[PATH_MAX], struct sm_error *err)
{
	return xdg_home(out, "XDG_CACHE_HOME", ".cache", "supermachine", err);
}

int sm_path_config_home(const char *program, char out[PATH_MAX], struct sm_error *err)
{
	return xdg_home(out, "XDG_CONFIG_HOME", ".config", program, err);
}

int sm_path_format(char out[PATH_MAX], struct sm_error *err, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int len = vsnprintf(out, PATH_MAX, format, args);
	va_end(args);
	if (len < 0 || len >= PATH_MAX) {
		int code = sm_error_sys(err, ENAMETOOLONG, "path '%.64s...'", out);
		out[0] = 0;
		return code;
	}
	return 0;
}

int sm_path_make_dirs(const char *path, mode_t mode, struct sm_error *err)
{
	char partial[PATH_MAX];
	int code = sm_path_format(partial, err, "%s", path);
	if (code < 0)
		return code;
	for (char *at = partial + 1; partial[0]; at++) {
		if (*at && *at != '/')
			continue;
		char kept = *at;
		*at = 0;
		if (mkdir(partial, mode) < 0 && errno != EEXIST)
			return sm_error_sys(err, errno, "make folder '%s'", partial);
		*at = kept;
		if (!kept)
			break;
	}
	struct stat status;
	if (stat(path, &status) < 0)
		return sm_error_sys(err, errno, "make folder '%s'", path);
	if (!S_ISDIR(status.st_mode))
		return sm_error_sys(err, ENOTDIR, "make folder '%s'", path);
	return 0;
}

static int remove_entry(int dir_fd, const char *name, unsigned depth);

static int remove_content(int dir_fd, unsigned depth)
{
	/* fdopendir takes the descriptor; the caller keeps its own. */
	int fd = sm_fd_dup(dir_fd);
	if (fd < 0)
		return fd;
	DIR *dir = fdopendir(fd);
	if (!dir) {
		int code = -errno;
		sm_fd_close(&fd);
		return code;
	}
	int code = 0;
	while (!code) {
		errno = 0;
		struct dirent *entry = readdir(dir);
		if (!entry) {
			code = -errno;
			break;
		}
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			code = remove_entry(dir_fd, entry->d_name, depth + 1);
	}
	closedir(dir);
	return code;
}

/* Somebody else removing the same tree at the same time is no failure. */
static int remove_entry(int dir_fd, const char *name, unsigned depth)
{
	if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	/* Linux says EISDIR for a folder, POSIX says EPERM. */
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	int unlink_errno = errno;
	if (depth > REMOVE_DEPTH_MAX)
		return -ELOOP;
	SM_FD_CLEANUP int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		if (errno == ENOENT)
			return 0;
		return errno == ENOTDIR || errno == ELOOP ? -unlink_errno : -errno;
	}
	int code = remove_content(fd, depth);
	if (code < 0)
		return code;
	return unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

int sm_path_remove_tree(const char *path, struct sm_error *err)
{
	int code = remove_entry(AT_FDCWD, path, 0);
	return code < 0 ? sm_error_sys(err, code, "remove '%s'", path) : 0;
}

static bool is_leftover(const char *name, const char *path_name, const char *infix)
{
	size_t len = strlen(path_name), middle = strlen(infix);
	return !strncmp(name, path_name, len) && !strncmp(name + len, infix, middle) &&
	       strlen(name + len + middle) == strlen("XXXXXX");
}

void sm_path_remove_leftovers(const char *path, const char *infix, bool folders)
{
	const char *slash = strrchr(path, '/');
	char parent[PATH_MAX];
	if (sm_path_format(parent, NULL, "%.*s", slash ? (int)(slash - path) + 1 : 2, slash ? path : "./") < 0)
		return;
	DIR *dir = opendir(parent);
	if (!dir)
		return;
	for (const struct dirent *entry; (entry = readdir(dir));) {
		struct stat st;
		if (!is_leftover(entry->d_name, slash ? slash + 1 : path, infix))
			continue;
		int fd SM_FD_CLEANUP =
		    openat(dirfd(dir), entry->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st) < 0 || !(folders ? S_ISDIR(st.st_mode) : S_ISREG(st.st_mode)))
			continue;
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			remove_entry(dirfd(dir), entry->d_name, 0);
	}
	closedir(dir);
}

/* Six characters of the kind mkstemp uses. */
static int random_suffix(char out[7])
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	unsigned char bytes[6];
	if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
		return -errno;
	for (size_t i = 0; i < sizeof bytes; i++)
		out[i] = letters[bytes[i] % (sizeof letters - 1)];
	out[6] = 0;
	return 0;
}

/* Not mkstemp: its mode is 0600, and what the umask leaves of `mode` is only known to open(2). */
int sm_path_new_begin(struct sm_path_new *file, const char *path, mode_t mode, struct sm_error *err)
{
	file->fd = -1;
	file->temporary[0] = 0;
	int code = sm_path_format(file->path, err, "%s", path);
	for (int i = 0; !code && i < NAME_TRIES; i++) {
		char suffix[7];
		code = random_suffix(suffix);
		if (code < 0)
			return sm_error_sys(err, code, "create '%s'", path);
		code = sm_path_format(file->temporary, err, "%s.tmp.%s", path, suffix);
		if (code < 0)
			return code;
		file->fd = open(file->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
		if (file->fd >= 0)
			return 0;
		if (errno != EEXIST)
			return sm_error_sys(err, errno, "create '%s'", file->temporary);
	}
	return code < 0 ? code : sm_error_sys(err, EEXIST, "create '%s'", file->temporary);
}

static int sync_parent(const char *path, struct sm_error *err)
{
	char parent[PATH_MAX];
	const char *slash = strrchr(path, '/');
	int len = slash ? (int)(slash - path) : 0;
	int code = sm_path_format(parent, err, "%.*s", len, path);
	if (code < 0)
		return code;
	return sm_path_sync_dir(slash ? (len ? parent : "/") : ".", err);
}

int sm_path_new_commit(struct sm_path_new *file, struct sm_error *err)
{
	int code = 0;
	if (fsync(file->fd) < 0)
		code = sm_error_sys(err, errno, "write '%s'", file->temporary);
	else if (rename(file->temporary, file->path) < 0)
		code = sm_error_sys(err, errno, "rename '%s' to '%s'", file->temporary, file->path);
	if (code < 0) {
		sm_path_new_discard(file);
		return code;
	}
	sm_fd_close(&file->fd);
	return sync_parent(file->path, err);
}

void sm_path_new_discard(struct sm_path_new *file)
{
	if (file->fd < 0)
		return;
	unlink(file->temporary);
	sm_fd_close(&file->fd);
}

int sm_path_sync_dir(const char *path, struct sm_error *err)
{
	SM_FD_CLEANUP int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return sm_error_sys(err, errno, "open folder '%s'", path);
	/* EINVAL: a file system whose folders need no sync. */
	if (fsync(fd) < 0 && errno != EINVAL)
		return sm_error_sys(err, errno, "sync folder '%s'", path);
	return 0;
}

int sm_path_read(const char *path, size_t max, char **ret_data, size_t *ret_len, struct sm_error *err)
{
	*ret_data = NULL;
	*ret_len = 0;
	/* O_NONBLOCK: a FIFO in the file's place must not hang the caller. */
	SM_FD_CLEANUP int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return sm_error_sys(err, errno, "open '%s'", path);
	struct stat status;
	if (fstat(fd, &status) < 0)
		return sm_error_sys(err, errno, "read '%s'", path);
	if (S_ISDIR(status.st_mode))
		return sm_error_sys(err, EISDIR, "read '%s'", path);
	if (!S_ISREG(status.st_mode))
		return sm_error_set(err, EINVAL, "read '%s': not a regular file", path);
	/* The size is a hint (0 in /proc); one byte more shows the end, or that the file is too large. */
	size_t cap = (status.st_size > 0 && (size_t)status.st_size < max ? (size_t)status.st_size : max) + 1;
	if (status.st_size == 0 && cap > 4096)
		cap = 4096;
	size_t len = 0;
	char *data = malloc(cap + 1);
	for (;;) {
		if (!data)
			return sm_error_sys(err, ENOMEM, "read '%s'", path);
		ssize_t got = read(fd, data + len, cap - len);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			int code = sm_error_sys(err, errno, "read '%s'", path);
			free(data);
			return code;
		}
		len += (size_t)got;
		if (got == 0)
			break;
		if (len > max) {
			free(data);
			return sm_error_set(err, EFBIG, "read '%s': larger than %zu bytes", path, max);
		}
		if (len == cap) {
			cap = cap > max / 2 ? max + 1 : cap * 2;
			char *grown = realloc(data, cap + 1);
			if (!grown)
				free(data);
			data = grown;
		}
	}
	data[len] = 0;
	*ret_data = data;
	*ret_len = len;
	return 0;
}
