/* A virtio device behind the MMIO transport (virtio 1.2, section 4.2), as the machine sees it.
 *
 * Threads: mmio calls come from vCPU threads, queue work runs on the machine's loop or on threads of the device, the
 * rest from its control thread; each device has one lock for all but the requests that such threads serve. */
#ifndef SM_VIRTIO_VIRTIO_H
#define SM_VIRTIO_VIRTIO_H

#include "base/codec.h"
#include "base/error.h"
#include "base/line.h"
#include "base/loop.h"
#include "fuse/fuse.h"
#include "memory/memory.h"
#include "plan/backing.h"

#include <stdbool.h>
#include <stdint.h>

struct sm_virtio;

/* What every device gets.  line: the slot's interrupt. */
struct sm_virtio_env {
	struct sm_memory *memory;
	struct sm_loop *loop;
	struct sm_line line;
	struct sm_memory_window window; /* fs: its DAX window; bytes 0: none */
};

/* One constructor a device kind; the row in machine/devices.c names it.
 * block: `disk` is deep-copied, descriptors dup'd; NULL: an unbacked slot (capacity 0). */
int sm_virtio_blk_new(const struct sm_virtio_env *env, const struct sm_disk *disk, struct sm_virtio **ret,
                      struct sm_error *err);
/* volume: descriptors are dup'd; NULL: an unbacked slot.  `index` is the slot's. */
int sm_virtio_volume_new(const struct sm_virtio_env *env, unsigned index, const struct sm_volume *volume,
                         struct sm_virtio **ret, struct sm_error *err);
int sm_virtio_rng_new(const struct sm_virtio_env *env, struct sm_virtio **ret, struct sm_error *err);
int sm_virtio_balloon_new(const struct sm_virtio_env *env, struct sm_virtio **ret, struct sm_error *err);
int sm_virtio_vsock_new(const struct sm_virtio_env *env, uint64_t guest_cid, struct sm_virtio **ret,
                        struct sm_error *err);
/* fs: everything of `mount` is copied; NULL: an unbacked slot, which answers each mount in the guest with ENODEV. `tag`
 * is the slot's where the mount has none. */
int sm_virtio_fs_new(const struct sm_virtio_env *env, const char *tag, const struct sm_mount *mount,
                     struct sm_virtio **ret, struct sm_error *err);
/* Put something behind an unbacked slot while its guest runs; forget takes it away.  Control thread.  -EBUSY: it has
 * something, -ENOTSUP: it is not of this kind. */
int sm_virtio_back(struct sm_virtio *device, const struct sm_backing *backing, struct sm_error *err);
void sm_virtio_free(struct sm_virtio *device); /* NULL is fine; the loop still runs */

/* The eventfd whose reads say "the driver notified some queue".  Borrowed.  The device watches it on the loop;
 * the machine lets the hypervisor raise it on writes to base + SM_VIRTIO_QUEUE_NOTIFY. */
#define SM_VIRTIO_QUEUE_NOTIFY 0x50
int sm_virtio_kick_fd(const struct sm_virtio *device);

/* Register access by the guest: offset within the slot, 1, 2, 4 or 8 bytes.  Odd accesses read as zero. */
uint64_t sm_virtio_mmio_read(struct sm_virtio *device, uint64_t offset, unsigned size);
void sm_virtio_mmio_write(struct sm_virtio *device, uint64_t offset, unsigned size, uint64_t value);

/* Devices whose requests may block serve them on threads of their own, not on the loop.  pause returns when none is
 * inside a request, and none begins another until it is resumed; nests.  Other devices: nothing. */
void sm_virtio_pause(struct sm_virtio *device);
void sm_virtio_resume(struct sm_virtio *device);

/* While vCPUs, loop and device are paused.  load expects a device fresh from its constructor, or after forget, which
 * lets go of the driver, of every connection and listener, and of the counters. */
void sm_virtio_forget(struct sm_virtio *device);
int sm_virtio_save(struct sm_virtio *device, struct sm_buf *out, struct sm_error *err);
int sm_virtio_load(struct sm_virtio *device, struct sm_reader *in, struct sm_error *err);
/* After a restore, before vCPUs run: each queue counts as kicked, each raised interrupt is raised again; vsock tells
 * the guest that its transport was reset. */
void sm_virtio_restored(struct sm_virtio *device);

struct sm_virtio_stats {
	uint64_t requests;   /* descriptor chains completed */
	uint64_t bytes;      /* payload, both directions */
	uint64_t errors;     /* malformed or failed */
	uint64_t full;       /* of these: the host had no room for what was to be written */
	uint64_t kicks;      /* notifications by the driver */
	uint64_t interrupts; /* raised */
};
void sm_virtio_stats(struct sm_virtio *device, struct sm_virtio_stats *ret);

/* vsock (virtio 1.2, 5.10).  connect: a stream to `port` in the guest as a new socket descriptor, at once; refused
 * or reset shows as end of file or ECONNRESET on it.  listen: a SOCK_SEQPACKET descriptor on which each connection that
 * the guest makes to host port `port` arrives as one message: u32 guest port, with the stream's descriptor
 * (SCM_RIGHTS); closing it ends the listening.  -EADDRINUSE for a second listener. */
int sm_virtio_vsock_connect(struct sm_virtio *device, uint32_t port, int *ret_fd, struct sm_error *err);
int sm_virtio_vsock_listen(struct sm_virtio *device, uint32_t port, int *ret_fd, struct sm_error *err);

/* The guest is gone for good: what it sent last is handed over, every connection ends, and connect gives -ESHUTDOWN. */
void sm_virtio_vsock_hang_up(struct sm_virtio *device);

/* volume.  A copy of all that it holds, as it is at the moment of finish, to a file that holds nothing.  track and
 * finish are called while the device is paused, copy at any time in between, until *offset has come from 0 to the
 * volume's end; a copy is of at most about max_bytes.  untrack, while it is paused, whatever came of it.  finish:
 * *ret_bytes were written to since.  get: what is there now, without the descriptors; false: nothing. */
int sm_virtio_volume_track(struct sm_virtio *device, struct sm_error *err);
int sm_virtio_volume_copy(struct sm_virtio *device, int fd, uint64_t *offset, uint64_t max_bytes, struct sm_error *err);
int sm_virtio_volume_finish(struct sm_virtio *device, int fd, uint64_t *ret_bytes, struct sm_error *err);
void sm_virtio_volume_untrack(struct sm_virtio *device);
bool sm_virtio_volume_get(struct sm_virtio *device, struct sm_volume *ret);
/* fs: a vCPU could not reach memory, perhaps where a mapped file has become shorter.  How many places were mended; 0:
 * it is not that.  Any thread. */
unsigned sm_virtio_fs_mend(struct sm_virtio *device);
/* What its file server has counted; false: there is none. */
bool sm_virtio_fs_stats(struct sm_virtio *device, struct sm_fuse_stats *ret);

/* balloon: pages (4 KiB) the guest is asked to give, and has given. */
int sm_virtio_balloon_set(struct sm_virtio *device, uint32_t pages);
uint32_t sm_virtio_balloon_actual(struct sm_virtio *device);

#endif
