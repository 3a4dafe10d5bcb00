/* libcurl, loaded for the first transfer: with what it needs it is some thirty libraries (base/library.h). */
#ifndef SM_OCI_CURL_LIBRARY_H
#define SM_OCI_CURL_LIBRARY_H

#include "base/error.h"

#include <curl/curl.h>

/* clang-format off */
#define SM_OCI_CURL_FUNCTIONS(F) \
	F(free) F(global_init) F(global_cleanup) F(easy_init) F(easy_cleanup) F(easy_setopt) \
	F(easy_getinfo) F(easy_header) F(easy_strerror) F(multi_init) F(multi_cleanup) F(multi_add_handle) \
	F(multi_remove_handle) F(multi_perform) F(multi_poll) F(multi_info_read) F(multi_strerror) \
	F(slist_append) F(slist_free_all) F(url) F(url_cleanup) F(url_get) F(url_set)
/* clang-format on */

/* curl_NAME is NAME here. */
struct sm_oci_curl_library {
#define SM_OCI_CURL_MEMBER(name) __typeof__(curl_##name) *name;
	SM_OCI_CURL_FUNCTIONS(SM_OCI_CURL_MEMBER)
#undef SM_OCI_CURL_MEMBER
};

int sm_oci_curl_library_load(struct sm_oci_curl_library *ret, struct sm_error *err);

#endif
