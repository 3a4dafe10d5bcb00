/* Which image of several: operating system, architecture, variant (OCI image-spec, image-index.md). */
#ifndef SM_OCI_PLATFORM_H
#define SM_OCI_PLATFORM_H

#include "base/error.h"

#include <stdbool.h>

struct sm_oci_platform {
	char os[32];
	char architecture[32]; /* Go's names: amd64, arm64 */
	char variant[32];      /* "": none */
};
#define SM_OCI_PLATFORM_TEXT 100

/* "linux/amd64", "linux/arm64[/VARIANT]", or the architecture alone (x86_64 and aarch64 are understood);
 * NULL: linux on the host's architecture.  -EINVAL for what no guest can be. */
int sm_oci_platform_parse(const char *text, struct sm_oci_platform *ret, struct sm_error *err);
void sm_oci_platform_format(const struct sm_oci_platform *platform, char out[SM_OCI_PLATFORM_TEXT]);
/* Does an offered platform serve the wanted one?  Without a wanted variant only the architecture's
 * baseline does (amd64: v1, arm64: v8), because more than that may not run. */
bool sm_oci_platform_serves(const struct sm_oci_platform *offered, const struct sm_oci_platform *wanted);

#endif
