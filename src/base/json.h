/* JSON from strangers: cJSON with limits on size and depth, and checked access by path-named errors. */
#ifndef SM_BASE_JSON_H
#define SM_BASE_JSON_H

#include "base/error.h"

#include <cjson/cJSON.h>
#include <stdint.h>

#define SM_JSON_MAX_BYTES (4u << 20)
#define SM_JSON_MAX_DEPTH 32

/* Parse a whole document of at most SM_JSON_MAX_BYTES; trailing bytes, a too deep document and duplicate
 * keys are errors (-EBADMSG) that name `what`.  Freed with cJSON_Delete. */
int sm_json_parse(const char *text, size_t len, const char *what, cJSON **ret_root, struct sm_error *err);

/* Members by exact name.  get_*: -EBADMSG naming `what` and the member when absent or of another type.
 * Strings are borrowed.  *_or: the fallback when absent, an error only when of another type. */
int sm_json_get_string(const cJSON *object, const char *name, const char *what, const char **ret, struct sm_error *err);
int sm_json_get_u64(const cJSON *object, const char *name, const char *what, uint64_t *ret, struct sm_error *err);
int sm_json_get_object(const cJSON *object, const char *name, const char *what, const cJSON **ret,
                       struct sm_error *err);
int sm_json_get_array(const cJSON *object, const char *name, const char *what, const cJSON **ret, struct sm_error *err);
int sm_json_string_or(const cJSON *object, const char *name, const char *what, const char *fallback, const char **ret,
                      struct sm_error *err);

#define SM_JSON_CLEANUP __attribute__((cleanup(sm_json_cleanup)))
void sm_json_cleanup(cJSON **root);

#endif
