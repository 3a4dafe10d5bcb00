/* What a pull tells of its layers, on its way from the pull's thread to the Lua thread: the latest of each layer. */
#ifndef SM_LUA_PULL_PROGRESS_H
#define SM_LUA_PULL_PROGRESS_H

#include "oci/pull.h"

#include <lua.h>
#include <pthread.h>

struct sm_lua_pull_progress {
	int fd; /* readable when there is something to take */
	pthread_mutex_t lock;
	struct sm_lua_pull_layer *layers;
	size_t count;
};

int sm_lua_pull_progress_init(struct sm_lua_pull_progress *progress); /* 0 or -errno */
void sm_lua_pull_progress_done(struct sm_lua_pull_progress *progress);

/* sm_oci_pull_options.on_progress; arg is the struct. */
void sm_lua_pull_progress_tell(void *arg, const struct sm_oci_progress *event);
/* Push a list of { index =, digest =, state =, done =, total = }, one for each layer that something happened to since
 * the last call.  Returns 1. */
int sm_lua_pull_progress_push(lua_State *L, struct sm_lua_pull_progress *progress);

#endif
