/* A shared library that is loaded when something of it is used.
 *
 * What a process has mapped costs each of its machines: KVM walks all of it when it makes one.  So a library that
 * brings many others along, and that no machine needs, is not linked. */
#ifndef SM_BASE_LIBRARY_H
#define SM_BASE_LIBRARY_H

#include "base/error.h"

#include <stddef.h>

/* ret_functions, a table of pointers to functions, takes the addresses of the `count` symbols in their order.  The
 * library stays loaded: some leave threads and exit handlers behind.  Any thread.  -ELIBACC with what the linker says
 * when it is not there, -ELIBBAD when it lacks a symbol. */
int sm_library_load(const char *name, const char *const *symbols, size_t count, void *ret_functions,
                    struct sm_error *err);

#endif
