/* Mutants: one system call lies, in the checks alone.  A check that none of them fails would find nothing. */
#ifndef SM_SPEC_FS_MUTANTS_H
#define SM_SPEC_FS_MUTANTS_H

#include "posix.h"

/* Name, and the groups that ought to notice. */
#define MUTANTS(_) \
	_(CHMOD_LOST, "chmod-lost", "perms owners") \
	_(CHMOD_NO_SET_ID, "chmod-without-set-id", "perms owners") \
	_(UMASK_LOST, "umask-lost", "perms") \
	_(ALL_ARE_ROOT, "all-are-root", "perms owners times xattr special sparse") \
	_(GROUPS_LOST, "groups-lost", "perms owners") \
	_(ACCESS_YES, "access-yes", "perms rename") \
	_(MODE_TAKES_BACK, "mode-takes-back", "perms") \
	_(BUSY_OPENS, "busy-opens", "perms") \
	_(CHOWN_LOST, "chown-lost", "perms owners times") \
	_(CHOWN_KEEPS_SET_ID, "chown-keeps-set-id", "owners") \
	_(LCHOWN_FOLLOWS, "lchown-follows", "owners") \
	_(WRITE_KEEPS_SET_ID, "write-keeps-set-id", "owners") \
	_(WRITE_DROPS_SET_ID, "write-drops-set-id", "owners") \
	_(NEW_IS_ROOTS, "new-files-are-roots", "owners") \
	_(NO_GROUP_INHERITED, "no-group-inherited", "owners") \
	_(RENAME_LEAVES, "rename-leaves-the-old-name", "rename times parallel special") \
	_(RENAME_NOT_ATOMIC, "rename-not-atomic", "rename parallel special") \
	_(RENAME_SAME_REMOVES, "rename-same-removes", "rename") \
	_(RENAME_CUTS, "rename-cuts-what-it-replaces", "rename") \
	_(RENAME_COPIES_FOLDERS, "rename-copies-folders", "rename") \
	_(RENAME_FLAGS_LOST, "rename-flags-lost", "exchange") \
	_(RENAME_ERRORS, "rename-wrong-errors", "rename exchange parallel") \
	_(FOLDERS_BUSY, "folders-busy", "rename parallel") \
	_(NAMES_CACHED, "names-cached", "rename") \
	_(LINKS_MISCOUNTED, "links-miscounted", "rename links open unlinked exchange") \
	_(LINK_COPIES, "link-copies", "rename links") \
	_(LINK_REPLACES, "link-replaces", "links") \
	_(LINK_FOLLOWS, "link-follows", "links open") \
	_(TARGETS_CUT, "targets-cut", "links") \
	_(READLINK_ENDS, "readlink-ends-with-nul", "links open") \
	_(CREATE_NO_FOLLOW, "create-does-not-follow", "links") \
	_(LOOPS_MISNAMED, "loops-misnamed", "links open") \
	_(REMOVE_ERRORS, "remove-wrong-errors", "links") \
	_(NAMES_CUT, "names-cut", "names") \
	_(NAMES_LOWER, "names-lower", "names") \
	_(DOT_DOT_LOST, "dot-dot-lost", "rename names") \
	_(MKDIR_OVER, "mkdir-over", "links names parallel") \
	_(TIMES_SECONDS, "times-in-seconds", "times unlinked") \
	_(TIMES_32, "times-in-32-bits", "times") \
	_(TIMES_OMIT, "times-omit-is-now", "times") \
	_(TIMES_FOLLOW, "times-follow", "times") \
	_(WRITE_KEEPS_TIME, "write-keeps-time", "times") \
	_(FOLDER_KEEPS_TIME, "folder-keeps-time", "times") \
	_(SYNC_TOUCHES, "sync-touches", "times") \
	_(LOCKS_LOST, "locks-lost", "locks") \
	_(LOCKS_WHOLE, "locks-whole", "locks") \
	_(LOCKS_BY_FILE, "locks-by-file", "locks") \
	_(LOCKS_BY_PROCESS, "locks-by-process", "locks") \
	_(LOCKS_DO_NOT_WAIT, "locks-do-not-wait", "locks") \
	_(FLOCK_LOST, "flock-lost", "locks") \
	_(GAPS_FILLED, "gaps-filled", "sparse") \
	_(TRUNCATE_LOST, "truncate-lost", "sparse mmap open unlinked data") \
	_(TRUNCATE_LEAVES, "truncate-leaves", "sparse mmap") \
	_(HOLES_LIE, "holes-lie", "sparse") \
	_(OFFSETS_32, "offsets-in-32-bits", "sparse") \
	_(BLOCKS_LIE, "blocks-lie", "sparse") \
	_(ALLOCATE_LOST, "fallocate-lost", "sparse") \
	_(ALLOCATE_GROWS, "fallocate-grows", "sparse") \
	_(MAP_PRIVATE_ALWAYS, "map-private", "mmap") \
	_(MAP_SHARED_ALWAYS, "map-shared", "mmap") \
	_(MAP_LONG, "map-past-the-end", "mmap") \
	_(EXCLUSIVE_LOST, "exclusive-lost", "links open parallel") \
	_(DIRECTORY_LOST, "directory-lost", "open") \
	_(NO_FOLLOW_LOST, "no-follow-lost", "open") \
	_(TRUNC_LOST, "trunc-lost", "open owners times") \
	_(APPEND_LOST, "append-lost", "links open parallel") \
	_(TEMPORARY_NAMED, "temporary-named", "open") \
	_(DUP_REOPENS, "dup-reopens", "open locks") \
	_(LIMIT_LOST, "limit-lost", "open") \
	_(READ_TURNS, "read-turns-a-bit", "open data parallel locks mmap") \
	_(WRITE_SHORT, "write-short", "data parallel") \
	_(VECTORS_CUT, "vectors-cut", "data") \
	_(BAD_WRITES, "bad-memory-is-written", "data") \
	_(COPY_SHORT, "copy-short", "data") \
	_(SYNC_FAILS, "sync-fails", "data") \
	_(UNLINK_CUTS, "unlink-cuts", "unlinked mmap open") \
	_(UNLINK_HIDES, "unlink-hides", "unlinked readdir") \
	_(ATTRIBUTE_LOST, "attribute-lost", "xattr") \
	_(ATTRIBUTE_FLAGS, "attribute-flags-lost", "xattr") \
	_(ATTRIBUTE_PADDED, "attribute-padded", "xattr") \
	_(ATTRIBUTE_UNLISTED, "attribute-unlisted", "xattr") \
	_(LIST_SKIPS, "list-skips", "readdir names parallel") \
	_(LIST_TWICE, "list-twice", "readdir") \
	_(LIST_KINDS, "list-wrong-kinds", "readdir") \
	_(PLACES_MOVE, "places-move", "readdir") \
	_(LIST_CUT, "list-cut", "readdir") \
	_(REMOVED_TWICE, "removed-twice", "parallel") \
	_(NODES_PLAIN, "nodes-are-plain", "special") \
	_(SOCKETS_PLAIN, "sockets-are-plain", "special") \
	_(SPACE_LIES, "space-lies", "space") \
	_(FULL_LIES, "full-lies", "space")

enum mutant {
	NO_MUTANT,
#define MUTANT_ENUM(id, name, groups) MUTANT_##id,
	MUTANTS(MUTANT_ENUM)
#undef MUTANT_ENUM
};

extern enum mutant mutant;
#define ON(id) (mutant == MUTANT_##id)

#define WRAP(function) extern __typeof__(function) __real_##function, __wrap_##function;

#endif
