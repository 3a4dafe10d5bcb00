#include "oci/endpoint.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int sm_oci_endpoint_init(struct sm_oci_endpoint *endpoint, const struct sm_oci_reference *reference,
                         const struct sm_oci_mirror *mirror, const struct sm_oci_source_options *options,
                         struct sm_error *err)
{
	memset(endpoint, 0, sizeof *endpoint);
	const char *name = mirror ? mirror->host : reference->host;
	/* Docker's registry does not live where its references point. */
	const char *host = strcmp(name, "docker.io") ? name : "registry-1.docker.io";
	endpoint->plain = mirror ? mirror->plain : reference->plain_http;
	endpoint->insecure = options->insecure || (mirror && mirror->insecure);
	snprintf(endpoint->host, sizeof endpoint->host, "%s", name);
	snprintf(endpoint->repository, sizeof endpoint->repository, "%s%s%s", mirror ? mirror->prefix : "",
	         mirror && mirror->prefix[0] ? "/" : "", reference->repository);
	snprintf(endpoint->url, sizeof endpoint->url, "%s://%s/v2/%s", endpoint->plain ? "http" : "https", host,
	         endpoint->repository);
	int code = sm_oci_certs_load(name, NULL, &endpoint->certs, err);
	if (code < 0)
		return code;
	snprintf(endpoint->certs.host, sizeof endpoint->certs.host, "%s", host);
	endpoint->auth = (struct sm_oci_auth){
		.host = endpoint->host,
		.repository = endpoint->repository,
		/* They were given for the registry, and a mirror is somebody else. */
		.username = mirror ? NULL : options->username,
		.password = mirror ? NULL : options->password,
		.plain = endpoint->plain,
		.insecure = endpoint->insecure,
		.certs = &endpoint->certs,
		.cancel = options->cancel,
	};
	return 0;
}

void sm_oci_endpoint_done(struct sm_oci_endpoint *endpoint)
{
	sm_oci_auth_done(&endpoint->auth);
	sm_oci_certs_done(&endpoint->certs);
}

/* "CODE: message" of the registry's own words, made printable; empty when it has none. */
static void registry_words(struct sm_oci_http_response *response, char *out, size_t size)
{
	out[0] = 0;
	SM_JSON_CLEANUP cJSON *root = NULL;
	if (sm_json_parse((const char *)response->error_body.data, response->error_body.len, "", &root, NULL) < 0)
		return;
	const cJSON *first = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(root, "errors"), 0);
	const char *code = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(first, "code"));
	const char *message = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(first, "message"));
	if (!code && !message)
		return;
	snprintf(out, size, " (%.60s%s%.160s)", code ? code : "", code && message ? ": " : "", message ? message : "");
	for (char *at = out; *at; at++)
		if (*at < ' ' || *at > '~')
			*at = '?';
}

/* Whose login it was, where one was tried. */
static void login_words(const struct sm_oci_auth *auth, int status, char *out, size_t size)
{
	const struct sm_oci_credentials *credentials = &auth->credentials;
	bool tried = auth->current ? credentials->identity_token || credentials->username : auth->basic;
	out[0] = 0;
	if ((status == 401 || status == 403) && tried)
		snprintf(out, size, "the login from %.300s is refused, ", credentials->from);
}

static int status_error(const struct sm_oci_endpoint *endpoint, struct sm_oci_http_response *response, const char *name,
                        struct sm_error *err)
{
	static const struct {
		int status, code;
		const char *meaning;
	} known[] = {
		{ 401, EACCES, "a login is needed, " },
		{ 403, EACCES, "access is refused, " },
		{ 404, ENOENT, "not there, " },
		{ 406, EOPNOTSUPP, "not there in a format that is supported, " },
		{ 429, EAGAIN, "too many requests, try later, " },
	};
	char words[256], login[400];
	registry_words(response, words, sizeof words);
	login_words(&endpoint->auth, response->status, login, sizeof login);
	size_t count = sizeof known / sizeof known[0], i = 0;
	while (i < count && known[i].status != response->status)
		i++;
	const char *meaning = i < count ? known[i].meaning : "";
	return sm_error_set(err, i < count ? known[i].code : EIO, "registry %s: %s: %s: %sstatus %d%s", endpoint->host,
	                    endpoint->repository, name, *login ? login : meaning, response->status, words);
}

void sm_oci_endpoint_prepare(struct sm_oci_endpoint *endpoint, struct sm_oci_endpoint_request *request)
{
	snprintf(request->url, sizeof request->url, "%s/%s/%s", endpoint->url, request->kind, request->name);
	request->http.url = request->url;
	request->http.plain = endpoint->plain;
	request->http.insecure = endpoint->insecure;
	request->http.certs = &endpoint->certs;
	request->turn = endpoint->auth.turn;
	sm_oci_auth_fill(&endpoint->auth, &request->http);
}

int sm_oci_endpoint_judge(struct sm_oci_endpoint *endpoint, struct sm_oci_http *http,
                          struct sm_oci_endpoint_request *request, int code, struct sm_oci_http_response *response,
                          struct sm_error *err)
{
	/* No answer at all, and not for want of patience: nobody is there. */
	endpoint->dead |= code < 0 && !response->status && !response->begun && code != -ECANCELED;
	if (code < 0)
		return code;
	if (response->status == 401 && request->answers++ < SM_OCI_ENDPOINT_ANSWERS) {
		code = sm_oci_auth_answer(&endpoint->auth, request->turn, http, response, err);
		if (code < 0)
			sm_error_context(err, "registry %s: %s", endpoint->host, endpoint->repository);
		if (code)
			return code;
	}
	if (response->status == 200 || (response->status == 206 && request->http.offset))
		return 0;
	code = status_error(endpoint, response, request->name, err);
	/* No byte of the range is there: what we have is not what they have. */
	return response->status == 416 ? -ERANGE : code;
}
