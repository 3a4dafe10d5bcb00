/* Preloaded into a program: a line on descriptor SUPERMACHINE_SYNCS for each fdatasync, once it was made; and with
 * SUPERMACHINE_SYNC_FAILS set, none is made and each is EIO. */
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((visibility("default"))) int fdatasync(int fd)
{
	const char *told = getenv("SUPERMACHINE_SYNCS");
	int code = -1;
	errno = EIO;
	if (!getenv("SUPERMACHINE_SYNC_FAILS"))
		code = (int)syscall(SYS_fdatasync, fd);
	int kept = errno;
	if (told && write(atoi(told), "sync\n", 5) < 0)
		abort();
	errno = kept;
	return code;
}
