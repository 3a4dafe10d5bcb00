/* Windows: what a guest reaches besides its RAM. */
#include "memory/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define HUGE_PAGE (2 * SM_MIB)

/* Both ends of a window are: then pages of a file's mapping line up with the guest's. */
static int reserve(struct sm_memory_window *window, struct sm_memory_reservation *ret, struct sm_error *err)
{
	ret->bytes = window->bytes + HUGE_PAGE;
	ret->start = mmap(NULL, ret->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ret->start == MAP_FAILED)
		return sm_error_sys(err, errno, "reserve %llu MiB of address space for a DAX window",
		                    (unsigned long long)(window->bytes / SM_MIB));
	window->hva = (void *)(((uintptr_t)ret->start + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
	if (mprotect(window->hva, window->bytes, PROT_READ | PROT_WRITE) == 0 &&
	    madvise(window->hva, window->bytes, MADV_DONTFORK) == 0 &&
	    madvise(window->hva, window->bytes, MADV_DONTDUMP) == 0)
		return 0;
	int code = errno;
	munmap(ret->start, ret->bytes);
	return sm_error_sys(err, code, "DAX window at 0x%llx", (unsigned long long)window->gpa);
}

int sm_memory_add_window(struct sm_memory *memory, uint64_t gpa, uint64_t bytes, struct sm_memory_window *ret,
                         struct sm_error *err)
{
	struct sm_memory_window window = { .gpa = gpa, .bytes = bytes };
	struct sm_memory_reservation reservation;
	size_t count = memory->nwindows + 1;
	if (gpa % HUGE_PAGE || bytes % HUGE_PAGE || bytes == 0)
		return sm_error_set(err, EINVAL, "DAX window at 0x%llx is not made of 2 MiB", (unsigned long long)gpa);
	struct sm_memory_window *windows = realloc(memory->windows, count * sizeof *windows);
	if (windows)
		memory->windows = windows;
	struct sm_memory_reservation *reserved = realloc(memory->window_reservations, count * sizeof *reserved);
	if (reserved)
		memory->window_reservations = reserved;
	if (!windows || !reserved)
		return sm_error_set(err, ENOMEM, "DAX window: out of memory");
	int code = reserve(&window, &reservation, err);
	if (code < 0)
		return code;
	windows[memory->nwindows] = window;
	reserved[memory->nwindows++] = reservation;
	*ret = window;
	return 0;
}

void sm_memory_free_windows(struct sm_memory *memory)
{
	for (size_t i = 0; i < memory->nwindows; i++)
		munmap(memory->window_reservations[i].start, memory->window_reservations[i].bytes);
	free(memory->windows);
	free(memory->window_reservations);
}

void *sm_memory_at_window(const struct sm_memory *memory, uint64_t gpa, uint64_t len)
{
	for (size_t i = 0; i < memory->nwindows; i++) {
		const struct sm_memory_window *window = &memory->windows[i];
		uint64_t offset = gpa - window->gpa;
		if (gpa >= window->gpa && offset < window->bytes && len <= window->bytes - offset)
			return (uint8_t *)window->hva + offset;
	}
	return NULL;
}

ssize_t sm_memory_copy(const struct iovec *from, size_t nfrom, const struct iovec *to, size_t nto, bool to_guest)
{
	/* The kernel's copy, which gives EFAULT where this process would get a SIGBUS. */
	ssize_t done = to_guest ? process_vm_writev(getpid(), from, nfrom, to, nto, 0)
	                        : process_vm_readv(getpid(), to, nto, from, nfrom, 0);
	return done < 0 ? -errno : done;
}

int sm_memory_copy_window(const struct sm_memory *memory, uint64_t gpa, void *data, size_t len, bool to_guest)
{
	void *at = sm_memory_at_window(memory, gpa, len);
	if (!at)
		return -EFAULT;
	const struct iovec guest = { .iov_base = at, .iov_len = len }, own = { .iov_base = data, .iov_len = len };
	ssize_t done = to_guest ? sm_memory_copy(&own, 1, &guest, 1, true) : sm_memory_copy(&guest, 1, &own, 1, false);
	return done == (ssize_t)len ? 0 : -EFAULT;
}
