#include "virtio/blocks.h"

#include <errno.h>
#include <sys/mman.h>

int sm_blocks_init(struct sm_blocks *blocks, uint64_t bytes)
{
	blocks->map_bytes = (size_t)((bytes / SM_BLOCK + 64) / 64 * 8);
	void *map =
	    mmap(NULL, blocks->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	blocks->bits = map == MAP_FAILED ? NULL : map;
	return blocks->bits ? 0 : -ENOMEM;
}

void sm_blocks_done(struct sm_blocks *blocks)
{
	if (blocks->bits)
		munmap((void *)blocks->bits, blocks->map_bytes);
	blocks->bits = NULL;
}

void sm_blocks_clear(struct sm_blocks *blocks)
{
	/* An anonymous private mapping is zero afterwards, and this cannot fail for one that is whole. */
	madvise((void *)blocks->bits, blocks->map_bytes, MADV_DONTNEED);
}

/* The word that has the block, inverted where blocks are looked for that are not there. */
static uint64_t word_of(const struct sm_blocks *blocks, uint64_t block, bool has)
{
	uint64_t word = atomic_load_explicit(&blocks->bits[block / 64], memory_order_acquire);
	return has ? word : ~word;
}

void sm_blocks_add(struct sm_blocks *blocks, uint64_t offset, uint64_t end)
{
	uint64_t first = offset / SM_BLOCK;
	const uint64_t last = (end + SM_BLOCK - 1) / SM_BLOCK;
	for (uint64_t next; first < last; first = next) {
		next = (first | 63) + 1 < last ? (first | 63) + 1 : last;
		uint64_t mask = (next - first == 64 ? 0 : UINT64_C(1) << (next - first)) - 1;
		atomic_fetch_or_explicit(&blocks->bits[first / 64], mask << (first % 64), memory_order_acq_rel);
	}
}

bool sm_blocks_has(const struct sm_blocks *blocks, uint64_t offset)
{
	uint64_t block = offset / SM_BLOCK;
	return word_of(blocks, block, true) >> (block % 64) & 1;
}

uint64_t sm_blocks_run(const struct sm_blocks *blocks, uint64_t offset, uint64_t end, bool *ret_has)
{
	uint64_t block = offset / SM_BLOCK;
	const uint64_t last = (end + SM_BLOCK - 1) / SM_BLOCK;
	const bool has = sm_blocks_has(blocks, offset);
	*ret_has = has;
	while (block < last) {
		/* Bits that are unlike the first, from here to the end of the word. */
		uint64_t others = ~word_of(blocks, block, has) >> (block % 64);
		if (others) {
			block += (unsigned)__builtin_ctzll(others);
			break;
		}
		block = (block | 63) + 1;
	}
	/* Somebody may have added the first meanwhile: a run has a block. */
	uint64_t until = (block > offset / SM_BLOCK ? block : offset / SM_BLOCK + 1) * SM_BLOCK;
	return until < end ? until : end;
}
