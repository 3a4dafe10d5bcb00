#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>

/* Less than a huge page: the kernel would make one of the few kilobytes that a machine's thread uses. */
#define STACK_BYTES (1u << 20)

struct start {
	char name[16];
	void *(*run)(void *arg);
	void *arg;
};

/* It names itself: to name another one goes by a file of /proc. */
static void *begin(void *arg)
{
	struct start start = *(struct start *)arg;
	free(arg);
	prctl(PR_SET_NAME, start.name);
	return start.run(start.arg);
}

int sm_thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *arg), void *arg)
{
	struct start *start = malloc(sizeof *start);
	if (!start)
		return -ENOMEM;
	*start = (struct start){ .run = run, .arg = arg };
	snprintf(start->name, sizeof start->name, "%s", name);
	/* The new thread inherits the mask, so there is no moment in which it could take a signal. */
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_t attr;
	int code = pthread_attr_init(&attr);
	if (code == 0) {
		code = pthread_attr_setstacksize(&attr, STACK_BYTES);
		code = code ? code : pthread_create(ret_thread, &attr, begin, start);
		pthread_attr_destroy(&attr);
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (code)
		free(start);
	return -code;
}
