#include "oci/platform.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

static const struct {
	const char *architecture;
	const char *other_name; /* uname's */
	const char *baseline;   /* the variant that is the same as none */
} architectures[] = {
	{ "amd64", "x86_64", "v1" },
	{ "arm64", "aarch64", "v8" },
};
#define COUNT (sizeof architectures / sizeof architectures[0])

static size_t find(const char *name)
{
	size_t i = 0;
	while (i < COUNT && strcmp(name, architectures[i].architecture) && strcmp(name, architectures[i].other_name))
		i++;
	return i;
}

int sm_oci_platform_parse(const char *text, struct sm_oci_platform *ret, struct sm_error *err)
{
	struct utsname host;
	memset(ret, 0, sizeof *ret);
	if (!text) {
		if (uname(&host) < 0)
			return sm_error_sys(err, errno, "uname");
		text = host.machine;
	}
	const char *architecture = text;
	const char *slash = strchr(text, '/');
	if (slash) {
		if (slash - text != 5 || strncmp(text, "linux", 5))
			return sm_error_set(err, EINVAL, "platform '%.60s': the operating system must be linux", text);
		architecture = slash + 1;
	}
	char name[32] = "";
	const char *variant = strchr(architecture, '/');
	size_t len = variant ? (size_t)(variant - architecture) : strlen(architecture);
	if (len < sizeof name)
		memcpy(name, architecture, len);
	size_t i = find(name);
	if (i == COUNT || (!slash && variant))
		return sm_error_set(err, EINVAL, "platform '%.60s': expected linux/amd64 or linux/arm64[/VARIANT]",
		                    text);
	variant = variant ? variant + 1 : "";
	if (strlen(variant) >= sizeof ret->variant ||
	    variant[strspn(variant, "abcdefghijklmnopqrstuvwxyz0123456789._-")])
		return sm_error_set(err, EINVAL, "platform '%.60s': bad variant", text);
	snprintf(ret->os, sizeof ret->os, "linux");
	snprintf(ret->architecture, sizeof ret->architecture, "%s", architectures[i].architecture);
	/* One spelling: the baseline is no variant. */
	if (strcmp(variant, architectures[i].baseline))
		snprintf(ret->variant, sizeof ret->variant, "%s", variant);
	return 0;
}

void sm_oci_platform_format(const struct sm_oci_platform *platform, char out[SM_OCI_PLATFORM_TEXT])
{
	snprintf(out, SM_OCI_PLATFORM_TEXT, "%s/%s%s%s", platform->os, platform->architecture,
	         platform->variant[0] ? "/" : "", platform->variant);
}

bool sm_oci_platform_serves(const struct sm_oci_platform *offered, const struct sm_oci_platform *wanted)
{
	if (strcmp(offered->os, wanted->os) || strcmp(offered->architecture, wanted->architecture))
		return false;
	if (!strcmp(offered->variant, wanted->variant) || !offered->variant[0])
		return true;
	size_t i = find(offered->architecture);
	return i < COUNT && !strcmp(offered->variant, architectures[i].baseline);
}
