#include "oci/curl_library.h"

#include "base/library.h"

int sm_oci_curl_library_load(struct sm_oci_curl_library *ret, struct sm_error *err)
{
	static const char *const symbols[] = {
#define SYMBOL(name) "curl_" #name,
		SM_OCI_CURL_FUNCTIONS(SYMBOL)
#undef SYMBOL
	};
	_Static_assert(sizeof *ret == sizeof symbols, "one pointer a symbol");
	return sm_library_load("libcurl.so.4", symbols, sizeof symbols / sizeof *symbols, ret, err);
}
