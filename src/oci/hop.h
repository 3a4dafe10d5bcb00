/* One hop of a request: its own URL, or one that it was redirected to. */
#ifndef SM_OCI_HOP_H
#define SM_OCI_HOP_H

#include "oci/curl_library.h"
#include "oci/http.h"

#define SM_OCI_ORIGIN_SIZE (SM_OCI_HOST_SIZE + 16)

/* "scheme://host:port" of a URL, its port always there, and what is between the slashes as it is written; both are ""
 * when it has not all of them. */
void sm_oci_hop_split(const struct sm_oci_curl_library *lib, const char *url, char origin[SM_OCI_ORIGIN_SIZE],
                      char host[SM_OCI_HOST_SIZE]);
/* http:// only where it may be spoken, and nothing but these two. */
bool sm_oci_hop_allowed(const struct sm_oci_http_request *request, const char *origin, const char *host);
/* What the certs.d folders say of this host: whom to trust, and who we are to it and to nobody else.  certs: of the
 * registry, or NULL; ca_file instead of them, or NULL. */
int sm_oci_hop_trust(const struct sm_oci_curl_library *lib, CURL *curl, const char *host,
                     const struct sm_oci_certs *certs, const char *ca_file, struct sm_error *err);
/* The variable that names a proxy for this URL as libcurl looks for it, and the proxy's name without its login; NULL:
 * none.  Whether it was asked, $no_proxy decides. */
const char *sm_oci_hop_proxy(const char *url, char ret_name[SM_OCI_HOST_SIZE]);
/* How much of a URL is shown: not its query, where names and signatures are. */
int sm_oci_hop_shown(const char *url);

#endif
