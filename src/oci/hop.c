#include "oci/hop.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void sm_oci_hop_split(const struct sm_oci_curl_library *lib, const char *url, char origin[SM_OCI_ORIGIN_SIZE],
                      char host[SM_OCI_HOST_SIZE])
{
	char *scheme = NULL, *name = NULL, *port = NULL;
	CURLU *parsed = lib->url();
	CURLUcode code = parsed ? lib->url_set(parsed, CURLUPART_URL, url, 0) : CURLUE_OUT_OF_MEMORY;
	if (!code)
		code = lib->url_get(parsed, CURLUPART_SCHEME, &scheme, 0);
	if (!code)
		code = lib->url_get(parsed, CURLUPART_HOST, &name, 0);
	if (!code)
		code = lib->url_get(parsed, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT);
	const char *at = strstr(url, "://");
	int len = at ? (int)strcspn(at + 3, "/?#") : 0;
	int written = code ? 0 : snprintf(origin, SM_OCI_ORIGIN_SIZE, "%s://%s:%s", scheme, name, port);
	if (code || written >= SM_OCI_ORIGIN_SIZE || len >= SM_OCI_HOST_SIZE)
		written = len = 0;
	for (int i = 0; i < written; i++)
		origin[i] = (char)tolower((unsigned char)origin[i]);
	for (int i = 0; i < len; i++)
		host[i] = (char)tolower((unsigned char)at[3 + i]);
	origin[written] = host[len] = 0;
	lib->free(scheme);
	lib->free(name);
	lib->free(port);
	lib->url_cleanup(parsed);
}

bool sm_oci_hop_allowed(const struct sm_oci_http_request *request, const char *origin, const char *host)
{
	if (!strncmp(origin, "https:", 6))
		return true;
	return !strncmp(origin, "http:", 5) && request->plain &&
	       (request->insecure || sm_oci_reference_is_loopback(host));
}

const char *sm_oci_hop_proxy(const char *url, char ret_name[SM_OCI_HOST_SIZE])
{
	static const char *const variables[2][5] = {
		{ "http_proxy", "all_proxy", "ALL_PROXY" },
		{ "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY" },
	};
	for (const char *const *name = variables[!strncasecmp(url, "https:", 6)]; *name; name++) {
		const char *value = getenv(*name);
		if (!value || !*value)
			continue;
		const char *at = strstr(value, "://"), *rest = at ? at + 3 : value;
		const char *end = rest + strcspn(rest, "/?#");
		for (const char *c = rest; c < end; c++)
			if (*c == '@')
				rest = c + 1;
		snprintf(ret_name, SM_OCI_HOST_SIZE, "%.*s", (int)(end - rest), rest);
		return *name;
	}
	return NULL;
}

int sm_oci_hop_shown(const char *url)
{
	size_t len = strcspn(url, "?#");
	return (int)(len < 200 ? len : 200);
}

int sm_oci_hop_trust(const struct sm_oci_curl_library *lib, CURL *curl, const char *host,
                     const struct sm_oci_certs *certs, const char *ca_file, struct sm_error *err)
{
	struct sm_oci_certs other = { 0 };
	if (!certs || strcmp(certs->host, host)) {
		int code = sm_oci_certs_load(host, certs, &other, err);
		if (code < 0)
			return code;
		certs = &other;
	}
	/* It replaces the system's bundle; the system's folder, with the same in it, stays. */
	struct curl_blob blob = { certs->ca.data, certs->ca.len, CURL_BLOB_COPY };
	bool client = certs->certificate[0];
	CURLcode code = CURLE_OK;
#define SET(option, value) code = code ? code : lib->easy_setopt(curl, option, value)
	SET(CURLOPT_CAINFO_BLOB, !ca_file && certs->ca.len ? &blob : NULL);
	if (ca_file) {
		SET(CURLOPT_CAINFO, ca_file);
		SET(CURLOPT_CAPATH, NULL);
	}
	SET(CURLOPT_SSLCERT, client ? certs->certificate : NULL);
	SET(CURLOPT_SSLKEY, client ? certs->key : NULL);
	SET(CURLOPT_KEYPASSWD, client ? "" : NULL); /* nobody is asked on the terminal */
#undef SET
	sm_oci_certs_done(&other);
	return code ? sm_error_set(err, EIO, "libcurl refuses the certificates for %s", host) : 0;
}
