/* From what a user calls an image to what the store has.  Private to oci/store_*.c. */
#ifndef SM_OCI_STORE_NAME_H
#define SM_OCI_STORE_NAME_H

#include "base/json.h"
#include "oci/store_census.h"

struct sm_oci_name {
	char *spelled;                       /* owned: the reference's one spelling; NULL: it is none */
	const char *given;                   /* borrowed */
	char platform[SM_OCI_PLATFORM_TEXT]; /* "": any */
};

int sm_oci_name_read(const char *text, const char *platform, struct sm_oci_name *ret, struct sm_error *err);
void sm_oci_name_done(struct sm_oci_name *name);
#define SM_OCI_NAME_CLEANUP __attribute__((cleanup(sm_oci_name_done)))

/* By name, or by digest. */
bool sm_oci_name_matches(const struct sm_oci_name *name, const struct sm_oci_ref *ref);

/* The one image of this name; its digest may have no reference (then the platform is empty unless it was given). */
struct sm_oci_found {
	char digest[SM_OCI_DIGEST_SIZE];
	char platform[SM_OCI_PLATFORM_TEXT];
};
int sm_oci_name_find(const struct sm_oci_name *name, const struct sm_oci_census *census, struct sm_oci_found *ret,
                     struct sm_error *err);
/* An image's own word of its platform, for one that has no reference; "" when it says none. */
void sm_oci_name_platform(const cJSON *config, char out[SM_OCI_PLATFORM_TEXT]);

#endif
