#include "pool/volumes.h"

#include "agent/mount.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEVICE_MAX 16

int sm_volume_wishes_add(struct sm_volume_wishes *wishes, const struct sm_volume_wish *wish, struct sm_error *err)
{
	if (wishes->count == SM_VOLUMES_MAX)
		return sm_error_set(err, E2BIG, "volumes: at most %d", SM_VOLUMES_MAX);
	struct sm_volume_wish *list = realloc(wishes->list, (wishes->count + 1) * sizeof *list);
	if (!list)
		return sm_error_set(err, ENOMEM, "volumes: out of memory");
	wishes->list = list;
	struct sm_volume_wish *copy = &list[wishes->count++];
	*copy = *wish;
	copy->source.path = strdup(wish->source.path);
	copy->guest = wish->guest ? strdup(wish->guest) : NULL;
	if (!copy->source.path || (wish->guest && !copy->guest))
		return sm_error_set(err, ENOMEM, "volumes: out of memory");
	return 0;
}

void sm_volume_wishes_done(struct sm_volume_wishes *wishes)
{
	for (unsigned i = 0; i < wishes->count; i++) {
		free(wishes->list[i].source.path);
		free(wishes->list[i].guest);
	}
	free(wishes->list);
	*wishes = (struct sm_volume_wishes){ 0 };
}

int sm_volume_wishes_open(const struct sm_volume_wishes *wishes, struct sm_volume **ret_volumes, struct sm_error *err)
{
	struct sm_volume *volumes = calloc(wishes->count ? wishes->count : 1, sizeof *volumes);
	if (!volumes)
		return sm_error_set(err, ENOMEM, "volumes: out of memory");
	for (unsigned i = 0; i < wishes->count; i++) {
		int code = sm_volume_file_open(&wishes->list[i].source, &volumes[i], err);
		if (code < 0) {
			sm_volume_wishes_close(volumes, i);
			return code;
		}
		volumes[i].index = i;
	}
	*ret_volumes = volumes;
	return 0;
}

void sm_volume_wishes_close(struct sm_volume *volumes, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		sm_volume_file_close(&volumes[i]);
	free(volumes);
}

/* As Linux calls it, which numbers virtio-blk devices as it finds them, in slot order: vda to vdz, vdaa and on. */
static void device_of(const struct sm_plan *plan, unsigned index, char out[DEVICE_MAX])
{
	unsigned number = index;
	for (unsigned i = 0; i < plan->nslots; i++)
		number += plan->slots[i].kind == SM_PLAN_BLOCK;
	char letters[4];
	size_t len = 0;
	for (number++; number > 0 && len < sizeof letters; number = (number - 1) / 26)
		letters[len++] = (char)('a' + (number - 1) % 26);
	memcpy(out, "/dev/vd", 7);
	out += 7;
	while (len > 0)
		*out++ = letters[--len];
	*out = '\0';
}

static int mount_one(struct sm_control *control, const struct sm_volume_wish *wish, unsigned index,
                     const struct sm_agent_wait *wait, struct sm_error *err)
{
	char device[DEVICE_MAX];
	if (!wish->guest)
		return 0;
	device_of(sm_control_plan(control), index, device);
	const struct sm_agent_mount mount = {
		.type = "ext4",
		.source = device,
		.target = wish->guest,
		.readonly = wish->source.readonly,
	};
	int code = sm_agent_mount(control, &mount, wait, err);
	return code < 0 ? sm_error_context(err, "volume %s", wish->source.path) : 0;
}

int sm_volume_wishes_mount(struct sm_control *control, const struct sm_volume_wishes *wishes,
                           const struct sm_agent_wait *wait, struct sm_error *err)
{
	int code = 0;
	for (unsigned i = 0; i < wishes->count && code >= 0; i++)
		code = mount_one(control, &wishes->list[i], i, wait, err);
	return code;
}

static int give_one(struct sm_control *control, const struct sm_volume_wish *wish, unsigned *ret_index,
                    struct sm_error *err)
{
	struct sm_volume volume;
	int code = sm_volume_file_open(&wish->source, &volume, err);
	if (code < 0)
		return code;
	const struct sm_backing backing = { .volume = &volume };
	code = sm_control_back(control, SM_PLAN_VOLUME, &backing, ret_index, err);
	sm_volume_file_close(&volume);
	return code < 0 ? sm_error_context(err, "volume %s", wish->source.path) : 0;
}

int sm_volume_wishes_give(struct sm_control *control, const struct sm_volume_wishes *wishes, bool agent,
                          const struct sm_agent_wait *wait, struct sm_error *err)
{
	int code = 0;
	for (unsigned i = 0; i < wishes->count && code >= 0; i++) {
		unsigned index;
		code = give_one(control, &wishes->list[i], &index, err);
		if (code >= 0 && agent)
			code = mount_one(control, &wishes->list[i], index, wait, err);
	}
	return code;
}
