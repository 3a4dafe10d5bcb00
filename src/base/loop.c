/* One mutex orders everything but the handlers themselves.  epoll hands out source pointers without it, so
 * a removed source is only marked, and the loop thread frees it between two calls of epoll_wait, when no batch of
 * events can name it any more. */
#include "base/loop.h"

#include "base/fd.h"
#include "base/thread.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>

#define BATCH 32

struct sm_loop_source {
	struct sm_loop *loop;
	struct sm_loop_source *prev, *next; /* among the loop's sources, live or removed */
	sm_loop_handler handler;
	void *arg;
	int fd;
	uint32_t events;
};

struct list {
	struct sm_loop_source *first;
};

struct sm_loop {
	pthread_t thread;
	int epoll_fd;
	int wake_fd;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* running, paused or stopping has changed */
	struct list live;
	struct list removed;
	struct sm_loop_source *running; /* whose handler runs now */
	unsigned paused;
	bool started; /* the thread is there */
	bool stopping;
};

static void list_add(struct list *list, struct sm_loop_source *source)
{
	source->prev = NULL;
	source->next = list->first;
	if (list->first)
		list->first->prev = source;
	list->first = source;
}

static void list_remove(struct list *list, struct sm_loop_source *source)
{
	if (source->prev)
		source->prev->next = source->next;
	else
		list->first = source->next;
	if (source->next)
		source->next->prev = source->prev;
}

static void list_free(struct list *list)
{
	while (list->first) {
		struct sm_loop_source *source = list->first;
		list->first = source->next;
		free(source);
	}
}

/* Run one event's handler.  Called and returns with the lock held.  False: drop the rest of the batch, because
 * a pause or the end came; events are level-triggered, so what is dropped is reported again. */
static bool dispatch(struct sm_loop *loop, const struct epoll_event *event)
{
	if (loop->paused || loop->stopping)
		return false;
	struct sm_loop_source *source = event->data.ptr;
	if (!source) {
		sm_fd_event_take(loop->wake_fd);
		return true;
	}
	if (!source->loop) /* removed since epoll_wait returned */
		return true;
	/* What nobody waits for since a modify is not delivered. */
	uint32_t events = event->events & (source->events | EPOLLERR | EPOLLHUP);
	if (!events)
		return true;
	loop->running = source;
	pthread_mutex_unlock(&loop->lock);
	source->handler(source->arg, events);
	pthread_mutex_lock(&loop->lock);
	loop->running = NULL;
	pthread_cond_broadcast(&loop->changed);
	return true;
}

static void *loop_main(void *arg)
{
	struct sm_loop *loop = arg;
	struct epoll_event batch[BATCH];
	pthread_mutex_lock(&loop->lock);
	while (!loop->stopping) {
		if (loop->paused) {
			pthread_cond_wait(&loop->changed, &loop->lock);
			continue;
		}
		list_free(&loop->removed);
		pthread_mutex_unlock(&loop->lock);
		int count = epoll_wait(loop->epoll_fd, batch, BATCH, -1);
		pthread_mutex_lock(&loop->lock);
		for (int i = 0; i < count && dispatch(loop, &batch[i]); i++)
			;
	}
	pthread_mutex_unlock(&loop->lock);
	return NULL;
}

/* What is open so far is closed; the thread does not run. */
static void loop_close(struct sm_loop *loop)
{
	list_free(&loop->live);
	list_free(&loop->removed);
	sm_fd_close(&loop->epoll_fd);
	sm_fd_close(&loop->wake_fd);
	pthread_cond_destroy(&loop->changed);
	pthread_mutex_destroy(&loop->lock);
	free(loop);
}

int sm_loop_new(struct sm_loop **ret_loop, struct sm_error *err)
{
	*ret_loop = NULL;
	struct sm_loop *loop = calloc(1, sizeof *loop);
	if (!loop)
		return sm_error_sys(err, ENOMEM, "make event loop");
	pthread_mutex_init(&loop->lock, NULL);
	pthread_cond_init(&loop->changed, NULL);
	loop->wake_fd = -1;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	int code = loop->epoll_fd < 0 ? -errno : 0;
	if (!code) {
		loop->wake_fd = sm_fd_event();
		code = loop->wake_fd < 0 ? loop->wake_fd : 0;
	}
	struct epoll_event wake = { .events = EPOLLIN, .data.ptr = NULL };
	if (!code && epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &wake) < 0)
		code = -errno;
	if (code < 0) {
		loop_close(loop);
		return sm_error_sys(err, code, "make event loop");
	}
	*ret_loop = loop;
	return 0;
}

int sm_loop_start(struct sm_loop *loop, struct sm_error *err)
{
	pthread_mutex_lock(&loop->lock);
	int code = loop->started ? 0 : sm_thread_start(&loop->thread, "sm-loop", loop_main, loop);
	if (code == 0)
		loop->started = true;
	pthread_mutex_unlock(&loop->lock);
	return code < 0 ? sm_error_sys(err, code, "start event loop") : 0;
}

void sm_loop_free(struct sm_loop *loop)
{
	if (!loop)
		return;
	pthread_mutex_lock(&loop->lock);
	loop->stopping = true;
	pthread_cond_broadcast(&loop->changed);
	sm_fd_event_raise(loop->wake_fd);
	pthread_mutex_unlock(&loop->lock);
	if (loop->started)
		pthread_join(loop->thread, NULL);
	loop_close(loop);
}

int sm_loop_add(struct sm_loop *loop, int fd, uint32_t events, sm_loop_handler handler, void *arg,
                struct sm_loop_source **ret_source)
{
	*ret_source = NULL;
	struct sm_loop_source *source = calloc(1, sizeof *source);
	if (!source)
		return -ENOMEM;
	*source = (struct sm_loop_source){ .loop = loop, .handler = handler, .arg = arg, .fd = fd, .events = events };
	struct epoll_event event = { .events = events, .data.ptr = source };
	pthread_mutex_lock(&loop->lock);
	int code = epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
	if (code) {
		free(source);
	} else {
		list_add(&loop->live, source);
		/* Set before the handler can run, which needs this lock: it may remove itself by this name. */
		*ret_source = source;
	}
	pthread_mutex_unlock(&loop->lock);
	return code;
}

int sm_loop_modify(struct sm_loop_source *source, uint32_t events)
{
	struct sm_loop *loop = source->loop;
	struct epoll_event event = { .events = events, .data.ptr = source };
	pthread_mutex_lock(&loop->lock);
	int code = epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) < 0 ? -errno : 0;
	if (!code)
		source->events = events;
	pthread_mutex_unlock(&loop->lock);
	return code;
}

void sm_loop_remove(struct sm_loop_source *source)
{
	if (!source)
		return;
	struct sm_loop *loop = source->loop;
	pthread_mutex_lock(&loop->lock);
	/* Fails only when the descriptor was closed first, and then epoll has forgotten it. */
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	source->loop = NULL;
	if (loop->started && !pthread_equal(pthread_self(), loop->thread))
		while (loop->running == source)
			pthread_cond_wait(&loop->changed, &loop->lock);
	list_remove(&loop->live, source);
	list_add(&loop->removed, source);
	sm_fd_event_raise(loop->wake_fd); /* to have it freed */
	pthread_mutex_unlock(&loop->lock);
}

void sm_loop_pause(struct sm_loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	loop->paused++;
	while (loop->running)
		pthread_cond_wait(&loop->changed, &loop->lock);
	pthread_mutex_unlock(&loop->lock);
}

void sm_loop_resume(struct sm_loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	if (--loop->paused == 0)
		pthread_cond_broadcast(&loop->changed);
	pthread_mutex_unlock(&loop->lock);
}
