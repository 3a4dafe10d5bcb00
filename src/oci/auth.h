/* Who we are to one repository of one registry: what answers its challenges (Docker "Token Authentication
 * Specification", of distribution: token and oauth2; RFC 7617).  Nothing is looked up before a registry asks.  Used by
 * one thread. */
#ifndef SM_OCI_AUTH_H
#define SM_OCI_AUTH_H

#include "oci/credentials.h"
#include "oci/http.h"

#define SM_OCI_AUTH_TOKENS 8

struct sm_oci_auth {
	/* Set by the owner; borrowed. */
	const char *host; /* as references name it */
	const char *repository;
	const char *username, *password; /* NULL: what the user's files say */
	bool plain, insecure;            /* as in an HTTP request: for token servers too */
	const struct sm_oci_certs *certs;
	const atomic_bool *cancel;
	/* The rest is zero at first. */
	bool asked; /* the files were read */
	bool basic; /* the registry wants name and password themselves */
	struct sm_oci_credentials credentials;
	struct sm_oci_token {
		char *scope, *text;
	} tokens[SM_OCI_AUTH_TOKENS];
	size_t count, current; /* current: one after the token to send; 0: none */
	unsigned turn;         /* how often what is said has changed */
};

/* Say in the request who we are, as far as the registry wants to know; borrowed until the next answer. */
void sm_oci_auth_fill(const struct sm_oci_auth *auth, struct sm_oci_http_request *request);
/* After a 401 to a request that was filled when auth->turn was `turn`: one of several at once gets a new token, and the
 * others find it.  1: fill again and repeat; 0: there is nothing more to say. */
int sm_oci_auth_answer(struct sm_oci_auth *auth, unsigned turn, struct sm_oci_http *http,
                       const struct sm_oci_http_response *response, struct sm_error *err);
void sm_oci_auth_done(struct sm_oci_auth *auth);

#endif
