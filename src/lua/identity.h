/* What a restored machine is told, from an options table. */
#ifndef SM_LUA_IDENTITY_H
#define SM_LUA_IDENTITY_H

#include "lua/support.h"
#include "pool/identity.h"

struct sm_lua_identity {
	struct sm_identity_options options; /* points into what follows, all of it on the heap */
	char *hostname;
	struct sm_agent_secret *secrets;
};

/* The options that the functions with these have in common, for their lists of known ones. */
#define SM_LUA_IDENTITY_OPTIONS "agent", "timeout_ms", "hostname", "secrets", "on_restore"

/* agent = false, timeout_ms = 30000, hostname, secrets = {["/path"] = value}, on_restore: a process's request (see
 * lua/process.h).  Raises for misuse, before anything is allocated.  -ENOMEM, -E2BIG: nothing is left. */
int sm_lua_identity_read(lua_State *L, int index, struct sm_lua_identity *ret);
/* Secrets are overwritten; twice is fine. */
void sm_lua_identity_done(struct sm_lua_identity *identity);

#endif
