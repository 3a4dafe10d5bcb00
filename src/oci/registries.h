/* What the user's settings say of registries: $XDG_CONFIG_HOME/supermachine/config.json.
 *
 *   { "registries": { "docker.io": { "mirrors": ["mirror.example/hub", "http://127.0.0.1:5000"] },
 *                     "10.0.0.7:5000": { "insecure": true }, "registry.example": { "blocked": true } } }
 *
 * mirrors   [http://|https://]HOST[:PORT][/PREFIX], asked in this order before the registry itself; https by default
 * insecure  plain http may be spoken to this host, by references and mirrors that say http://
 * blocked   nothing is fetched from there, nor from there as a mirror */
#ifndef SM_OCI_REGISTRIES_H
#define SM_OCI_REGISTRIES_H

#include "oci/reference.h"

#define SM_OCI_MIRRORS_MAX 16

struct sm_oci_mirror {
	char host[280];
	char prefix[256]; /* of every repository's name; "": none */
	bool plain, insecure;
};

struct sm_oci_registry_rules {
	char file[PATH_MAX];
	bool insecure, blocked;
	size_t count;
	struct sm_oci_mirror mirrors[SM_OCI_MIRRORS_MAX]; /* those that may be asked */
};

/* file NULL: the user's, which need not be there.  Errors name the file and the field. */
int sm_oci_registries_find(const char *file, const char *host, struct sm_oci_registry_rules *ret, struct sm_error *err);

#endif
