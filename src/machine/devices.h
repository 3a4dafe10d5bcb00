/* One table from a slot's kind to the device that fills it. */
#ifndef SM_MACHINE_DEVICES_H
#define SM_MACHINE_DEVICES_H

#include "base/error.h"
#include "machine/control.h"
#include "plan/plan.h"
#include "virtio/virtio.h"

/* The guest's context ID on every machine: muxers are per machine, so it need not differ (virtio 1.2, 5.10.4). */
#define SM_DEVICES_GUEST_CID 3

/* `backing` has something for backed block, volume and fs slots. */
int sm_devices_new(const struct sm_plan_slot *slot, const struct sm_virtio_env *env, const struct sm_backing *backing,
                   struct sm_virtio **ret_device, struct sm_error *err);

#endif
