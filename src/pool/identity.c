#include "pool/identity.h"

#include "agent/identity.h"

#include <errno.h>
#include <sys/random.h>

/* A guest that is gone is why its agent is. */
static int explain(struct sm_control *control, int code, struct sm_error *err)
{
	char detail[256];
	enum sm_control_end end = sm_control_ended(control, detail);
	if (end == SM_CONTROL_RUNNING || !err)
		return code;
	const struct sm_error cause = *err;
	return sm_error_set(err, -code, "%s: the machine ended with %s: %s", cause.message, sm_control_end_name(end),
	                    detail);
}

int sm_identity_renew(struct sm_control *control, bool agent, int timeout_ms, struct sm_error *err)
{
	uint8_t guid[16];
	if (getrandom(guid, sizeof guid, 0) != sizeof guid)
		return sm_error_sys(err, errno, "identity: random bytes");
	int code = sm_control_set_generation(control, guid, err);
	if (code >= 0 && agent)
		code = sm_agent_identity(control, timeout_ms, err);
	if (code < 0)
		code = explain(control, code, err);
	return code < 0 ? sm_error_context(err, "identity") : 0;
}
