/* The control seam: everything above machine/ reaches a machine only through this.
 *
 * The same requests travel over two transports: a direct call in this process, and a socketpair to a forked worker
 * process that opens no path.  Calls are blocking, a few hundred microseconds except build and capture; any thread may
 * call, one at a time is served. */
#ifndef SM_MACHINE_CONTROL_H
#define SM_MACHINE_CONTROL_H

#include "base/buf.h"
#include "base/error.h"
#include "fuse/fuse.h"
#include "memory/source.h"
#include "plan/backing.h"
#include "plan/plan.h"

#include <stdbool.h>
#include <stdint.h>

struct sm_control;

enum sm_control_transport {
	SM_CONTROL_DIRECT,
	SM_CONTROL_WORKER,
};

/* What a machine is built from.  Descriptors and segments are borrowed (duplicated as needed). */
struct sm_control_build {
	const struct sm_plan *plan;
	int hv_fd;                          /* /dev/kvm */
	int kernel_fd;                      /* cold boot; -1 on restore */
	int initrd_fd;                      /* cold boot, optional: -1 */
	int state_fd;                       /* restore: what capture wrote; -1 on cold boot */
	const struct sm_memory_source *ram; /* restore: mapped copy on write; NULL on cold boot */
	unsigned ndisks;
	const struct sm_disk *disks; /* one for each backed block slot, in slot order */
	unsigned nvolumes;
	const struct sm_volume *volumes; /* one for each backed volume slot, and for others that are to have one */
	unsigned nmounts;
	const struct sm_mount *mounts; /* one for each backed fs slot, in slot order */
};

/* Build a paused machine.  On failure nothing is left behind. */
int sm_control_open(enum sm_control_transport transport, const struct sm_control_build *build,
                    struct sm_control **ret_control, struct sm_error *err);
/* Controls are counted: open gives one reference.  The last close ends the machine and frees everything (worker: the
 * process is gone and reaped).  NULL is fine. */
struct sm_control *sm_control_ref(struct sm_control *control);
bool sm_control_shared(const struct sm_control *control); /* there is more than one reference */
void sm_control_close(struct sm_control *control);

int sm_control_resume(struct sm_control *control, struct sm_error *err);
int sm_control_pause(struct sm_control *control, struct sm_error *err);

/* State to state_fd, RAM to ram_fd (zero pages as holes), both from offset 0.  A running machine is captured as it is
 * at one moment near the end, and runs on: its RAM is written while it runs, and what has changed since again, until it
 * stands still for little.  Other calls are served meanwhile; resets and other captures wait.  -ESHUTDOWN when it ends
 * before.  ret_extents not NULL: only the RAM that has changed since the machine was restored, and where that is;
 * owned, -EINVAL for a machine that was booted. */
struct sm_control_captured {
	uint64_t ram_bytes;     /* stored, without holes */
	uint64_t written_bytes; /* in all rounds */
	uint64_t pause_us;      /* how long a running machine stood still */
	uint64_t volumes_us;    /* of that, for its volumes */
	uint32_t rounds;        /* the last one, of a machine that stands still, included */
};
/* Each volume that the machine has is copied as it is at that moment to a file that holds nothing; -EAGAIN when it has
 * got others meanwhile. */
struct sm_control_volume {
	unsigned index;
	int fd;
};
int sm_control_capture(struct sm_control *control, int ram_fd, int state_fd, const struct sm_control_volume *volumes,
                       unsigned nvolumes, struct sm_control_captured *ret, struct sm_memory_extents *ret_extents,
                       struct sm_error *err);

/* The volumes that the machine has now, in slot order, without their descriptors; SM_PLAN_SLOTS_MAX of them at most. */
int sm_control_volumes(struct sm_control *control, struct sm_volume ret_volumes[SM_PLAN_SLOTS_MAX], unsigned *ret_count,
                       struct sm_error *err);

/* Make a restored machine what it was when it was restored, in place, and leave it paused: RAM (only what has changed
 * is touched), vCPUs, devices; connections and listeners are closed, the console is empty, the device counters are 0.
 * -EINVAL for a machine that was booted, -ESHUTDOWN for one that has ended.  After any other failure it has ended too.
 */
struct sm_control_reset {
	uint64_t copied_bytes, dropped_bytes; /* of RAM: written back, and given back to the host */
	/* Until vCPUs and devices stood still; for RAM, while the vCPUs load their state; all of it. */
	uint32_t stop_us, memory_us, total_us;
};
int sm_control_reset(struct sm_control *control, struct sm_control_reset *ret, struct sm_error *err);

/* Which RAM of a restored machine was touched since, by guest or host: see sm_memory_touched.  Owned; -EINVAL for a
 * machine that was booted. */
int sm_control_touched(struct sm_control *control, struct sm_memory_touched *ret, struct sm_error *err);

/* Put something behind the first slot of this kind that has nothing, whether the guest runs or not; a reset takes it
 * away.  Borrowed, as at the build.  The plan says so too from then on, and so does a snapshot of the machine. -ENOSPC:
 * there is no such slot. */
int sm_control_back(struct sm_control *control, enum sm_plan_kind kind, const struct sm_backing *backing,
                    unsigned *ret_index, struct sm_error *err);

/* Streams to and from the guest's vsock: see virtio/virtio.h. */
int sm_control_connect(struct sm_control *control, uint32_t port, int *ret_fd, struct sm_error *err);
int sm_control_listen(struct sm_control *control, uint32_t port, int *ret_fd, struct sm_error *err);

/* Write a new VM generation ID and tell the guest (Microsoft VMGENID; ACPI event device). */
int sm_control_set_generation(struct sm_control *control, const uint8_t guid[16], struct sm_error *err);

/* Which machine it is, a UUID, for whoever asks the control; all zeros until it is set.  identity_us: what it took to
 * give it that identity. */
void sm_control_set_id(struct sm_control *control, const uint8_t id[16], uint32_t identity_us);
void sm_control_id(struct sm_control *control, uint8_t ret_id[16]);

/* Ask the balloon to hold this many MiB. */
int sm_control_set_balloon(struct sm_control *control, uint64_t mib, struct sm_error *err);

/* The console ring's content from absolute position *cursor on (advanced); older bytes than the ring holds are
 * skipped.  *ret_lost: bytes skipped. */
int sm_control_console(struct sm_control *control, uint64_t *cursor, struct sm_buf *out, uint64_t *ret_lost,
                       struct sm_error *err);

struct sm_control_device {
	struct sm_plan_slot slot;
	uint64_t requests, bytes, errors, full, kicks, interrupts;
	bool has_fs; /* a folder is behind it */
	struct sm_fuse_stats fs;
};
/* ret_devices: malloc'd, one a slot. */
int sm_control_devices(struct sm_control *control, struct sm_control_device **ret_devices, unsigned *ret_count,
                       struct sm_error *err);

struct sm_control_statistics {
	uint64_t exits, mmio_exits, pio_exits, kicks, unhandled;
	uint32_t balloon_mib;
};
int sm_control_statistics(struct sm_control *control, struct sm_control_statistics *ret, struct sm_error *err);

/* Where the time went between nothing and a machine that runs, microseconds each.  On a restore, interrupt controllers,
 * vCPUs and devices include the loading of their state. */
struct sm_control_times {
	uint32_t vm_us;        /* the host asked what it can do, a VM made */
	uint32_t map_us;       /* RAM mapped; what is to be in it or the saved state read */
	uint32_t memslot_us;   /* RAM made known to the hypervisor */
	uint32_t irqchip_us;   /* interrupt controllers */
	uint32_t vcpus_us;     /* vCPUs, and the clock that they share */
	uint32_t devices_us;   /* devices, wired and on the bus */
	uint32_t total_us;     /* from the first of these to the last */
	uint32_t identity_us;  /* the last identity given, the guest's answer included; 0: none yet */
	uint32_t first_run_us; /* from the first resume since build or reset to the first exit served; 0: none yet */
};
int sm_control_times(struct sm_control *control, struct sm_control_times *ret, struct sm_error *err);

/* Why a machine ended. */
enum sm_control_end {
	SM_CONTROL_RUNNING = 0, /* or paused: not ended */
	SM_CONTROL_POWEROFF,
	SM_CONTROL_RESET,
	SM_CONTROL_HALT,  /* every vCPU off or halted with interrupts off, or the kernel said so */
	SM_CONTROL_PANIC, /* the guest kernel said so; detail has its words */
	SM_CONTROL_TRIPLE_FAULT,
	SM_CONTROL_FAULT, /* the hypervisor could not go on; detail says what */
	SM_CONTROL_WORKER_DIED,
};
const char *sm_control_end_name(enum sm_control_end end); /* "running", "poweroff", "reset", ... */

/* Readable (POLLIN) when the machine has ended by itself.  Borrowed. */
int sm_control_end_fd(const struct sm_control *control);
/* Never blocks.  detail: one line, may be empty. */
enum sm_control_end sm_control_ended(struct sm_control *control, char detail[256]);

const struct sm_plan *sm_control_plan(const struct sm_control *control);
/* The worker's process, or 0. */
int sm_control_pid(const struct sm_control *control);

#endif
