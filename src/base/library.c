#include "base/library.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

int sm_library_load(const char *name, const char *const *symbols, size_t count, void *ret_functions,
                    struct sm_error *err)
{
	void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!library) {
		const char *why = dlerror();
		return sm_error_set(err, ELIBACC, "load %s: %s", name, why ? why : "not found");
	}
	int code = 0;
	for (size_t i = 0; i < count && code == 0; i++) {
		void *function = dlsym(library, symbols[i]);
		if (!function)
			code = sm_error_set(err, ELIBBAD, "load %s: it lacks %s", name, symbols[i]);
		memcpy((char *)ret_functions + i * sizeof function, &function, sizeof function);
	}
	dlclose(library);
	return code;
}
