/* A snapshot folder without a machine, for specs of what else looks at it.
 *   fake_snapshot FOLDER IMAGE-DIGEST EROFS-FILE...
 * $PARENT, if set, is the folder of one that it leans on.
 * It is written as sm_snapshot_save does it, between sm_snapshot_stores_begin and _end; "begun" is printed after the
 * first, and then standard input is read to its end. */
#include "base/fd.h"
#include "snapshot/format.h"
#include "snapshot/stores.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int write_file(const char *folder, const char *name, const void *data, size_t len, struct sm_format_file *file,
                      struct sm_error *err)
{
	char path[PATH_MAX];
	int code = sm_path_format(path, err, "%s/%s", folder, name);
	int fd SM_FD_CLEANUP = code < 0 ? -1 : open(path, O_RDWR | O_CREAT | O_EXCL, 0644);
	if (fd < 0 || sm_fd_write_full(fd, data, len) < 0)
		return sm_error_set(err, EIO, "%s", name);
	if (!file)
		return 0;
	code = sm_format_hash(fd, file->sha256, err);
	return code < 0 ? code : sm_format_stamp(fd, file, err);
}

static int make(const char *folder, const char *image, char **paths, unsigned npaths, struct sm_error *err)
{
	static struct sm_format_meta meta;
	static struct sm_snapshot_stores stores;
	static const char page[4096] = "not a machine";
	char metadata[256];
	const struct sm_plan_config config = {
		.arch = sm_plan_arch_host(), .vcpus = 1, .memory_mib = 64, .blocks = npaths ? 1 : 0
	};
	int code = sm_plan_make(&config, &meta.plan, err);
	if (code == 0 && npaths)
		code = sm_sources_add_disk(&meta.sources, true, paths, npaths, err);
	if (code < 0 || (code = sm_snapshot_stores_begin(&meta.sources, folder, &stores, err)) < 0)
		return code;
	puts("begun");
	fflush(stdout);
	while (getchar() != EOF)
		;
	snprintf(metadata, sizeof metadata, "{\"image\":\"%s\"}", image);
	snprintf(meta.parent, sizeof meta.parent, "%s", getenv("PARENT") ? getenv("PARENT") : "");
	meta.metadata = (uint8_t *)metadata;
	meta.metadata_len = strlen(metadata);
	if (mkdir(folder, 0755) < 0)
		return sm_error_set(err, EEXIST, "%s", folder);
	if ((code = write_file(folder, "ram", page, sizeof page, &meta.ram, err)) < 0 ||
	    (code = write_file(folder, "state", page, 1, &meta.state, err)) < 0)
		return code;
	struct sm_buf buf SM_BUF_CLEANUP;
	sm_buf_init(&buf, 1u << 20);
	sm_format_put(&buf, &meta);
	code = write_file(folder, "meta", buf.data, buf.len, NULL, err);
	sm_snapshot_stores_end(&stores);
	sm_sources_done(&meta.sources);
	return code;
}

int main(int argc, char **argv)
{
	struct sm_error err = { 0 };
	if (argc < 3 || make(argv[1], argv[2], argv + 3, (unsigned)argc - 3, &err) < 0) {
		fprintf(stderr, "fake_snapshot: %s\n", err.message);
		return 1;
	}
	return 0;
}
