#include "rootfs/arena.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES (128u << 10)

struct sm_arena_chunk {
	struct sm_arena_chunk *next;
	size_t bytes;
	uint64_t data[];
};

void sm_arena_init(struct sm_arena *arena, size_t max)
{
	*arena = (struct sm_arena){ .max = max };
}

void sm_arena_done(struct sm_arena *arena)
{
	while (arena->chunks) {
		struct sm_arena_chunk *next = arena->chunks->next;
		free(arena->chunks);
		arena->chunks = next;
	}
	arena->used = arena->total = 0;
}

void *sm_arena_alloc(struct sm_arena *arena, size_t bytes)
{
	if (bytes > arena->max) {
		errno = E2BIG;
		return NULL;
	}
	bytes = (bytes + 7) & ~(size_t)7;
	if (!arena->chunks || arena->chunks->bytes - arena->used < bytes) {
		size_t chunk_bytes = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
		if (chunk_bytes > arena->max - arena->total) {
			errno = E2BIG;
			return NULL;
		}
		struct sm_arena_chunk *chunk = calloc(1, sizeof *chunk + chunk_bytes);
		if (!chunk)
			return NULL;
		chunk->next = arena->chunks;
		chunk->bytes = chunk_bytes;
		arena->chunks = chunk;
		arena->used = 0;
		arena->total += chunk_bytes;
	}
	void *at = (char *)arena->chunks->data + arena->used;
	arena->used += bytes;
	return at;
}

void *sm_arena_copy(struct sm_arena *arena, const void *data, size_t bytes)
{
	void *copy = sm_arena_alloc(arena, bytes);
	if (copy && bytes)
		memcpy(copy, data, bytes);
	return copy;
}
