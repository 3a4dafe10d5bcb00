/* The image userdata, for the binding files that need one as an argument. */
#ifndef SM_LUA_IMAGE_H
#define SM_LUA_IMAGE_H

#include "oci/image.h"

#include <lua.h>

/* The image at `index`; raises for another type and for a closed image.  Borrowed while the userdata is open: what
 * outlives the call (an operation) takes a reference with sm_oci_image_ref. */
struct sm_oci_image *sm_lua_image_check(lua_State *L, int index);

#endif
