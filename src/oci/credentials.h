/* Names and passwords, as podman and docker keep them (containers-auth.json(5), docker-login(1)).
 *
 * First to last: the file that $REGISTRY_AUTH_FILE names, and then nothing else; the JSON in $DOCKER_AUTH_CONFIG;
 * $XDG_RUNTIME_DIR/containers/auth.json (or /run/containers/UID); $XDG_CONFIG_HOME/containers/auth.json;
 * $DOCKER_CONFIG/config.json, or ~/.docker/config.json.
 * In a file: credHelpers of the host, credsStore, then auths, whose keys may name a repository or the folders above it:
 * the most specific counts. */
#ifndef SM_OCI_CREDENTIALS_H
#define SM_OCI_CREDENTIALS_H

#include "base/error.h"

#include <limits.h>
#include <stdatomic.h>

struct sm_oci_credentials {
	char *username, *password; /* both or neither */
	char *identity_token;      /* or this: what a token server takes instead */
	char *registry_token;      /* or this: what the registry itself takes */
	char from[PATH_MAX + 64];  /* where they are from, for messages */
};

/* 1 when there are some; 0: nobody knows any; otherwise an error that names the file and the field, and no secret. */
int sm_oci_credentials_find(const char *host, const char *repository, const atomic_bool *cancel,
                            struct sm_oci_credentials *ret, struct sm_error *err);
/* Overwrites before it frees; safe on a zeroed one and twice. */
void sm_oci_credentials_done(struct sm_oci_credentials *credentials);
/* The same for one string or NULL. */
void sm_oci_credentials_wipe(char **secret);

#endif
