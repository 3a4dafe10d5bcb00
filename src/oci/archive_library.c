#include "oci/archive_library.h"

#include "base/library.h"

int sm_oci_archive_library_load(struct sm_oci_archive_library *ret, struct sm_error *err)
{
	static const char *const symbols[] = { "archive_errno",
#define SYMBOL(name) "archive_" #name,
		                               SM_OCI_ARCHIVE_FUNCTIONS(SYMBOL)
#undef SYMBOL
	};
	_Static_assert(sizeof *ret == sizeof symbols, "one pointer a symbol");
	return sm_library_load("libarchive.so.13", symbols, sizeof symbols / sizeof *symbols, ret, err);
}
