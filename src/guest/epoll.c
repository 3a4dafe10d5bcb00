#include "epoll.h"

#include <errno.h>
#include <limits.h>
#include <time.h>
#include <unistd.h>

#define ROUND 64

int sm_epoll_init(struct sm_epoll *epoll)
{
	epoll->timers = NULL;
	epoll->fd = epoll_create1(EPOLL_CLOEXEC);
	return epoll->fd < 0 ? -errno : 0;
}

void sm_source_init(struct sm_source *source, struct sm_epoll *epoll, int fd,
                    void (*ready)(struct sm_source *source, uint32_t events), void *owner)
{
	*source = (struct sm_source){ .fd = fd, .epoll = epoll, .ready = ready, .owner = owner };
}

int sm_source_want(struct sm_source *source, uint32_t events)
{
	if (source->fd < 0 || source->wanted == events)
		return 0;
	/* Hang-ups are reported whatever the mask, so who wants nothing is taken out, else the loop would spin. */
	int verb = !events ? EPOLL_CTL_DEL : source->wanted ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
	struct epoll_event event = { .events = events, .data.ptr = source };
	if (epoll_ctl(source->epoll->fd, verb, source->fd, &event) < 0)
		return -errno;
	source->wanted = events;
	return 0;
}

void sm_source_close(struct sm_source *source)
{
	if (source->fd < 0)
		return;
	/* Not left to close: a child that is not yet at its execve still has the descriptor, and epoll would too. */
	sm_source_want(source, 0);
	close(source->fd);
	source->fd = -1;
}

void sm_timer_start(struct sm_epoll *epoll, struct sm_timer *timer)
{
	timer->next = epoll->timers;
	epoll->timers = timer;
}

void sm_timer_stop(struct sm_epoll *epoll, struct sm_timer *timer)
{
	struct sm_timer **at = &epoll->timers;
	while (*at && *at != timer)
		at = &(*at)->next;
	if (*at)
		*at = timer->next;
}

static struct sm_timer *next_timer(const struct sm_epoll *epoll)
{
	struct sm_timer *first = epoll->timers;
	for (struct sm_timer *timer = first; timer; timer = timer->next)
		if (timer->at_ms < first->at_ms)
			first = timer;
	return first;
}

static int wait_ms(const struct sm_epoll *epoll)
{
	const struct sm_timer *timer = next_timer(epoll);
	if (!timer)
		return -1;
	int64_t left = timer->at_ms - sm_epoll_now_ms();
	return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

int sm_epoll_round(struct sm_epoll *epoll)
{
	struct epoll_event events[ROUND];
	int count = epoll_wait(epoll->fd, events, ROUND, wait_ms(epoll));
	if (count < 0)
		return errno == EINTR ? 0 : -errno;
	for (int i = 0; i < count; i++) {
		struct sm_source *source = events[i].data.ptr;
		/* An earlier handler of this round may have closed it, or lost interest. */
		if (source->fd >= 0 && source->wanted)
			source->ready(source, events[i].events);
	}
	struct sm_timer *timer;
	while ((timer = next_timer(epoll)) && timer->at_ms <= sm_epoll_now_ms()) {
		sm_timer_stop(epoll, timer);
		timer->due(timer);
	}
	return 0;
}

int64_t sm_epoll_now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t sm_epoll_now_ms(void)
{
	return sm_epoll_now_us() / 1000;
}
