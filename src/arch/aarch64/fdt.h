/* The flattened device tree of a plan (Devicetree Specification 0.4; bindings: Linux,
 * Documentation/devicetree/bindings): all that an aarch64 guest is told about its machine. */
#ifndef SM_ARCH_AARCH64_FDT_H
#define SM_ARCH_AARCH64_FDT_H

#include "base/buf.h"
#include "base/error.h"
#include "plan/plan.h"

#include <stdint.h>

#define SM_ARM64_FDT_MAX    (64u << 10) /* of any plan's blob; far from the generation ID at the firmware area's end */
#define SM_ARM64_SEED_BYTES 40u

/* Append the blob to `out`, which is empty and takes SM_ARM64_FDT_MAX bytes.  initrd: bytes 0: none.  seed: random: 8
 * bytes that place the kernel in its address space, and the rest for its pool; nothing else here is random. */
int sm_arm64_fdt_build(const struct sm_plan *plan, const struct sm_plan_range *initrd,
                       const uint8_t seed[SM_ARM64_SEED_BYTES], struct sm_buf *out, struct sm_error *err);

#endif
