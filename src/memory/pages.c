#include "memory/pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BITS 64u

static uint64_t words_of(uint64_t bits)
{
	return (bits + BITS - 1) / BITS;
}

static uint64_t bit(uint64_t index)
{
	return UINT64_C(1) << (index % BITS);
}

/* Bits [from, from + count) of a word; from + count <= 64, count > 0. */
static uint64_t span(uint64_t from, uint64_t count)
{
	return UINT64_MAX >> (BITS - count) << from;
}

/* ---- of one thread -------------------------------------------------------------------------------------------- */

/* The C library gives a large zeroed array as untouched memory, so that a set costs what was ever in it. */
int sm_pages_init(struct sm_pages *pages, uint64_t count)
{
	uint64_t words = words_of(count);
	*pages = (struct sm_pages){
		.count = count,
		.words = calloc(words, sizeof *pages->words),
		.busy = calloc(words_of(words), sizeof *pages->busy),
	};
	if (pages->words && pages->busy)
		return 0;
	sm_pages_done(pages);
	return -ENOMEM;
}

void sm_pages_done(struct sm_pages *pages)
{
	free(pages->words);
	free(pages->busy);
	*pages = (struct sm_pages){ 0 };
}

static void add_to_word(struct sm_pages *pages, uint64_t word, uint64_t bits)
{
	pages->words[word] |= bits;
	pages->busy[word / BITS] |= bit(word);
}

void sm_pages_add(struct sm_pages *pages, uint64_t first, uint64_t count)
{
	for (uint64_t part; count; first += part, count -= part) {
		uint64_t room = BITS - first % BITS;
		part = count < room ? count : room;
		add_to_word(pages, first / BITS, span(first % BITS, part));
	}
}

void sm_pages_take(struct sm_pages *pages, uint64_t first, uint64_t count)
{
	for (uint64_t part; count; first += part, count -= part) {
		uint64_t room = BITS - first % BITS;
		part = count < room ? count : room;
		pages->words[first / BITS] &= ~span(first % BITS, part);
	}
}

void sm_pages_take_bits(struct sm_pages *pages, uint64_t first, uint64_t bits)
{
	pages->words[first / BITS] &= ~bits;
}

void sm_pages_add_bits(struct sm_pages *pages, uint64_t first, uint64_t bits)
{
	if (first >= pages->count)
		return;
	if (pages->count - first < BITS)
		bits &= span(0, pages->count - first);
	uint64_t shift = first % BITS, low = bits << shift, high = shift ? bits >> (BITS - shift) : 0;
	if (low)
		add_to_word(pages, first / BITS, low);
	if (high)
		add_to_word(pages, first / BITS + 1, high);
}

/* The first word from `word` on that is not known to be zero; words_of(count): none. */
static uint64_t next_busy(const struct sm_pages *pages, uint64_t word)
{
	uint64_t words = words_of(pages->count);
	while (word < words) {
		uint64_t left = pages->busy[word / BITS] >> (word % BITS);
		if (left)
			return word + (uint64_t)__builtin_ctzll(left);
		word = (word / BITS + 1) * BITS;
	}
	return words;
}

void sm_pages_merge(struct sm_pages *pages, const struct sm_pages *others)
{
	uint64_t words = words_of(others->count);
	for (uint64_t word = next_busy(others, 0); word < words; word = next_busy(others, word + 1))
		add_to_word(pages, word, others->words[word]);
}

void sm_pages_remove(struct sm_pages *pages, const struct sm_pages *others)
{
	uint64_t words = words_of(pages->count);
	for (uint64_t word = next_busy(pages, 0); word < words; word = next_busy(pages, word + 1)) {
		pages->words[word] &= ~others->words[word];
		if (!pages->words[word])
			pages->busy[word / BITS] &= ~bit(word);
	}
}

void sm_pages_clear(struct sm_pages *pages)
{
	uint64_t words = words_of(pages->count);
	for (uint64_t word = next_busy(pages, 0); word < words; word = next_busy(pages, word + 1))
		pages->words[word] = 0;
	memset(pages->busy, 0, words_of(words) * sizeof *pages->busy);
}

bool sm_pages_has(const struct sm_pages *pages, uint64_t page)
{
	return pages->words[page / BITS] & bit(page);
}

bool sm_pages_next(const struct sm_pages *pages, uint64_t from, uint64_t end, uint64_t *ret_first, uint64_t *ret_count)
{
	if (from >= end)
		return false;
	uint64_t words = words_of(pages->count), word = from / BITS;
	uint64_t left = pages->words[word] & UINT64_MAX << (from % BITS);
	while (!left) {
		word = next_busy(pages, word + 1);
		if (word >= words)
			return false;
		left = pages->words[word];
	}
	uint64_t first = word * BITS + (uint64_t)__builtin_ctzll(left);
	if (first >= end)
		return false;
	uint64_t gaps = ~pages->words[word] & UINT64_MAX << (first % BITS);
	while (!gaps && ++word < words)
		gaps = ~pages->words[word];
	uint64_t last = gaps ? word * BITS + (uint64_t)__builtin_ctzll(gaps) : end;
	*ret_first = first;
	*ret_count = (last < end ? last : end) - first;
	return true;
}

/* ---- of many -------------------------------------------------------------------------------------------------- */

int sm_marks_init(struct sm_marks *marks, uint64_t count)
{
	uint64_t words = words_of(count);
	*marks = (struct sm_marks){
		.count = count,
		.words = calloc(words, sizeof *marks->words),
		.busy = calloc(words_of(words), sizeof *marks->busy),
	};
	if (marks->words && marks->busy)
		return 0;
	sm_marks_done(marks);
	return -ENOMEM;
}

void sm_marks_done(struct sm_marks *marks)
{
	free(marks->words);
	free(marks->busy);
	*marks = (struct sm_marks){ 0 };
}

/* Most pages that are written were written before, and a look is cheaper than a locked operation.  The page first, its
 * word's bit after it: whoever takes the bit finds the page. */
void sm_marks_add(struct sm_marks *marks, uint64_t first, uint64_t last)
{
	for (uint64_t page = first; page <= last; page++) {
		uint64_t word = page / BITS;
		if (atomic_load_explicit(&marks->words[word], memory_order_relaxed) & bit(page))
			continue;
		atomic_fetch_or_explicit(&marks->words[word], bit(page), memory_order_relaxed);
		atomic_fetch_or_explicit(&marks->busy[word / BITS], bit(word), memory_order_release);
	}
}

bool sm_marks_has(const struct sm_marks *marks, uint64_t page)
{
	return atomic_load_explicit(&marks->words[page / BITS], memory_order_relaxed) & bit(page);
}

bool sm_marks_take(struct sm_marks *marks, uint64_t *at, uint64_t *ret_first, uint64_t *ret_bits)
{
	uint64_t words = words_of(marks->count), word = *at / BITS;
	while (word < words) {
		_Atomic uint64_t *busy = &marks->busy[word / BITS];
		uint64_t left = atomic_load_explicit(busy, memory_order_relaxed) >> (word % BITS);
		if (!left) {
			word = (word / BITS + 1) * BITS;
			continue;
		}
		word += (uint64_t)__builtin_ctzll(left);
		atomic_fetch_and_explicit(busy, ~bit(word), memory_order_acquire);
		*ret_bits = atomic_exchange_explicit(&marks->words[word], 0, memory_order_relaxed);
		*ret_first = word * BITS;
		*at = *ret_first + BITS;
		return true;
	}
	return false;
}
