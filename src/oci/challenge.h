/* What a registry wants of us: WWW-Authenticate (RFC 9110, 11.6.1; RFC 6750, 3).  Pure. */
#ifndef SM_OCI_CHALLENGE_H
#define SM_OCI_CHALLENGE_H

#include "base/error.h"

#include <stdbool.h>

struct sm_oci_challenge {
	bool basic;
	bool bearer;
	char realm[1024]; /* of the first Bearer; "": absent */
	char service[512];
	char scope[1024];
};

/* Schemes and parameters that are not known are passed over.  -EPROTO when what we need is longer than that. */
int sm_oci_challenge_parse(const char *text, struct sm_oci_challenge *ret, struct sm_error *err);

#endif
