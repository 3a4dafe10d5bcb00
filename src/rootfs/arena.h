/* Memory that is given back all at once, with a hard maximum: what a hostile layer may make us allocate. */
#ifndef SM_ROOTFS_ARENA_H
#define SM_ROOTFS_ARENA_H

#include <stddef.h>

struct sm_arena_chunk;

struct sm_arena {
	struct sm_arena_chunk *chunks;
	size_t used;  /* bytes of the newest chunk */
	size_t total; /* bytes of all chunks */
	size_t max;
};

void sm_arena_init(struct sm_arena *arena, size_t max);
void sm_arena_done(struct sm_arena *arena);

/* Zeroed, aligned to 8 bytes; NULL with errno ENOMEM, or E2BIG past the maximum. */
void *sm_arena_alloc(struct sm_arena *arena, size_t bytes);
/* A copy of `bytes` bytes. */
void *sm_arena_copy(struct sm_arena *arena, const void *data, size_t bytes);

#endif
