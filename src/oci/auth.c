#include "oci/auth.h"

#include "base/json.h"
#include "oci/challenge.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TOKEN_REPLY_MAX (256u << 10)
#define TOKEN_MAX       (64u << 10)
#define URL_MAX         8192

static bool has_password(const struct sm_oci_auth *auth)
{
	return auth->credentials.username;
}

void sm_oci_auth_fill(const struct sm_oci_auth *auth, struct sm_oci_http_request *request)
{
	request->bearer = auth->current ? auth->tokens[auth->current - 1].text : NULL;
	bool basic = auth->basic && !request->bearer;
	request->username = basic ? auth->credentials.username : NULL;
	request->password = basic ? auth->credentials.password : NULL;
}

static int find_credentials(struct sm_oci_auth *auth, struct sm_error *err)
{
	struct sm_oci_credentials *credentials = &auth->credentials;
	if (auth->asked)
		return 0;
	if (auth->username) {
		snprintf(credentials->from, sizeof credentials->from, "option 'username'");
		credentials->username = strdup(auth->username);
		credentials->password = strdup(auth->password);
		if (!credentials->username || !credentials->password)
			return sm_error_sys(err, ENOMEM, "credentials");
	} else {
		int code = sm_oci_credentials_find(auth->host, auth->repository, auth->cancel, credentials, err);
		if (code < 0)
			return code;
	}
	/* RFC 7617, 2: what is after the first colon is the password. */
	if (has_password(auth) && strchr(credentials->username, ':'))
		return sm_error_set(err, EINVAL, "the user name from %s has a colon in it", credentials->from);
	auth->asked = true;
	return 0;
}

/* ---- tokens ------------------------------------------------------------------------------------------------- */

static bool realm_allowed(const struct sm_oci_auth *auth, const char *realm)
{
	if (!strncasecmp(realm, "https://", 8))
		return true;
	if (!auth->plain || strncasecmp(realm, "http://", 7))
		return false;
	return auth->insecure || sm_oci_reference_is_loopback(realm + 7);
}

static void add_field(struct sm_buf *out, const char *sep, const char *name, const char *value)
{
	if (!*value)
		return;
	sm_buf_printf(out, "%s%s=", sep, name);
	sm_oci_http_escape(out, value);
}

/* With an identity token a form to POST, otherwise fields of a GET's query. */
static void write_fields(const struct sm_oci_auth *auth, const struct sm_oci_challenge *challenge, struct sm_buf *url,
                         struct sm_buf *form)
{
	if (auth->credentials.identity_token) {
		sm_buf_append_str(form, "grant_type=refresh_token&client_id=supermachine");
		add_field(form, "&", "service", challenge->service);
		add_field(form, "&", "scope", challenge->scope);
		add_field(form, "&", "refresh_token", auth->credentials.identity_token);
		return;
	}
	const char *sep = strchr(challenge->realm, '?') ? "&" : "?";
	add_field(url, sep, "service", challenge->service);
	add_field(url, *challenge->service ? "&" : sep, "scope", challenge->scope);
	if (has_password(auth))
		add_field(url, "&", "account", auth->credentials.username);
}

static int check_token(const char *token, struct sm_error *err)
{
	/* What is not printable could end the header line it is put in. */
	size_t len = strlen(token);
	for (size_t i = 0; token[i]; i++)
		if (token[i] <= ' ' || token[i] > '~')
			len = 0;
	if (!len || len > TOKEN_MAX)
		return sm_error_set(err, EBADMSG, "token reply: the token is empty, too long or not printable");
	return 0;
}

/* Takes the place of an older one for the scope, or of the oldest. */
static int keep_token(struct sm_oci_auth *auth, const char *scope, const char *text, struct sm_error *err)
{
	size_t i = 0;
	while (i < auth->count && strcmp(auth->tokens[i].scope, scope))
		i++;
	if (i == SM_OCI_AUTH_TOKENS)
		i = auth->current % SM_OCI_AUTH_TOKENS;
	struct sm_oci_token token = { .scope = strdup(scope), .text = strdup(text) };
	if (!token.scope || !token.text) {
		free(token.scope);
		free(token.text);
		return sm_error_sys(err, ENOMEM, "token");
	}
	free(auth->tokens[i].scope);
	sm_oci_credentials_wipe(&auth->tokens[i].text);
	auth->tokens[i] = token;
	auth->count += i == auth->count;
	auth->current = i + 1;
	auth->turn++;
	return 0;
}

static int read_token(struct sm_oci_auth *auth, const char *scope, const struct sm_buf *reply, struct sm_error *err)
{
	static const char what[] = "token reply";
	const char *token, *refresh;
	SM_JSON_CLEANUP cJSON *root = NULL;
	int code = sm_json_parse((const char *)reply->data, reply->len, what, &root, err);
	if (code < 0 || (code = sm_json_string_or(root, "access_token", what, NULL, &token, err)) < 0 ||
	    (!token && (code = sm_json_get_string(root, "token", what, &token, err)) < 0) ||
	    (code = sm_json_string_or(root, "refresh_token", what, "", &refresh, err)) < 0 ||
	    (code = check_token(token, err)) < 0)
		return code;
	/* An identity token may be good for one use: the next one comes with the reply. */
	if (auth->credentials.identity_token && *refresh) {
		char *copy = strdup(refresh);
		if (!copy)
			return sm_error_sys(err, ENOMEM, "token");
		sm_oci_credentials_wipe(&auth->credentials.identity_token);
		auth->credentials.identity_token = copy;
	}
	return keep_token(auth, scope, token, err);
}

static int refused(const struct sm_oci_auth *auth, int status, struct sm_error *err)
{
	if (status == 429 || status >= 500)
		return sm_error_set(err, EIO, "the token server answered %d", status);
	if (has_password(auth) || auth->credentials.identity_token)
		return sm_error_set(err, EACCES, "the login from %s is refused: the token server answered %d",
		                    auth->credentials.from, status);
	return sm_error_set(err, EACCES, "no anonymous token: the token server answered %d", status);
}

static int send_request(struct sm_oci_auth *auth, struct sm_oci_http *http, struct sm_oci_http_request *request,
                        struct sm_error *err)
{
	struct sm_oci_http_response response = { 0 };
	struct sm_error own = { 0 };
	int code = sm_oci_http_get(http, request, &response, &own);
	int status = response.status;
	sm_oci_http_response_done(&response);
	if (code < 0)
		return sm_error_set(err, code, "%s", own.code ? own.message : "token reply is too long");
	return status == 200 ? 0 : refused(auth, status, err);
}

static int fetch_token(struct sm_oci_auth *auth, struct sm_oci_http *http, const struct sm_oci_challenge *challenge,
                       struct sm_error *err)
{
	if (!*challenge->realm)
		return sm_error_set(err, EPROTO, "the registry asks for a token but names no place to get it");
	if (!realm_allowed(auth, challenge->realm))
		return sm_error_set(err, EPROTO, "the registry asks for a token from %.200s, which is not https",
		                    challenge->realm);
	struct sm_buf url, form, reply;
	sm_buf_init(&url, URL_MAX);
	sm_buf_init(&form, TOKEN_MAX * 3 + URL_MAX);
	sm_buf_init(&reply, TOKEN_REPLY_MAX);
	sm_buf_append_str(&url, challenge->realm);
	write_fields(auth, challenge, &url, &form);
	struct sm_oci_http_request request = {
		.url = sm_buf_str(&url),
		.plain = auth->plain,
		.insecure = auth->insecure,
		.username = auth->credentials.username,
		.password = auth->credentials.password,
		.form = form.len ? sm_buf_str(&form) : NULL,
		.certs = auth->certs,
		.sink = sm_oci_source_collect,
		.restart = sm_oci_source_collect_again,
		.arg = &reply,
	};
	int code = sm_buf_failed(&url) || sm_buf_failed(&form) || !request.url
	               ? sm_error_set(err, EPROTO, "the request for a token is too long")
	               : send_request(auth, http, &request, err);
	if (!code)
		code = read_token(auth, challenge->scope, &reply, err);
	struct sm_buf *buffers[] = { &url, &form, &reply };
	for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
		if (buffers[i]->data)
			explicit_bzero(buffers[i]->data, buffers[i]->cap);
		sm_buf_done(buffers[i]);
	}
	return code;
}

int sm_oci_auth_answer(struct sm_oci_auth *auth, unsigned turn, struct sm_oci_http *http,
                       const struct sm_oci_http_response *response, struct sm_error *err)
{
	struct sm_oci_challenge challenge;
	if (turn != auth->turn)
		return 1;
	int code = sm_oci_challenge_parse(response->challenge, &challenge, err);
	if (code < 0)
		return code;
	if (!challenge.bearer && !challenge.basic) {
		if (response->challenge_cut)
			return sm_error_set(err, EPROTO, "the registry asks for a login in more words than are taken");
		return 0;
	}
	if ((code = find_credentials(auth, err)) < 0)
		return code;
	if (!challenge.bearer) {
		if (!has_password(auth) || auth->basic)
			return 0;
		auth->basic = true;
		auth->current = 0;
		auth->turn++;
		return 1;
	}
	if (!*challenge.scope)
		snprintf(challenge.scope, sizeof challenge.scope, "repository:%s:pull", auth->repository);
	/* One that was not sent just now may still be good. */
	for (size_t i = 0; i < auth->count; i++)
		if (i + 1 != auth->current && !strcmp(auth->tokens[i].scope, challenge.scope)) {
			auth->current = i + 1;
			auth->turn++;
			return 1;
		}
	const char *own = auth->credentials.registry_token;
	if (!own)
		code = fetch_token(auth, http, &challenge, err);
	else if (auth->current)
		return 0;
	else if ((code = check_token(own, err)) == 0)
		code = keep_token(auth, challenge.scope, own, err);
	return code < 0 ? code : 1;
}

void sm_oci_auth_done(struct sm_oci_auth *auth)
{
	for (size_t i = 0; i < auth->count; i++) {
		free(auth->tokens[i].scope);
		sm_oci_credentials_wipe(&auth->tokens[i].text);
	}
	sm_oci_credentials_done(&auth->credentials);
	memset(auth, 0, sizeof *auth);
}
