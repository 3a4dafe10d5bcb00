/* One epoll loop on one thread: a machine's I/O thread.
 *
 * Handlers run on the loop thread.  add/modify/remove may be called from any thread; after sm_loop_remove
 * returns on another thread, the handler is not running and will not run again. */
#ifndef SM_BASE_LOOP_H
#define SM_BASE_LOOP_H

#include "base/error.h"

#include <stdint.h>

struct sm_loop;
struct sm_loop_source; /* one watched descriptor; owned by the loop, freed by remove */

typedef void (*sm_loop_handler)(void *arg, uint32_t epoll_events);

int sm_loop_new(struct sm_loop **ret_loop, struct sm_error *err);
/* Start the thread: until then no handler runs, and what comes in waits in its descriptor.  Twice is fine. */
int sm_loop_start(struct sm_loop *loop, struct sm_error *err);
void sm_loop_free(struct sm_loop *loop); /* stops and joins; NULL is fine */

/* Watch fd (borrowed, and open until the source is removed) level-triggered for EPOLLIN/EPOLLOUT; events 0 watches
 * for errors and hang-up only.  *ret_source is set before the handler first runs. */
int sm_loop_add(struct sm_loop *loop, int fd, uint32_t events, sm_loop_handler handler, void *arg,
                struct sm_loop_source **ret_source);
int sm_loop_modify(struct sm_loop_source *source, uint32_t events);
void sm_loop_remove(struct sm_loop_source *source); /* NULL is fine; a handler may remove itself */

/* Stop handling events until resumed; returns when no handler runs (not callable from a handler).  Nests. */
void sm_loop_pause(struct sm_loop *loop);
void sm_loop_resume(struct sm_loop *loop);

#endif
