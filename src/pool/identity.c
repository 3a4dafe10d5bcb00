#include "pool/identity.h"

#include "base/time.h"

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

static int check(const struct sm_identity_options *options, struct sm_error *err)
{
	if (options->agent || (!options->hostname && !options->nsecrets && !options->hook.name))
		return 0;
	return sm_error_set(err, EOPNOTSUPP,
	                    "a host name, secrets and on_restore need the agent, which this guest lacks");
}

static struct sm_agent_identity told(const struct sm_identity_options *options)
{
	return (struct sm_agent_identity){
		.hostname = options->hostname,
		.nsecrets = options->nsecrets,
		.secrets = options->secrets,
	};
}

static int renew(struct sm_control *control, const struct sm_identity_options *options, struct sm_error *err)
{
	/* Two: the generation ID goes into the guest kernel's random numbers, the other is for everybody to read. */
	uint8_t guid[16], id[SM_AGENT_ID_BYTES];
	uint64_t start = sm_time_us();
	int code = check(options, err);
	if (code < 0)
		return code;
	if (getrandom(guid, sizeof guid, 0) != sizeof guid || getrandom(id, sizeof id, 0) != sizeof id)
		return sm_error_sys(err, errno, "random bytes");
	/* RFC 9562, version 4 */
	id[6] = (uint8_t)((id[6] & 0x0f) | 0x40);
	id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
	code = sm_control_set_generation(control, guid, err);
	if (code >= 0 && options->agent) {
		struct sm_agent_identity identity = told(options);
		identity.id = id;
		identity.hook = options->hook;
		code = sm_agent_identity_renew(control, &identity, options->timeout_ms, err);
	}
	if (code >= 0)
		sm_control_set_id(control, id, (uint32_t)(sm_time_us() - start));
	return code;
}

static int add(struct sm_control *control, const struct sm_identity_options *options, struct sm_error *err)
{
	struct sm_agent_identity identity = told(options);
	int fd, code = check(options, err);
	if (code >= 0)
		code = sm_control_connect(control, SM_AGENT_PORT, &fd, err);
	if (code < 0)
		return code;
	const struct sm_agent_wait wait = { .timeout_ms = options->timeout_ms };
	return sm_agent_identity_send(fd, &identity, &wait, err);
}

static int finish(struct sm_control *control, int code, struct sm_error *err)
{
	if (code < 0)
		code = explain(control, code, err);
	return code < 0 && err ? sm_error_context(err, "identity") : code;
}

int sm_identity_renew(struct sm_control *control, const struct sm_identity_options *options, struct sm_error *err)
{
	return finish(control, renew(control, options, err), err);
}

int sm_identity_add(struct sm_control *control, const struct sm_identity_options *options, struct sm_error *err)
{
	return finish(control, add(control, options, err), err);
}
