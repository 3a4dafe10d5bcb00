#include "virtio/fs_wait.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KEPT_MAX  SM_QUEUE_NUM_MAX /* each has a chain of the ring's */
#define REPLY_MAX 64

struct sm_fs_kept {
	struct sm_fs_kept *next;
	unsigned queue;
	uint64_t generation; /* of the ring */
	bool again;          /* loaded, and to be served */
	size_t reply_len;    /* 0: it waits */
	uint8_t reply[REPLY_MAX];
	struct sm_chain chain;
};

void sm_fs_waiting_init(struct sm_fs_waiting *waiting)
{
	pthread_mutex_init(&waiting->lock, NULL);
}

void sm_fs_waiting_done(struct sm_fs_waiting *waiting)
{
	sm_fs_drop(waiting);
	pthread_mutex_destroy(&waiting->lock);
}

static void unlink_at(struct sm_fs_waiting *waiting, struct sm_fs_kept **at)
{
	struct sm_fs_kept *kept = *at;
	*at = kept->next;
	waiting->count--;
	free(kept);
}

/* With the list's lock held. */
static struct sm_fs_kept *add(struct sm_fs_waiting *waiting, struct sm_virtio *device, unsigned queue)
{
	struct sm_fs_kept *kept = waiting->count < KEPT_MAX ? malloc(sizeof *kept) : NULL;
	if (!kept)
		return NULL;
	kept->next = waiting->first;
	kept->queue = queue;
	kept->generation = device->queues[queue].generation;
	kept->again = false;
	kept->reply_len = 0;
	waiting->first = kept;
	waiting->count++;
	return kept;
}

struct sm_fs_kept *sm_fs_keep(struct sm_fs_waiting *waiting, struct sm_virtio *device, unsigned queue,
                              const struct sm_chain *chain)
{
	/* The ring's generation is the device's; its lock first. */
	pthread_mutex_lock(&device->lock);
	pthread_mutex_lock(&waiting->lock);
	struct sm_fs_kept *kept = add(waiting, device, queue);
	if (kept)
		kept->chain = *chain;
	pthread_mutex_unlock(&waiting->lock);
	pthread_mutex_unlock(&device->lock);
	return kept;
}

void sm_fs_unkeep(struct sm_fs_waiting *waiting, struct sm_fs_kept *kept)
{
	pthread_mutex_lock(&waiting->lock);
	for (struct sm_fs_kept **at = &waiting->first; *at; at = &(*at)->next)
		if (*at == kept) {
			unlink_at(waiting, at);
			break;
		}
	pthread_mutex_unlock(&waiting->lock);
}

void sm_fs_reply(struct sm_fs_waiting *waiting, struct sm_fs_kept *kept, const void *reply, size_t len)
{
	pthread_mutex_lock(&waiting->lock);
	kept->reply_len = len < REPLY_MAX ? len : REPLY_MAX;
	memcpy(kept->reply, reply, kept->reply_len);
	pthread_mutex_unlock(&waiting->lock);
}

void sm_fs_complete(struct sm_fs_waiting *waiting, struct sm_virtio *device)
{
	if (atomic_load(&waiting->count) == 0)
		return;
	pthread_mutex_lock(&waiting->lock);
	for (struct sm_fs_kept **at = &waiting->first; *at;) {
		struct sm_fs_kept *kept = *at;
		if (!kept->reply_len) {
			at = &kept->next;
			continue;
		}
		if (kept->generation == device->queues[kept->queue].generation) {
			size_t put = sm_chain_write(&kept->chain, 0, kept->reply, kept->reply_len);
			sm_virtio_give(device, kept->queue, kept->chain.head, (uint32_t)put);
			sm_virtio_flush(device, kept->queue);
		}
		unlink_at(waiting, at);
	}
	pthread_mutex_unlock(&waiting->lock);
}

void sm_fs_drop(struct sm_fs_waiting *waiting)
{
	pthread_mutex_lock(&waiting->lock);
	while (waiting->first)
		unlink_at(waiting, &waiting->first);
	pthread_mutex_unlock(&waiting->lock);
}

void sm_fs_waiting_save(struct sm_fs_waiting *waiting, const struct sm_virtio *device, struct sm_buf *out)
{
	pthread_mutex_lock(&waiting->lock);
	/* What was of a ring that is gone has no place in this one. */
	uint32_t count = 0;
	for (const struct sm_fs_kept *kept = waiting->first; kept; kept = kept->next)
		count += kept->generation == device->queues[kept->queue].generation;
	sm_put_u32(out, count);
	for (const struct sm_fs_kept *kept = waiting->first; kept; kept = kept->next) {
		if (kept->generation != device->queues[kept->queue].generation)
			continue;
		sm_put_u8(out, (uint8_t)kept->queue);
		sm_put_u16(out, kept->chain.head);
	}
	pthread_mutex_unlock(&waiting->lock);
}

static int load_one(struct sm_fs_waiting *waiting, struct sm_virtio *device, struct sm_reader *in)
{
	unsigned queue = sm_get_u8(in);
	uint16_t head = sm_get_u16(in);
	if (in->failed || queue >= device->ops->nqueues || !device->queues[queue].ready)
		return -EBADMSG;
	struct sm_fs_kept *kept = add(waiting, device, queue);
	if (!kept)
		return -ENOMEM;
	kept->again = true;
	return sm_queue_again(&device->queues[queue], head, &kept->chain);
}

int sm_fs_waiting_load(struct sm_fs_waiting *waiting, struct sm_virtio *device, struct sm_reader *in,
                       struct sm_error *err)
{
	int code = 0;
	pthread_mutex_lock(&waiting->lock);
	uint32_t count = sm_get_u32(in);
	if (in->failed || count > KEPT_MAX)
		code = -EBADMSG;
	for (uint32_t i = 0; i < count && code == 0; i++)
		code = load_one(waiting, device, in);
	pthread_mutex_unlock(&waiting->lock);
	if (code == 0)
		return 0;
	sm_fs_drop(waiting);
	return code == -ENOMEM ? sm_error_sys(err, code, "requests that wait")
	                       : sm_error_set(err, EBADMSG, "requests that wait: not in the ring");
}

bool sm_fs_again(struct sm_fs_waiting *waiting, struct sm_chain *ret_chain, unsigned *ret_queue)
{
	if (atomic_load(&waiting->count) == 0)
		return false;
	pthread_mutex_lock(&waiting->lock);
	struct sm_fs_kept **at = &waiting->first;
	while (*at && !(*at)->again)
		at = &(*at)->next;
	bool found = *at != NULL;
	if (found && ret_chain) {
		*ret_chain = (*at)->chain;
		*ret_queue = (*at)->queue;
		unlink_at(waiting, at);
	}
	pthread_mutex_unlock(&waiting->lock);
	return found;
}
