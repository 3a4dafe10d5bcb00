/* Layers: any bytes as a tar, packed or not.  What is baked is a sound image. */
#include "rootfs/layer.h"
#include "rootfs/erofs_write.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static char path[64];
	if (!path[0])
		snprintf(path, sizeof path, "/dev/shm/supermachine-fuzz-%d.erofs", (int)getpid());
	int fd = memfd_create("layer", MFD_CLOEXEC);
	if (fd < 0 || pwrite(fd, data, len, 0) != (ssize_t)len)
		abort();
	const struct sm_rootfs_options options = {
		.max_bytes = 16u << 20,
		.max_memory_bytes = 16u << 20,
		.max_entries = 4096,
	};
	struct sm_rootfs_layer_stats stats;
	struct sm_error err;
	const struct sm_rootfs_tar tar = { .read = sm_rootfs_tar_read, .arg = &fd };
	if (sm_rootfs_layer_bake(&tar, NULL, path, NULL, &options, &stats, &err) >= 0) {
		int image = open(path, O_RDONLY | O_CLOEXEC);
		if (image < 0 || (uint64_t)lseek(image, 0, SEEK_END) != stats.image_bytes)
			abort();
		close(image);
		unlink(path);
	} else if (access(path, F_OK) == 0)
		abort(); /* nothing half done is left */
	close(fd);
	return 0;
}
