/* A snapshot's volumes: files `volume-N` of the folder, N being the slot, each as the volume was when the machine was
 * captured.  Machines read them below overlays of their own.  Private to this room. */
#ifndef SM_SNAPSHOT_VOLUMES_H
#define SM_SNAPSHOT_VOLUMES_H

#include "plan/volume.h"
#include "snapshot/inside.h"

/* Save: say in meta what the machine has.  create: empty files for them, as long as the volumes; -1 in the rest of
 * ret_fds.  finish: hash, sync and stamp. */
int sm_snapshot_volumes_list(struct sm_control *control, struct sm_format_meta *meta, struct sm_error *err);
int sm_snapshot_volumes_create(const struct sm_format_meta *meta, const char *folder, int ret_fds[SM_PLAN_SLOTS_MAX],
                               struct sm_error *err);
/* Of another snapshot into them. */
int sm_snapshot_volumes_copy(const struct sm_snapshot *from, const int *fds, struct sm_error *err);

/* Open what meta lists, checked. */
int sm_snapshot_volumes_open(struct sm_snapshot *snapshot, const struct sm_snapshot_open *how, struct sm_error *err);
void sm_snapshot_volumes_close(struct sm_snapshot *snapshot);

/* For one machine: each with an overlay, but for those that are read-only.  done: the overlays' descriptors, for the
 * files' are the snapshot's. */
int sm_snapshot_volumes_build(const struct sm_snapshot *snapshot, struct sm_volume ret_volumes[SM_PLAN_SLOTS_MAX],
                              struct sm_error *err);
void sm_snapshot_volumes_done(struct sm_volume *volumes, unsigned count);

#endif
