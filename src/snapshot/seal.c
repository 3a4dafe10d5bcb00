/* A file's content in memory, sealed.  Source: memfd_create(2), fcntl(2), "File Sealing". */
#include "base/fd.h"
#include "base/sparse.h"
#include "snapshot/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

static int copy_sealed(int from, int to, uint64_t bytes)
{
	int code = ftruncate(to, (off_t)bytes) < 0 ? -errno : 0;
	if (code == 0)
		code = sm_sparse_copy(from, to, 0, bytes, NULL);
	if (code == 0 && fcntl(to, F_ADD_SEALS, SEALS) < 0)
		code = -errno;
	return code;
}

int sm_snapshot_seal(int fd, const char *name, uint64_t bytes, struct sm_error *err)
{
	int copy SM_FD_CLEANUP = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (copy < 0)
		return sm_error_sys(err, errno, "%s: memfd_create", name);
	int code = copy_sealed(fd, copy, bytes);
	return code < 0 ? sm_error_sys(err, code, "%s: copy %llu bytes into memory", name, (unsigned long long)bytes)
	                : sm_fd_take(&copy);
}
