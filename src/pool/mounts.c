#include "pool/mounts.h"

#include "agent/mount.h"
#include "base/fd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct sm_source_mount sm_mounts_for_slot(const struct sm_source_mount *wish, unsigned index)
{
	struct sm_source_mount mount = *wish;
	snprintf(mount.tag, sizeof mount.tag, "mount%u", index);
	return mount;
}

int sm_mounts_wish(const struct sm_source_mounts *saved, const struct sm_source_mount *wishes, unsigned count,
                   struct sm_mounts_wish *ret, struct sm_error *err)
{
	*ret = (struct sm_mounts_wish){ 0 };
	int code = sm_source_mounts_copy(saved, &ret->bound, err);
	for (unsigned i = 0; i < count && code == 0; i++) {
		struct sm_source_mount last = sm_mounts_for_slot(&wishes[i], saved->count + ret->added.count);
		code = sm_source_mounts_find(saved, wishes[i].guest)
		           ? sm_source_mounts_rebind(&ret->bound, &wishes[i], err)
		           : sm_source_mounts_add(&ret->added, &last, err);
	}
	return code;
}

int sm_mounts_wish_copy(const struct sm_mounts_wish *from, struct sm_mounts_wish *to, struct sm_error *err)
{
	*to = (struct sm_mounts_wish){ 0 };
	int code = sm_source_mounts_copy(&from->bound, &to->bound, err);
	return code < 0 ? code : sm_source_mounts_copy(&from->added, &to->added, err);
}

void sm_mounts_wish_done(struct sm_mounts_wish *wish)
{
	sm_source_mounts_done(&wish->bound);
	sm_source_mounts_done(&wish->added);
}

static int tell(struct sm_control *control, const struct sm_source_mount *mount, const struct sm_agent_wait *wait,
                struct sm_error *err)
{
	const struct sm_agent_mount told = {
		.type = "virtiofs",
		.source = mount->tag,
		.target = mount->guest,
		.name = mount->name,
		.readonly = mount->options.readonly,
	};
	return sm_agent_mount(control, &told, wait, err);
}

int sm_mounts_tell(struct sm_control *control, const struct sm_source_mounts *mounts, const struct sm_agent_wait *wait,
                   struct sm_error *err)
{
	int code = 0;
	for (unsigned i = 0; i < mounts->count && code == 0; i++)
		code = tell(control, &mounts->list[i], wait, err);
	return code;
}

static int add(struct sm_control *control, const struct sm_source_mount *mount, bool agent,
               const struct sm_agent_wait *wait, struct sm_error *err)
{
	struct sm_mount opened;
	unsigned index;
	int code = sm_source_mount_open(mount, &opened, err);
	if (code < 0)
		return code;
	opened.tag = NULL;
	code = sm_control_back(control, SM_PLAN_FS, &(struct sm_backing){ .mount = &opened }, &index, err);
	sm_fd_close(&opened.root_fd);
	if (code < 0)
		return sm_error_context(err, "mount %s", mount->guest);
	if (strcmp(sm_mounts_for_slot(mount, index).tag, mount->tag) != 0)
		return sm_error_set(err, EAGAIN, "mount %s: another one was put behind its slot", mount->guest);
	return agent ? tell(control, mount, wait, err) : 0;
}

int sm_mounts_add(struct sm_control *control, const struct sm_source_mounts *mounts, bool agent,
                  const struct sm_agent_wait *wait, struct sm_error *err)
{
	int code = 0;
	for (unsigned i = 0; i < mounts->count && code == 0; i++)
		code = add(control, &mounts->list[i], agent, wait, err);
	return code;
}
