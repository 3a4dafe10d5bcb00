#include "oci/feed.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STEP (256u << 10) /* readers are woken for no less, unless it is the end */

enum state {
	COMING,
	WHOLE,
	FAILED,
};

struct sm_oci_feed {
	struct sm_oci_feeds *feeds;
	const char *digest;
	enum state state; /* this and all below under the feeds' lock */
	int fd;           /* -1: not begun */
	uint64_t written; /* that readers may read */
	unsigned edition;
};

struct sm_oci_feeds {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	size_t count;
	struct sm_oci_feed feeds[];
};

struct sm_oci_feeds *sm_oci_feeds_new(const struct sm_oci_layer *layers, size_t count)
{
	struct sm_oci_feeds *feeds = calloc(1, sizeof *feeds + count * sizeof feeds->feeds[0]);
	if (!feeds)
		return NULL;
	pthread_mutex_init(&feeds->lock, NULL);
	pthread_cond_init(&feeds->changed, NULL);
	feeds->count = count;
	for (size_t i = 0; i < count; i++)
		feeds->feeds[i] = (struct sm_oci_feed){ .feeds = feeds, .digest = layers[i].digest, .fd = -1 };
	return feeds;
}

void sm_oci_feeds_free(struct sm_oci_feeds *feeds)
{
	if (!feeds)
		return;
	for (size_t i = 0; i < feeds->count; i++)
		sm_fd_close(&feeds->feeds[i].fd);
	pthread_cond_destroy(&feeds->changed);
	pthread_mutex_destroy(&feeds->lock);
	free(feeds);
}

struct sm_oci_feed *sm_oci_feeds_find(struct sm_oci_feeds *feeds, const char *digest)
{
	for (size_t i = 0; feeds && i < feeds->count; i++)
		if (!strcmp(feeds->feeds[i].digest, digest))
			return &feeds->feeds[i];
	return NULL;
}

static void lock(struct sm_oci_feeds *feeds)
{
	pthread_mutex_lock(&feeds->lock);
}

/* After a change. */
static void unlock(struct sm_oci_feeds *feeds)
{
	pthread_cond_broadcast(&feeds->changed);
	pthread_mutex_unlock(&feeds->lock);
}

void sm_oci_feeds_end(struct sm_oci_feeds *feeds)
{
	lock(feeds);
	for (size_t i = 0; i < feeds->count; i++)
		if (feeds->feeds[i].state == COMING)
			feeds->feeds[i].state = FAILED;
	unlock(feeds);
}

int sm_oci_feed_begin(struct sm_oci_feed *feed, int fd, uint64_t written)
{
	if (!feed)
		return 0;
	lock(feed->feeds);
	bool again = feed->fd >= 0;
	/* In place, so that who is reading from it now has a descriptor still. */
	int own = again ? dup3(fd, feed->fd, O_CLOEXEC) : fcntl(fd, F_DUPFD_CLOEXEC, 0);
	int code = own < 0 ? -errno : 0;
	if (code == 0) {
		feed->fd = own;
		feed->written = written;
		feed->edition += again;
	}
	unlock(feed->feeds);
	return code;
}

void sm_oci_feed_advance(struct sm_oci_feed *feed, uint64_t written)
{
	/* No other thread writes this one. */
	if (!feed || written - feed->written < STEP)
		return;
	lock(feed->feeds);
	feed->written = written;
	unlock(feed->feeds);
}

void sm_oci_feed_restart(struct sm_oci_feed *feed)
{
	if (!feed)
		return;
	lock(feed->feeds);
	feed->written = 0;
	feed->edition++;
	unlock(feed->feeds);
}

void sm_oci_feed_complete(struct sm_oci_feed *feed, uint64_t size)
{
	if (!feed)
		return;
	lock(feed->feeds);
	feed->written = size;
	feed->state = WHOLE;
	unlock(feed->feeds);
}

void sm_oci_feed_fail(struct sm_oci_feed *feed)
{
	if (!feed)
		return;
	lock(feed->feeds);
	feed->state = FAILED;
	unlock(feed->feeds);
}

void sm_oci_feed_reader_init(struct sm_oci_feed_reader *reader, struct sm_oci_feed *feed)
{
	pthread_mutex_lock(&feed->feeds->lock);
	*reader = (struct sm_oci_feed_reader){ .feed = feed, .edition = feed->edition };
	pthread_mutex_unlock(&feed->feeds->lock);
}

/* How many bytes are there to read, once there are some. */
static int64_t await(const struct sm_oci_feed_reader *reader)
{
	const struct sm_oci_feed *feed = reader->feed;
	while (feed->state == COMING && feed->edition == reader->edition && feed->written <= reader->offset)
		pthread_cond_wait(&feed->feeds->changed, &feed->feeds->lock);
	if (feed->edition != reader->edition)
		return -ESTALE;
	if (feed->state == FAILED)
		return -ECANCELED;
	return (int64_t)(feed->written - reader->offset);
}

int sm_oci_feed_settle(struct sm_oci_feed_reader *reader)
{
	struct sm_oci_feed *feed = reader->feed;
	pthread_mutex_lock(&feed->feeds->lock);
	while (feed->state == COMING && feed->edition == reader->edition)
		pthread_cond_wait(&feed->feeds->changed, &feed->feeds->lock);
	int code = feed->edition != reader->edition ? -ESTALE : feed->state == FAILED ? -ECANCELED : 0;
	pthread_mutex_unlock(&feed->feeds->lock);
	return code;
}

ssize_t sm_oci_feed_read(void *arg, void *buffer, size_t size)
{
	struct sm_oci_feed_reader *reader = arg;
	struct sm_oci_feed *feed = reader->feed;
	pthread_mutex_lock(&feed->feeds->lock);
	int64_t there = await(reader);
	int fd = feed->fd;
	pthread_mutex_unlock(&feed->feeds->lock);
	if (there <= 0)
		return there;
	ssize_t got = pread(fd, buffer, (uint64_t)there < size ? (size_t)there : size, (off_t)reader->offset);
	int code = got < 0 ? -errno : 0;
	/* The file may have been emptied meanwhile. */
	pthread_mutex_lock(&feed->feeds->lock);
	bool stale = feed->edition != reader->edition;
	pthread_mutex_unlock(&feed->feeds->lock);
	if (stale || code < 0)
		return stale ? -ESTALE : code;
	if (!got)
		return -EIO;
	reader->offset += (uint64_t)got;
	return got;
}
