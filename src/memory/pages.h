/* Sets of guest pages, made so that what is walked is what is in them, and not all of RAM.  Private to this room.
 *
 * A bit a page, in words of 64, and over those a bit for each word that may hold some: with 4 GiB of RAM, 256 words to
 * look at, and then the words that count. */
#ifndef SM_MEMORY_PAGES_H
#define SM_MEMORY_PAGES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* One thread at a time. */
struct sm_pages {
	uint64_t count; /* of RAM; members are below it */
	uint64_t *words;
	uint64_t *busy; /* which words are to be looked at */
};

int sm_pages_init(struct sm_pages *pages, uint64_t count); /* empty; -ENOMEM */
void sm_pages_done(struct sm_pages *pages);                /* safe on a zeroed one and twice */
void sm_pages_add(struct sm_pages *pages, uint64_t first, uint64_t count);
/* Page first + n for each bit n; what would be past the last page is left out. */
void sm_pages_add_bits(struct sm_pages *pages, uint64_t first, uint64_t bits);
void sm_pages_take(struct sm_pages *pages, uint64_t first, uint64_t count);     /* out */
void sm_pages_take_bits(struct sm_pages *pages, uint64_t first, uint64_t bits); /* likewise; first % 64 == 0 */
void sm_pages_merge(struct sm_pages *pages, const struct sm_pages *others);     /* in */
void sm_pages_remove(struct sm_pages *pages, const struct sm_pages *others);
void sm_pages_clear(struct sm_pages *pages);
bool sm_pages_has(const struct sm_pages *pages, uint64_t page);
/* The first run of members in [from, end); false: none. */
bool sm_pages_next(const struct sm_pages *pages, uint64_t from, uint64_t end, uint64_t *ret_first, uint64_t *ret_count);

/* What any thread may add to while another takes it out: what is added after its word was taken is there the next
 * time. */
struct sm_marks {
	uint64_t count;
	_Atomic uint64_t *words, *busy;
};

int sm_marks_init(struct sm_marks *marks, uint64_t count);
void sm_marks_done(struct sm_marks *marks);
void sm_marks_add(struct sm_marks *marks, uint64_t first, uint64_t last); /* both included */
bool sm_marks_has(const struct sm_marks *marks, uint64_t page);
/* Take out the next pages, as sm_pages_add_bits takes them in, from page *at (start with 0) on.  False: no more. */
bool sm_marks_take(struct sm_marks *marks, uint64_t *at, uint64_t *ret_first, uint64_t *ret_bits);

#endif
