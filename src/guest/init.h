/* What init does before it serves: from the kernel's hands to the image's root. */
#ifndef SM_GUEST_INIT_H
#define SM_GUEST_INIT_H

#include <stdbool.h>
#include <stddef.h>

#define SM_INIT_DEVICE_WAIT_MS 10000

/* Options of the kernel command line, all named supermachine.NAME:
 *   root=/dev/vda | none   the disk with the layers; not given: /dev/vda if it has partitions, else none
 *   layers=N               refuse to start with another number of partitions
 *   upper=/dev/vdb         an ext4 volume for what is written; not given: memory
 *   upper_mib=N            most memory for what is written; not given: half of it
 *   hostname=NAME          not given: supermachine */
struct sm_options {
	char root[64];
	unsigned layers;
	char upper[64];
	unsigned upper_mib;
	char hostname[65];
};

/* Why something could not be done; the message names the file or device. */
struct sm_failure {
	char message[256];
	int code; /* errno, from sm_fail_errno */
};

/* Every step: 0, or -1 with *failure set. */
int sm_fail(struct sm_failure *failure, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* ": <strerror(errno)>" appended. */
int sm_fail_errno(struct sm_failure *failure, const char *format, ...) __attribute__((format(printf, 2, 3)));

int sm_options_read(struct sm_options *ret_options, struct sm_failure *failure); /* /proc/cmdline */

/* Whether the kernel has what a guest needs; after its modules are loaded. */
int sm_features_check(struct sm_failure *failure);

int sm_mounts_early(struct sm_failure *failure);  /* /dev, /proc, /sys */
int sm_mounts_system(struct sm_failure *failure); /* the rest, below the final root */
/* A folder, made with its parents where it is missing, whose files are in memory alone: a tmpfs is put on an empty one
 * that is not. */
int sm_mounts_memory(const char *path, struct sm_failure *failure);
/* mkdir, where "it is there already" is fine. */
int sm_mounts_folders(const char *path, struct sm_failure *failure); /* with its parents */
int sm_mounts_folder(const char *path, unsigned mode, struct sm_failure *failure);

int sm_devices_load_modules(struct sm_failure *failure); /* /modules/list, if there is one */
int sm_devices_raise_loopback(struct sm_failure *failure);
/* Until /dev has `path`, by the kernel's announcements. */
int sm_devices_wait(const char *path, int timeout_ms, struct sm_failure *failure);

/* Make the image's root "/".  *ret_image: false when there is no disk, and nothing was done. */
int sm_root_switch(const struct sm_options *options, bool *ret_image, struct sm_failure *failure);

#endif
