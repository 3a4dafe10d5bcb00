/* The agent's event loop: descriptors, and points in time.  One thread, no locks. */
#ifndef SM_GUEST_EPOLL_H
#define SM_GUEST_EPOLL_H

#include <stdint.h>
#include <sys/epoll.h>

struct sm_timer;

struct sm_epoll {
	int fd;
	struct sm_timer *timers;
};

/* A descriptor that may be watched; embedded in what owns it, which must outlive the round of events in which the
 * source is closed (a round may still hold an event for it). */
struct sm_source {
	int fd;          /* -1: closed */
	uint32_t wanted; /* epoll events; 0: not watched at all, hang-ups neither */
	struct sm_epoll *epoll;
	void (*ready)(struct sm_source *source, uint32_t events);
	void *owner;
};

struct sm_timer {
	int64_t at_ms; /* sm_epoll_now_ms's clock */
	void (*due)(struct sm_timer *timer);
	struct sm_timer *next;
};

int sm_epoll_init(struct sm_epoll *epoll);
/* Takes fd.  Nothing is watched yet. */
void sm_source_init(struct sm_source *source, struct sm_epoll *epoll, int fd,
                    void (*ready)(struct sm_source *source, uint32_t events), void *owner);
/* Watch for these events from now on.  0, or -errno when there is no memory for it. */
int sm_source_want(struct sm_source *source, uint32_t events);
void sm_source_close(struct sm_source *source); /* fine on one that is closed */

/* Run once, at `at_ms`; the timer is owned by the caller. */
void sm_timer_start(struct sm_epoll *epoll, struct sm_timer *timer);
void sm_timer_stop(struct sm_epoll *epoll, struct sm_timer *timer); /* fine on one that is not running */

/* Wait for events and handle one round of them.  0 or -errno. */
int sm_epoll_round(struct sm_epoll *epoll);

int64_t sm_epoll_now_ms(void); /* CLOCK_MONOTONIC */
int64_t sm_epoll_now_us(void);

#endif
