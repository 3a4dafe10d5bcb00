#include "machine/devices.h"

#include <errno.h>
#include <stdio.h>

typedef int (*constructor)(const struct sm_virtio_env *env, const struct sm_plan_slot *slot,
                           const struct sm_backing *backing, struct sm_virtio **ret, struct sm_error *err);

static int new_vsock(const struct sm_virtio_env *env, const struct sm_plan_slot *slot, const struct sm_backing *backing,
                     struct sm_virtio **ret, struct sm_error *err)
{
	(void)slot, (void)backing;
	return sm_virtio_vsock_new(env, SM_DEVICES_GUEST_CID, ret, err);
}

static int new_block(const struct sm_virtio_env *env, const struct sm_plan_slot *slot, const struct sm_backing *backing,
                     struct sm_virtio **ret, struct sm_error *err)
{
	(void)slot;
	return sm_virtio_blk_new(env, backing->disk, ret, err);
}

static int new_volume(const struct sm_virtio_env *env, const struct sm_plan_slot *slot,
                      const struct sm_backing *backing, struct sm_virtio **ret, struct sm_error *err)
{
	return sm_virtio_volume_new(env, slot->index, backing->volume, ret, err);
}

static int new_rng(const struct sm_virtio_env *env, const struct sm_plan_slot *slot, const struct sm_backing *backing,
                   struct sm_virtio **ret, struct sm_error *err)
{
	(void)slot, (void)backing;
	return sm_virtio_rng_new(env, ret, err);
}

static int new_balloon(const struct sm_virtio_env *env, const struct sm_plan_slot *slot,
                       const struct sm_backing *backing, struct sm_virtio **ret, struct sm_error *err)
{
	(void)slot, (void)backing;
	return sm_virtio_balloon_new(env, ret, err);
}

static int new_fs(const struct sm_virtio_env *env, const struct sm_plan_slot *slot, const struct sm_backing *backing,
                  struct sm_virtio **ret, struct sm_error *err)
{
	char tag[SM_MOUNT_TAG_MAX + 1];
	snprintf(tag, sizeof tag, "mount%u", slot->index);
	return sm_virtio_fs_new(env, tag, backing->mount, ret, err);
}

static const struct {
	enum sm_plan_kind kind;
	constructor make;
} table[] = {
	{ SM_PLAN_VSOCK, new_vsock }, { SM_PLAN_BLOCK, new_block },     { SM_PLAN_VOLUME, new_volume },
	{ SM_PLAN_RNG, new_rng },     { SM_PLAN_BALLOON, new_balloon }, { SM_PLAN_FS, new_fs },
};

int sm_devices_new(const struct sm_plan_slot *slot, const struct sm_virtio_env *env, const struct sm_backing *backing,
                   struct sm_virtio **ret_device, struct sm_error *err)
{
	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (table[i].kind == slot->kind)
			return table[i].make(env, slot, backing, ret_device, err);
	return sm_error_set(err, ENOTSUP, "device %s %u: this build has no such device", sm_plan_kind_name(slot->kind),
	                    slot->index);
}
