/* What differs between architectures when a machine is loaded, one folder each. */
#ifndef SM_ARCH_ARCH_H
#define SM_ARCH_ARCH_H

#include "base/error.h"
#include "hv/hv.h"
#include "memory/memory.h"
#include "plan/plan.h"

/* Put kernel, initramfs, command line and tables into RAM as the plan says.
 * kernel_fd: an image that the plan's architecture starts (x86_64: ELF with a PVH note, or a bzImage; aarch64: an
 * Image); initrd_fd: -1 for none.
 * ret_boot: how vCPU 0 starts.  -ENOEXEC names what is wrong with the kernel, -E2BIG what does not fit. */
int sm_arch_load(const struct sm_plan *plan, struct sm_memory *memory, int kernel_fd, int initrd_fd,
                 struct sm_hv_boot *ret_boot, struct sm_error *err);

#endif
