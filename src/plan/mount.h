/* A mount of a host folder as pure data: what the file server behind a virtio-fs slot is made from. */
#ifndef SM_PLAN_MOUNT_H
#define SM_PLAN_MOUNT_H

#include <stdbool.h>
#include <stdint.h>

#define SM_MOUNT_TAG_MAX 36 /* bytes; virtio 1.2, 5.11.4: not ended by NUL where it fills the field */

/* What symbolic links are to the guest. */
enum sm_mount_symlinks {
	SM_MOUNT_SYMLINKS_OPAQUE = 0, /* bytes: it may make and read them, the host never follows one */
	SM_MOUNT_SYMLINKS_DENY,   /* it may make none, nor hard links; one that leaves the root is EACCES at LOOKUP */
	SM_MOUNT_SYMLINKS_FOLLOW, /* trusted: the host resolves them, out of the root too */
};

/* How long the guest trusts what it was told. */
enum sm_mount_cache {
	SM_MOUNT_CACHE_STRICT = 0, /* not at all: the next call sees what the host did */
	SM_MOUNT_CACHE_AUTO,       /* 1 s */
	SM_MOUNT_CACHE_ALWAYS,     /* for good: nobody else changes it */
};

/* Whose files are. */
enum sm_mount_owners {
	SM_MOUNT_OWNERS_SQUASH = 0,  /* the guest sees its root as the owner of what the host user owns */
	SM_MOUNT_OWNERS_MAP,         /* ranges of IDs, shifted */
	SM_MOUNT_OWNERS_PASSTHROUGH, /* as they are: needs root on the host */
};

#define SM_MOUNT_RANGES_MAX 8
struct sm_mount_range {
	uint32_t guest, host, count; /* guest IDs [guest, guest + count) are host IDs [host, host + count) */
};

struct sm_mount {
	const char
	    *tag;    /* what the guest mounts it by, 1 to SM_MOUNT_TAG_MAX bytes; NULL: "mount" and the slot's index */
	int root_fd; /* O_PATH, of the folder; of the folder that holds the file where `only` is set */
	const char *only; /* the root has this one entry: a single file; NULL: a whole folder */
	bool readonly;    /* enforced here, whatever the guest thinks */
	bool writeback;   /* the guest may gather writes (FUSE_WRITEBACK_CACHE); not with CACHE_STRICT */
	bool host_locks;  /* POSIX and BSD locks are taken on the host too; else they are the guest's own affair */
	bool dax;         /* offer the slot's window, if it has one */
	enum sm_mount_symlinks symlinks;
	enum sm_mount_cache cache;
	enum sm_mount_owners owners;
	unsigned nranges;
	struct sm_mount_range ranges[SM_MOUNT_RANGES_MAX]; /* with OWNERS_MAP, for users and groups alike */
	unsigned max_nodes;                                /* files the guest may know of at once; 0: 1 Mi */
	unsigned max_descriptors; /* open for them at once, without what the guest has opened; 0: a quarter of the
	                             limit, at most 4,096 */
	const char
	    *xattrs; /* names that pass, separated by commas, "user.*,security.capability"; NULL: "user.*"; "": none */
};

#endif
