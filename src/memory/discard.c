#include "memory/memory.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

int sm_memory_discard(struct sm_memory *memory, uint64_t gpa, uint64_t len)
{
	/* For writing, because the content changes. */
	uint8_t *at = sm_memory_at_write(memory, gpa, len);
	if (!at)
		return -EFAULT;
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t start = ((uintptr_t)at + page - 1) / page * page;
	uintptr_t end = ((uintptr_t)at + len) / page * page;
	if (start < end && madvise((void *)start, end - start, MADV_DONTNEED) < 0)
		return -errno;
	return 0;
}
