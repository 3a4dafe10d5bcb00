/* System calls that this C library has no function for. */
#include "posix.h"

#include <sys/syscall.h>

int call_renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
	return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
}

ssize_t call_getdents(int fd, void *buffer, size_t bytes)
{
	return syscall(SYS_getdents64, fd, buffer, bytes);
}
