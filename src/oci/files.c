#include "oci/files.h"

#include "base/fd.h"
#include "base/path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK (128u << 10)

int sm_oci_files_open_regular(const char *path, uint64_t *ret_size, struct sm_error *err)
{
	struct stat status;
	/* O_NONBLOCK: a FIFO in a file's place must not hang the pull. */
	SM_FD_CLEANUP int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return sm_error_sys(err, errno, "open '%s'", path);
	if (fstat(fd, &status) < 0)
		return sm_error_sys(err, errno, "'%s'", path);
	if (!S_ISREG(status.st_mode))
		return sm_error_set(err, EBADMSG, "'%s' is not a regular file", path);
	*ret_size = (uint64_t)status.st_size;
	return sm_fd_take(&fd);
}

static int folder_read(struct sm_oci_files *files, const char *name, sm_oci_sink sink, void *arg, struct sm_error *err)
{
	char path[PATH_MAX];
	uint64_t size;
	int code = sm_path_format(path, err, "%s/%s", files->path, name);
	if (code < 0)
		return code;
	SM_FD_CLEANUP int fd = sm_oci_files_open_regular(path, &size, err);
	if (fd < 0)
		return fd;
	char *chunk = malloc(CHUNK);
	if (!chunk)
		return sm_error_sys(err, ENOMEM, "read '%s'", path);
	do {
		ssize_t got = read(fd, chunk, CHUNK);
		if (files->cancel && atomic_load(files->cancel))
			code = sm_error_sys(err, ECANCELED, "read '%s'", path);
		else if (got > 0)
			code = sink(arg, chunk, (size_t)got);
		else if (got == 0)
			break;
		else if (errno != EINTR)
			code = sm_error_sys(err, errno, "read '%s'", path);
	} while (code == 0);
	free(chunk);
	return code;
}

static void folder_free(struct sm_oci_files *files)
{
	free(files);
}

int sm_oci_files_open_folder(const char *path, const atomic_bool *cancel, struct sm_oci_files **ret,
                             struct sm_error *err)
{
	static const struct sm_oci_files_ops ops = { .read = folder_read, .free = folder_free };
	struct sm_oci_files *files = calloc(1, sizeof *files);
	if (!files)
		return sm_error_sys(err, ENOMEM, "open '%s'", path);
	files->ops = &ops;
	files->cancel = cancel;
	snprintf(files->path, sizeof files->path, "%s", path);
	*ret = files;
	return 0;
}

void sm_oci_files_free(struct sm_oci_files *files)
{
	if (files)
		files->ops->free(files);
}

int sm_oci_files_read(struct sm_oci_files *files, const char *name, sm_oci_sink sink, void *arg, struct sm_error *err)
{
	return files->ops->read(files, name, sink, arg, err);
}

int sm_oci_files_read_small(struct sm_oci_files *files, const char *name, struct sm_buf *ret, struct sm_error *err)
{
	struct sm_error own = { 0 };
	int code = sm_oci_files_read(files, name, sm_oci_source_collect, ret, &own);
	if (code == -EFBIG && !own.code)
		return sm_error_set(err, EFBIG, "'%s/%s': larger than %zu bytes", files->path, name, ret->max);
	if (code < 0 && own.code)
		return sm_error_set(err, own.code, "%s", own.message);
	return code < 0 ? sm_error_sys(err, code, "read '%s/%s'", files->path, name) : 0;
}
