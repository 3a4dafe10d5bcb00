#include "base/thread.h"

#include <signal.h>

int sm_thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *arg), void *arg)
{
	/* The new thread inherits the mask, so there is no moment in which it could take a signal. */
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int code = pthread_create(ret_thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (code)
		return -code;
	pthread_setname_np(*ret_thread, name);
	return 0;
}
