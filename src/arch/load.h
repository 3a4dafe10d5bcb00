/* What of loading is the same for every architecture, and what each gives.  Private to this folder and those below. */
#ifndef SM_ARCH_LOAD_H
#define SM_ARCH_LOAD_H

#include "base/error.h"
#include "hv/hv.h"
#include "memory/memory.h"
#include "plan/plan.h"

#include <stdint.h>

/* What a kernel file is, by its first bytes. */
enum sm_arch_format {
	SM_ARCH_UNKNOWN,
	SM_ARCH_ELF,     /* of this architecture, or of one that is no machine's here */
	SM_ARCH_BZIMAGE, /* x86_64 */
	SM_ARCH_IMAGE,   /* aarch64 */
};

struct sm_arch_kernel {
	int fd;
	uint64_t bytes;
	enum sm_arch_format format;
};

struct sm_arch {
	enum sm_plan_arch arch;
	/* As sm_arch_load; kernels of the other architecture and compressed ones never come here. */
	int (*load)(const struct sm_plan *plan, struct sm_memory *memory, const struct sm_arch_kernel *kernel,
	            int initrd_fd, struct sm_hv_boot *ret_boot, struct sm_error *err);
};

extern const struct sm_arch sm_arch_x86_64, sm_arch_aarch64;

/* The initramfs (fd -1 or an empty file: none, *ret_bytes is 0) into RAM: as high as it may be below `top`, so that it
 * is out of the way of what the kernel unpacks itself into, not below `floor`, and at a multiple of `align`.  -E2BIG.
 */
int sm_arch_initrd_load(struct sm_memory *memory, int initrd_fd, uint64_t floor, uint64_t top, uint64_t align,
                        uint64_t *ret_gpa, uint64_t *ret_bytes, struct sm_error *err);

#endif
