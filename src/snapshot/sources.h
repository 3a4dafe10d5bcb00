/* The files a machine is made from: opened here, so that the machine itself opens no path. */
#ifndef SM_SNAPSHOT_SOURCES_H
#define SM_SNAPSHOT_SOURCES_H

#include "base/codec.h"
#include "base/error.h"
#include "plan/disk.h"
#include "plan/plan.h"
#include "snapshot/mounts.h"

#include <stdbool.h>
#include <stddef.h>

#define SM_SOURCES_DISKS_MAX 32
#define SM_SOURCES_PATHS_MAX 512

/* One disk: a file as it is, or the layers of an image as partitions of one composite disk. */
struct sm_source_disk {
	bool composite;
	unsigned npaths; /* 1 unless composite; lowest layer first */
	char **paths;    /* owned, absolute */
};

struct sm_sources {
	char *kernel; /* owned; NULL on restore */
	char *initrd; /* owned; NULL: none */
	unsigned ndisks;
	struct sm_source_disk disks[SM_SOURCES_DISKS_MAX];
	struct sm_source_mounts mounts;
};

/* Each copies its path(s) and makes them absolute. */
int sm_sources_set_kernel(struct sm_sources *sources, const char *path, struct sm_error *err);
int sm_sources_set_initrd(struct sm_sources *sources, const char *path, struct sm_error *err);
int sm_sources_add_disk(struct sm_sources *sources, bool composite, char *const *paths, unsigned npaths,
                        struct sm_error *err);
/* Append from's disks to to's; its mounts, too. */
int sm_sources_copy_disks(const struct sm_sources *from, struct sm_sources *to, struct sm_error *err);
int sm_sources_copy(const struct sm_sources *from, struct sm_sources *to, struct sm_error *err);
void sm_sources_done(struct sm_sources *sources);

/* The disks as a record (kernel and initramfs are in RAM by the time of a snapshot). */
void sm_sources_put(struct sm_buf *buf, const struct sm_sources *sources);
int sm_sources_get(struct sm_reader *reader, struct sm_sources *ret_sources, struct sm_error *err);

/* Everything opened, ready for a build. */
struct sm_opened {
	int kernel_fd, initrd_fd; /* -1: none */
	unsigned ndisks;
	struct sm_disk disks[SM_SOURCES_DISKS_MAX];
	void *owned[SM_SOURCES_DISKS_MAX];
	unsigned nmounts;
	struct sm_mount *mounts; /* of a snapshot: none, they are opened anew by each restore */
};
/* Strings are borrowed from the sources.  open: all of it. */
int sm_sources_open_mounts(const struct sm_source_mounts *mounts, struct sm_opened *opened, struct sm_error *err);
int sm_sources_open_disks(const struct sm_sources *sources, struct sm_opened *ret_opened, struct sm_error *err);
int sm_sources_open(const struct sm_sources *sources, struct sm_opened *ret_opened, struct sm_error *err);
void sm_opened_done(struct sm_opened *opened);

/* The hypervisor's device ("/dev/kvm" for NULL), with words on what to do when it is missing or closed to us. */
int sm_sources_open_hv(const char *path, struct sm_error *err);

#endif
