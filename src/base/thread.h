/* Starting a thread inside somebody else's process. */
#ifndef SM_BASE_THREAD_H
#define SM_BASE_THREAD_H

#include <pthread.h>

/* Start `run(arg)` with every signal blocked: signals belong to the program that loaded this library, and their
 * handlers run on its own threads.  Its stack is 1 MiB.  `name` (at most 15 bytes) is what top and gdb show.  0 or
 * -errno. */
int sm_thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *arg), void *arg);

#endif
