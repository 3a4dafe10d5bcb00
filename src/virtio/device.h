/* What the transport and the devices share.  Private to this folder.
 *
 * A device struct begins with `struct sm_virtio base`.  All ops run with the device's lock held, except close.
 * Lock order: the device's lock, then the loop's.  sm_loop_remove waits for handlers, which take the device's lock, so
 * it is called on the loop thread or without the lock. */
#ifndef SM_VIRTIO_DEVICE_H
#define SM_VIRTIO_DEVICE_H

#include "virtio/queue.h"
#include "virtio/virtio.h"
#include "virtio/workers.h"

#include <pthread.h>
#include <stdatomic.h>

#define SM_VIRTIO_QUEUES_MAX 8
#define SM_VIRTIO_CONFIG_MAX 64

/* Feature bits, 6 */
#define SM_VIRTIO_F_INDIRECT_DESC (UINT64_C(1) << 28)
#define SM_VIRTIO_F_EVENT_IDX     (UINT64_C(1) << 29)
#define SM_VIRTIO_F_VERSION_1     (UINT64_C(1) << 32)

/* Device status, 2.1 */
#define SM_VIRTIO_ACKNOWLEDGE 1u
#define SM_VIRTIO_DRIVER      2u
#define SM_VIRTIO_DRIVER_OK   4u
#define SM_VIRTIO_FEATURES_OK 8u
#define SM_VIRTIO_NEEDS_RESET 64u
#define SM_VIRTIO_FAILED      128u

/* Interrupt status, 4.2.2 */
#define SM_VIRTIO_INTERRUPT_USED   1u
#define SM_VIRTIO_INTERRUPT_CONFIG 2u

/* What came of one request. */
struct sm_virtio_served {
	uint32_t written; /* bytes of the chain's writable part, from its start on */
	uint64_t bytes;   /* payload, for the counter */
	bool failed;      /* likewise */
	bool full;        /* likewise: the host had no room for it */
	bool kept;        /* nothing of this holds yet: the device completes it, by `tend` */
};

struct sm_virtio_ops {
	uint32_t id; /* section 5 */
	unsigned nqueues;
	uint64_t features; /* the device's own */
	/* Fill in the configuration space, which comes zeroed. */
	void (*config)(struct sm_virtio *device, uint8_t config[SM_VIRTIO_CONFIG_MAX]);
	/* A driver's write to it; offset + size is within it.  NULL: ignored. */
	void (*config_write)(struct sm_virtio *device, unsigned offset, const uint8_t *data, unsigned size);
	/* The driver is up, and what it wants of the features is settled.  NULL: nothing. */
	void (*start)(struct sm_virtio *device);
	/* On the loop thread, at every wake-up, whatever the status.  NULL: nothing. */
	void (*wake)(struct sm_virtio *device);
	/* On the loop thread, when some queue was notified and the driver is up: a bounded piece of work.
	 * Returns whether there is more to do. */
	bool (*process)(struct sm_virtio *device);
	/* Instead of process, where a request may block (never for good): on a thread of its own, without the lock,
	 * many at once, of all queues in any order.  The chain is the caller's; it is returned to the driver whatever
	 * the result, unless its ring is gone meanwhile.  Negative: the driver broke a rule that leaves no way on.
	 * reset, forget, save, load and restored are called while no request is served, others at any time. */
	int (*serve)(struct sm_virtio *device, unsigned queue, const struct sm_chain *chain,
	             struct sm_virtio_served *ret);
	/* Of devices that keep requests; all NULL: it keeps none.  With the lock held, while it is not paused, by a
	 * thread of the device that was woken: tend completes what is ready, again gives one that is to be served once
	 * more (NULL: is there one?).  pause: nobody is inside a request, and nothing is completed until it is called
	 * again. */
	void (*tend)(struct sm_virtio *device);
	bool (*again)(struct sm_virtio *device, struct sm_chain *ret_chain, unsigned *ret_queue);
	void (*pause)(struct sm_virtio *device, bool paused);
	void (*reset)(struct sm_virtio *device); /* NULL: nothing */
	/* While the loop is paused: after reset, what it leaves and a new device has not.  NULL: nothing. */
	void (*forget)(struct sm_virtio *device);
	/* The device's part of the state: fields inside the device's record.  NULL: none. */
	void (*save)(struct sm_virtio *device, struct sm_buf *out);
	int (*load)(struct sm_virtio *device, struct sm_reader *in, struct sm_error *err);
	void (*restored)(struct sm_virtio *device); /* NULL: nothing */
	/* While no request is served: put something behind a slot that has nothing.  NULL: there is no such thing. */
	int (*back)(struct sm_virtio *device, const struct sm_backing *backing, struct sm_error *err);
	/* No handler runs any more.  Frees what the device struct holds, also when half made.  NULL: nothing. */
	void (*close)(struct sm_virtio *device);
};

struct sm_virtio {
	const struct sm_virtio_ops *ops;
	struct sm_virtio_env env;
	int kick_fd;
	struct sm_loop_source *kick;
	_Atomic uint32_t interrupt_status; /* without the lock: read and acknowledged in every guest interrupt */
	_Atomic uint64_t interrupts;

	_Atomic uint64_t self_kicks; /* in kick_fd's count, not by the driver */

	pthread_mutex_t lock; /* what follows */
	bool closing;
	uint32_t status;
	uint64_t driver_features;
	uint32_t device_features_sel, driver_features_sel, queue_sel;
	uint32_t shm_sel;            /* not kept in snapshots: selected anew for each look, by one thread */
	struct sm_memory_window shm; /* region 0; bytes 0: none */
	uint32_t config_generation;
	struct sm_virtio_stats stats; /* less interrupts */
	struct sm_queue queues[SM_VIRTIO_QUEUES_MAX];
	struct sm_chain chain;     /* the one popped last */
	struct sm_workers workers; /* with ops->serve */
};

/* A zeroed struct of `size` bytes, ready for the transport and watched on the loop.  On the constructor's later
 * failure: sm_virtio_free. */
int sm_virtio_create(size_t size, const struct sm_virtio_env *env, const struct sm_virtio_ops *ops, void *ret_device,
                     struct sm_error *err);

/* Under the lock. */
static inline bool sm_virtio_running(const struct sm_virtio *device)
{
	return (device->status & (SM_VIRTIO_DRIVER_OK | SM_VIRTIO_NEEDS_RESET)) == SM_VIRTIO_DRIVER_OK;
}
uint64_t sm_virtio_features(const struct sm_virtio *device); /* all that are offered */
void sm_virtio_wake(struct sm_virtio *device); /* have wake and process called again; without the lock, too */
void sm_virtio_interrupt(struct sm_virtio *device, uint32_t status); /* under the lock, as all that raises */
void sm_virtio_config_changed(struct sm_virtio *device);
/* The driver broke a rule that leaves no way on: DEVICE_NEEDS_RESET, 2.1.2. */
void sm_virtio_broken(struct sm_virtio *device);
void sm_virtio_reset(struct sm_virtio *device);
int sm_virtio_start_queue(struct sm_virtio *device, struct sm_queue *queue);

/* The next chain; false: none, queue not ready, or the ring is broken (handled).  give: return one. */
bool sm_virtio_take(struct sm_virtio *device, unsigned queue, struct sm_chain *ret_chain);
void sm_virtio_give(struct sm_virtio *device, unsigned queue, uint16_t head, uint32_t written);
/* The next chain, until the next pop; NULL: none, queue not ready, or the ring is broken (handled). */
struct sm_chain *sm_virtio_pop(struct sm_virtio *device, unsigned queue);
/* Return the chain popped last. */
void sm_virtio_push(struct sm_virtio *device, unsigned queue, uint32_t written);
/* At the end of a batch: the interrupt, if the driver wants it. */
void sm_virtio_flush(struct sm_virtio *device, unsigned queue);

#endif
