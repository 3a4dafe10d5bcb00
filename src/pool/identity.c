#include "pool/identity.h"

#include "agent/identity.h"

#include <errno.h>
#include <sys/random.h>

int sm_identity_renew(struct sm_control *control, bool agent, int timeout_ms, struct sm_error *err)
{
	uint8_t guid[16];
	if (getrandom(guid, sizeof guid, 0) != sizeof guid)
		return sm_error_sys(err, errno, "identity: random bytes");
	int code = sm_control_set_generation(control, guid, err);
	if (code >= 0 && agent)
		code = sm_agent_identity(control, timeout_ms, err);
	return code < 0 ? sm_error_context(err, "identity") : 0;
}
