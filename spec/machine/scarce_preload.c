/* Preloaded into a program, it can make one request for memory fail, of those that supermachine's module makes itself.
 * The program loads it once more as a Lua library: `scarce(n)` lets the n-th from now on fail (0: none) and returns
 * whether the one asked for before was reached.  Source: malloc(3), mmap(2), dl_iterate_phdr(3). */
#include <dlfcn.h>
#include <errno.h>
#include <lauxlib.h>
#include <link.h>
#include <lua.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT int scarce(lua_State *lua);
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

static atomic_int *left;     /* shared with the processes that are forked off */
static uintptr_t first, end; /* the module's code */

static int find(struct dl_phdr_info *info, size_t size, void *unused)
{
	(void)size;
	(void)unused;
	if (!strstr(info->dlpi_name, "supermachine/core.so"))
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];
		if (part->p_type == PT_LOAD && (part->p_flags & PF_X)) {
			first = info->dlpi_addr + part->p_vaddr;
			end = first + part->p_memsz;
		}
	}
	return 1;
}

static int fails(const void *caller)
{
	if (!left || (uintptr_t)caller < first || (uintptr_t)caller >= end || atomic_load(left) <= 0)
		return 0;
	if (atomic_fetch_sub(left, 1) != 1)
		return 0;
	errno = ENOMEM;
	return 1;
}

#define FAILS() fails(__builtin_return_address(0))

EXPORT void *malloc(size_t bytes)
{
	return FAILS() ? NULL : __libc_malloc(bytes);
}

EXPORT void *calloc(size_t count, size_t bytes)
{
	return FAILS() ? NULL : __libc_calloc(count, bytes);
}

EXPORT void *realloc(void *memory, size_t bytes)
{
	return FAILS() ? NULL : __libc_realloc(memory, bytes);
}

EXPORT void *aligned_alloc(size_t alignment, size_t bytes)
{
	return FAILS() ? NULL : __libc_memalign(alignment, bytes);
}

EXPORT char *strdup(const char *text)
{
	size_t bytes = strlen(text) + 1;
	char *copy = FAILS() ? NULL : __libc_malloc(bytes);
	return copy ? memcpy(copy, text, bytes) : NULL;
}

EXPORT void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
	return FAILS() ? MAP_FAILED : (void *)syscall(SYS_mmap, address, bytes, protection, flags, fd, offset);
}

EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*main)(void *), void *arg)
{
	static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
	return FAILS() ? EAGAIN : real(thread, attributes, main, arg);
}

EXPORT int scarce(lua_State *lua)
{
	if (!end)
		dl_iterate_phdr(find, NULL);
	if (!end)
		return luaL_error(lua, "the module is not loaded");
	if (!left) {
		void *page = mmap(NULL, sizeof *left, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (page == MAP_FAILED)
			return luaL_error(lua, "no shared page");
		left = page;
	}
	lua_pushboolean(lua, atomic_exchange(left, (int)luaL_checkinteger(lua, 1)) <= 0);
	return 1;
}
