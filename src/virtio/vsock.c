/* The socket device: its queues, packets and state. */
#include "virtio/vsock.h"

#include <errno.h>
#include <string.h>

#define DEVICE_ID  19u
#define BATCH      32u /* packets by the guest a wake-up */
#define FIRST_PORT (1u << 30)

#define EVENT_TRANSPORT_RESET 0u /* 5.10.6.7 */

static struct sm_vsock *vsock_of(struct sm_virtio *device)
{
	return (struct sm_vsock *)device;
}

static void vsock_config(struct sm_virtio *device, uint8_t config[SM_VIRTIO_CONFIG_MAX])
{
	memcpy(config, &vsock_of(device)->guest_cid, 8);
}

const struct sm_chain *sm_vsock_rx_open(struct sm_vsock *vsock)
{
	if (vsock->reset_due || vsock->held)
		return NULL;
	const struct sm_chain *chain = sm_virtio_pop(&vsock->base, SM_VSOCK_RX);
	if (chain && chain->write_bytes <= SM_VSOCK_HEADER_BYTES) {
		sm_virtio_broken(&vsock->base); /* could never carry data */
		return NULL;
	}
	return chain;
}

void sm_vsock_rx_undo(struct sm_vsock *vsock)
{
	sm_queue_undo(&vsock->base.queues[SM_VSOCK_RX]);
}

void sm_vsock_rx_send(struct sm_vsock *vsock, const struct sm_vsock_packet *packet)
{
	sm_chain_write(&vsock->base.chain, 0, packet, sizeof *packet);
	vsock->base.stats.bytes += packet->len;
	sm_virtio_push(&vsock->base, SM_VSOCK_RX, SM_VSOCK_HEADER_BYTES + packet->len);
}

/* Drivers handle the event and the receive queue on different threads.  A new connection that overtook the event would
 * be reset with the old ones, so nothing is sent until the driver has put the event's buffer back. */
static void transport_reset(struct sm_vsock *vsock)
{
	struct sm_virtio *device = &vsock->base;
	struct sm_queue *queue = &device->queues[SM_VSOCK_EVENT];
	if (!queue->ready) {
		vsock->reset_due = vsock->held = false;
		return;
	}
	if (vsock->reset_due) {
		const struct sm_chain *chain = sm_virtio_pop(device, SM_VSOCK_EVENT);
		if (!chain)
			return;
		const uint32_t id = EVENT_TRANSPORT_RESET;
		sm_chain_write(chain, 0, &id, sizeof id);
		vsock->held_at = sm_queue_arm(queue);
		vsock->held = true;
		vsock->reset_due = false;
		sm_virtio_push(device, SM_VSOCK_EVENT, sizeof id);
		sm_virtio_flush(device, SM_VSOCK_EVENT);
	}
	if (vsock->held && sm_queue_arm(queue) != vsock->held_at)
		vsock->held = false;
}

static void guest_packet(struct sm_vsock *vsock, const struct sm_chain *chain)
{
	struct sm_vsock_packet packet;
	if (sm_chain_read(chain, 0, &packet, sizeof packet) != sizeof packet ||
	    packet.len > chain->read_bytes - sizeof packet) {
		vsock->base.stats.errors++;
		return;
	}
	vsock->base.stats.bytes += packet.len;
	sm_vsock_mux_packet(vsock, &packet, chain);
}

static bool vsock_process(struct sm_virtio *device)
{
	struct sm_vsock *vsock = vsock_of(device);
	transport_reset(vsock);
	unsigned done = 0;
	for (; done < BATCH; done++) {
		/* Each packet may need an answer, and there is no room for more: the guest must take some first. */
		if (vsock->nresets == SM_VSOCK_RESETS_MAX) {
			sm_vsock_mux_control(vsock);
			if (vsock->nresets == SM_VSOCK_RESETS_MAX)
				break;
		}
		const struct sm_chain *chain = sm_virtio_pop(device, SM_VSOCK_TX);
		if (!chain)
			break;
		guest_packet(vsock, chain);
		sm_virtio_push(device, SM_VSOCK_TX, 0);
	}
	sm_virtio_flush(device, SM_VSOCK_TX);
	/* What the guest said last was heard. */
	if (vsock->ended && done < BATCH)
		sm_vsock_mux_hang_up(vsock);
	bool more = sm_vsock_mux_service(vsock);
	return more || done == BATCH;
}

static void vsock_wake(struct sm_virtio *device)
{
	if (vsock_of(device)->ended && !sm_virtio_running(device))
		sm_vsock_mux_hang_up(vsock_of(device));
	sm_vsock_mux_reap(vsock_of(device));
}

static void vsock_reset(struct sm_virtio *device)
{
	struct sm_vsock *vsock = vsock_of(device);
	vsock->reset_due = vsock->held = false;
	sm_vsock_mux_reset(vsock);
	sm_virtio_wake(device);
}

static void vsock_forget(struct sm_virtio *device)
{
	sm_vsock_mux_close(vsock_of(device));
	vsock_of(device)->ended = false;
}

/* Connections are not saved: their host ends belong to programs that a restored machine does not have.  The port
 * counter is, so that a packet of an old connection never meets a new one. */
static void vsock_save(struct sm_virtio *device, struct sm_buf *out)
{
	sm_put_u64(out, vsock_of(device)->guest_cid);
	sm_put_u32(out, vsock_of(device)->next_port);
}

static int vsock_load(struct sm_virtio *device, struct sm_reader *in, struct sm_error *err)
{
	uint64_t guest_cid = sm_get_u64(in);
	uint32_t next_port = sm_get_u32(in);
	if (guest_cid != vsock_of(device)->guest_cid)
		return sm_error_set(err, EBADMSG, "vsock: saved with guest CID %llu, this one has %llu",
		                    (unsigned long long)guest_cid, (unsigned long long)vsock_of(device)->guest_cid);
	if (next_port < FIRST_PORT)
		return sm_error_set(err, EBADMSG, "vsock: host port %u is not from this range", next_port);
	vsock_of(device)->next_port = next_port;
	return 0;
}

static void vsock_restored(struct sm_virtio *device)
{
	vsock_of(device)->reset_due = sm_virtio_running(device);
}

static void vsock_close(struct sm_virtio *device)
{
	sm_vsock_mux_close(vsock_of(device));
}

static const struct sm_virtio_ops vsock_ops = {
	.id = DEVICE_ID,
	.nqueues = SM_VSOCK_QUEUES,
	.config = vsock_config,
	.wake = vsock_wake,
	.process = vsock_process,
	.reset = vsock_reset,
	.forget = vsock_forget,
	.save = vsock_save,
	.load = vsock_load,
	.restored = vsock_restored,
	.close = vsock_close,
};

bool sm_vsock_is(const struct sm_virtio *device)
{
	return device->ops == &vsock_ops;
}

int sm_virtio_vsock_new(const struct sm_virtio_env *env, uint64_t guest_cid, struct sm_virtio **ret,
                        struct sm_error *err)
{
	*ret = NULL;
	if (guest_cid <= SM_VSOCK_HOST_CID || guest_cid >= UINT32_MAX)
		return sm_error_set(err, EINVAL, "vsock: guest CID %llu is reserved", (unsigned long long)guest_cid);
	struct sm_vsock *vsock;
	int code = sm_virtio_create(sizeof *vsock, env, &vsock_ops, &vsock, err);
	if (code < 0)
		return code;
	vsock->guest_cid = guest_cid;
	vsock->next_port = FIRST_PORT;
	sm_vsock_mux_init(vsock);
	*ret = &vsock->base;
	return 0;
}
