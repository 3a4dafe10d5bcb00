#include "virtio/queue.h"

#include <errno.h>
#include <string.h>

#define DESC_BYTES         16u
#define DESC_NEXT          1u
#define DESC_WRITE         2u
#define DESC_INDIRECT      4u
#define AVAIL_NO_INTERRUPT 1u

struct descriptor {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};
_Static_assert(sizeof(struct descriptor) == DESC_BYTES, "virtq_desc");

/* Ring fields that both sides use at once.  Index and event fields form a store-load handshake with the driver,
 * which sequential consistency gives without fences. */
static uint16_t ring_load(const uint16_t *at)
{
	return __atomic_load_n(at, __ATOMIC_SEQ_CST);
}

static void ring_store(uint16_t *at, uint16_t value)
{
	__atomic_store_n(at, value, __ATOMIC_SEQ_CST);
}

static uint64_t used_bytes(const struct sm_queue *queue)
{
	return 6 + 8 * (uint64_t)queue->num;
}

int sm_queue_start(struct sm_queue *queue)
{
	uint16_t num = queue->num;
	if (num == 0 || num > SM_QUEUE_NUM_MAX || (num & (num - 1)) != 0)
		return -EINVAL;
	if (queue->desc % 16 || queue->avail % 2 || queue->used % 4)
		return -EINVAL;
	queue->desc_at = sm_memory_at_read(queue->memory, queue->desc, DESC_BYTES * (uint64_t)num);
	queue->avail_at = sm_memory_at_read(queue->memory, queue->avail, 6 + 2 * (uint64_t)num);
	if (!queue->desc_at || !queue->avail_at || !sm_memory_at_write(queue->memory, queue->used, used_bytes(queue)))
		return -EFAULT;
	queue->ready = true;
	return 0;
}

void sm_queue_reset(struct sm_queue *queue)
{
	*queue = (struct sm_queue){ .memory = queue->memory, .generation = queue->generation + 1 };
}

uint16_t sm_queue_arm(struct sm_queue *queue)
{
	const uint16_t *idx = &queue->avail_at[1];
	uint16_t seen = ring_load(idx);
	if (!queue->event_idx)
		return seen; /* used.flags stays 0: the driver always notifies */
	/* Look again after the store: a buffer that came in between was not notified.  One look is enough for
	 * the caller, who treats a changed index as a notification. */
	uint16_t *avail_event = sm_memory_at_write(queue->memory, queue->used + 4 + 8 * (uint64_t)queue->num, 2);
	if (avail_event)
		ring_store(avail_event, seen);
	return ring_load(idx);
}

/* Add one buffer to the chain. */
static int add_part(struct sm_queue *queue, struct sm_chain *chain, const struct descriptor *desc)
{
	bool write = desc->flags & DESC_WRITE;
	if (!write && chain->nwrite)
		return -EPROTO; /* readable after writable: 2.7.4.2 */
	if (desc->len == 0)
		return 0;
	const void *at = sm_memory_at_read(queue->memory, desc->addr, desc->len);
	if (!at) {
		at = sm_memory_at_window(queue->memory, desc->addr, desc->len);
		chain->windows = true;
	}
	if (!at)
		return -EFAULT;
	unsigned part = chain->nread + chain->nwrite;
	chain->iov[part] = (struct iovec){ .iov_base = (void *)(uintptr_t)at, .iov_len = desc->len };
	chain->gpa[part] = desc->addr;
	if (write) {
		chain->nwrite++;
		chain->write_bytes += desc->len;
	} else {
		chain->nread++;
		chain->read_bytes += desc->len;
	}
	return 0;
}

static int walk(struct sm_queue *queue, struct sm_chain *chain)
{
	const uint8_t *table = queue->desc_at;
	uint32_t entries = queue->num;
	uint32_t index = chain->head;
	bool in_indirect = false;
	/* The indirect descriptor itself is not a buffer, hence one more. */
	for (unsigned seen = 0; seen <= queue->num; seen++) {
		if (index >= entries)
			return -EPROTO;
		struct descriptor desc;
		memcpy(&desc, table + (size_t)index * DESC_BYTES, sizeof desc);
		if (desc.flags & DESC_INDIRECT) {
			if (!queue->indirect || in_indirect || (desc.flags & DESC_NEXT))
				return -EPROTO;
			if (desc.len == 0 || desc.len % DESC_BYTES)
				return -EPROTO;
			table = sm_memory_at_read(queue->memory, desc.addr, desc.len);
			if (!table)
				return -EFAULT;
			entries = desc.len / DESC_BYTES;
			index = 0;
			in_indirect = true;
			continue;
		}
		if (chain->nread + chain->nwrite == queue->num)
			return -EPROTO;
		int code = add_part(queue, chain, &desc);
		if (code < 0)
			return code;
		if (!(desc.flags & DESC_NEXT))
			return 0;
		index = desc.next;
	}
	return -EPROTO; /* longer than the queue: a loop */
}

int sm_queue_again(struct sm_queue *queue, uint16_t head, struct sm_chain *ret_chain)
{
	ret_chain->memory = queue->memory;
	ret_chain->head = head;
	ret_chain->nread = ret_chain->nwrite = 0;
	ret_chain->read_bytes = ret_chain->write_bytes = 0;
	ret_chain->windows = false;
	return walk(queue, ret_chain);
}

int sm_queue_pop(struct sm_queue *queue, struct sm_chain *ret_chain)
{
	uint16_t idx = ring_load(&queue->avail_at[1]);
	if (idx == queue->next_avail) {
		idx = sm_queue_arm(queue);
		if (idx == queue->next_avail)
			return 0;
	}
	if ((uint16_t)(idx - queue->next_avail) > queue->num)
		return -EPROTO;
	uint16_t head = ring_load(&queue->avail_at[2 + queue->next_avail % queue->num]);
	int code = sm_queue_again(queue, head, ret_chain);
	if (code < 0)
		return code;
	queue->next_avail++;
	return 1;
}

void sm_queue_undo(struct sm_queue *queue)
{
	queue->next_avail--;
}

int sm_queue_push(struct sm_queue *queue, uint16_t head, uint32_t written)
{
	uint64_t slot = queue->used + 4 + 8 * (uint64_t)(queue->next_used % queue->num);
	uint32_t *element = sm_memory_at_write(queue->memory, slot, 8);
	uint16_t *idx = sm_memory_at_write(queue->memory, queue->used + 2, 2);
	if (!element || !idx)
		return -EFAULT;
	element[0] = head;
	element[1] = written;
	ring_store(idx, ++queue->next_used);
	return 0;
}

bool sm_queue_wants_interrupt(struct sm_queue *queue)
{
	uint16_t old = queue->signalled;
	uint16_t now = queue->next_used;
	if (now == old)
		return false;
	queue->signalled = now;
	if (!queue->event_idx)
		return !(ring_load(&queue->avail_at[0]) & AVAIL_NO_INTERRUPT);
	uint16_t event = ring_load(&queue->avail_at[2 + queue->num]);
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

unsigned sm_chain_slice(const struct sm_chain *chain, bool write, uint64_t offset, uint64_t len,
                        struct iovec ret_iov[SM_QUEUE_NUM_MAX])
{
	unsigned part = write ? chain->nread : 0;
	const unsigned end = part + (write ? chain->nwrite : chain->nread);
	unsigned count = 0;
	for (; part < end && len; part++) {
		const struct iovec *iov = &chain->iov[part];
		if (offset >= iov->iov_len) {
			offset -= iov->iov_len;
			continue;
		}
		size_t take = iov->iov_len - offset;
		if (take > len)
			take = len;
		if (write)
			sm_memory_at_write(chain->memory, chain->gpa[part] + offset, take);
		ret_iov[count++] = (struct iovec){ .iov_base = (uint8_t *)iov->iov_base + offset, .iov_len = take };
		len -= take;
		offset = 0;
	}
	return count;
}

size_t sm_chain_read(const struct sm_chain *chain, uint64_t offset, void *data, size_t len)
{
	struct iovec iov[SM_QUEUE_NUM_MAX];
	unsigned count = sm_chain_slice(chain, false, offset, len, iov);
	size_t done = 0;
	if (chain->windows) {
		ssize_t got = sm_memory_copy(iov, count, &(struct iovec){ data, len }, 1, false);
		return got < 0 ? 0 : (size_t)got;
	}
	for (unsigned i = 0; i < count; done += iov[i].iov_len, i++)
		memcpy((uint8_t *)data + done, iov[i].iov_base, iov[i].iov_len);
	return done;
}

size_t sm_chain_write(const struct sm_chain *chain, uint64_t offset, const void *data, size_t len)
{
	struct iovec iov[SM_QUEUE_NUM_MAX];
	unsigned count = sm_chain_slice(chain, true, offset, len, iov);
	size_t done = 0;
	if (chain->windows) {
		ssize_t put = sm_memory_copy(&(struct iovec){ (void *)(uintptr_t)data, len }, 1, iov, count, true);
		return put < 0 ? 0 : (size_t)put;
	}
	for (unsigned i = 0; i < count; done += iov[i].iov_len, i++)
		memcpy(iov[i].iov_base, (const uint8_t *)data + done, iov[i].iov_len);
	return done;
}

size_t sm_chain_zero(const struct sm_chain *chain, uint64_t offset, size_t len)
{
	static const uint8_t zeros[4096];
	struct iovec iov[SM_QUEUE_NUM_MAX];
	size_t done = 0;
	while (chain->windows && done < len) {
		size_t part = len - done < sizeof zeros ? len - done : sizeof zeros;
		size_t put = sm_chain_write(chain, offset + done, zeros, part);
		done += put;
		if (put < part)
			return done;
	}
	if (chain->windows)
		return done;
	unsigned count = sm_chain_slice(chain, true, offset, len, iov);
	for (unsigned i = 0; i < count; done += iov[i].iov_len, i++)
		memset(iov[i].iov_base, 0, iov[i].iov_len);
	return done;
}
