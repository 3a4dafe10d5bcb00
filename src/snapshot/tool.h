/* Programs of the host that do a piece of our work.  Private to this room. */
#ifndef SM_SNAPSHOT_TOOL_H
#define SM_SNAPSHOT_TOOL_H

#include "base/error.h"

/* Run argv[0], from $PATH, /usr/sbin or /sbin, to its end, without input.  Its exit code; or negative, when it cannot
 * be run (-ENOENT names the package that has it) or was killed.  Where the code is above `fine`, that is -EIO, with its
 * last words. */
int sm_tool_run(const char *const *argv, const char *package, int fine, struct sm_error *err);

#endif
