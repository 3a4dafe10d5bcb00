/* Where a restored machine's RAM comes from: RAM files, all of the RAM's size, and which of them has what.
 *
 * The first file is whole.  Each later one has only its extents, and there it hides the files before it; its holes
 * inside them are zeros. */
#ifndef SM_MEMORY_SOURCE_H
#define SM_MEMORY_SOURCE_H

#include "base/codec.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SM_MEMORY_FILES_MAX 32
/* Each is a mapping, and splits another; a process has 65,530 (vm.max_map_count) for all its machines. */
#define SM_MEMORY_PIECES_MAX 1024

struct sm_memory_extent {
	uint64_t offset, bytes; /* in a RAM file */
};

/* By offset, without overlap. */
struct sm_memory_extents {
	size_t count;
	struct sm_memory_extent *list; /* owned */
};

void sm_memory_extents_done(struct sm_memory_extents *extents); /* safe on a zeroed one and twice */
/* As a record of at most SM_MEMORY_PIECES_MAX extents; what is read is pages, in order, and within ram_bytes. */
void sm_memory_extents_put(struct sm_buf *buf, const struct sm_memory_extents *extents);
int sm_memory_extents_get(struct sm_reader *reader, uint64_t ram_bytes, struct sm_memory_extents *ret,
                          struct sm_error *err);

/* What of its RAM a machine has used. */
struct sm_memory_touched {
	struct sm_memory_extents all;     /* read or written */
	struct sm_memory_extents written; /* of these */
};
void sm_memory_touched_done(struct sm_memory_touched *touched);
void sm_memory_touched_put(struct sm_buf *buf, const struct sm_memory_touched *touched);
int sm_memory_touched_get(struct sm_reader *reader, uint64_t ram_bytes, struct sm_memory_touched *ret,
                          struct sm_error *err);

struct sm_memory_piece {
	uint64_t offset, bytes;
	uint32_t file; /* not the first: that has all that no piece names */
};

struct sm_memory_source {
	unsigned nfiles;
	int files[SM_MEMORY_FILES_MAX]; /* borrowed, unless it was copied */
	size_t npieces;
	struct sm_memory_piece *pieces;   /* owned; by offset, without overlap */
	struct sm_memory_extents written; /* that the guest will write to first; owned, as the pieces */
	bool watched; /* mapped so that sm_memory_touched can tell pages apart; a page fault for each */
};

/* Lay a file over what is there; `extents` NULL: the first file.  -E2BIG for too many files or pieces. */
int sm_memory_source_add(struct sm_memory_source *source, int file, const struct sm_memory_extents *extents,
                         struct sm_error *err);
/* How many pieces there would be with these extents on top. */
size_t sm_memory_source_count(const struct sm_memory_source *source, const struct sm_memory_extents *extents);
/* Which file has the page at `offset`, and up to where it goes on to be that one, at most *end. */
unsigned sm_memory_source_at(const struct sm_memory_source *source, uint64_t offset, uint64_t *end);
/* With descriptors of its own; ended by _close. */
int sm_memory_source_copy(const struct sm_memory_source *from, struct sm_memory_source *ret, struct sm_error *err);
void sm_memory_source_close(struct sm_memory_source *source); /* closes the files */
void sm_memory_source_done(struct sm_memory_source *source);  /* leaves them open; safe on a zeroed one and twice */

#endif
