#include "pool/restore.h"

#include "base/thread.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* What it was not saved with; a paused one cannot be told of it. */
static int add_to(struct sm_control *control, const struct sm_restore_options *options, struct sm_error *err)
{
	const struct sm_agent_wait wait = { .timeout_ms = options->identity.timeout_ms };
	const bool agent = options->identity.agent && !options->paused;
	int code = 0;
	if (options->mounts && !options->paused)
		code = sm_mounts_add(control, &options->mounts->added, agent, &wait, err);
	if (code >= 0 && options->volumes)
		code = sm_volume_wishes_give(control, options->volumes, agent, &wait, err);
	return code;
}

int sm_restore(struct sm_snapshot *snapshot, const struct sm_restore_options *options, struct sm_control **ret_control,
               struct sm_error *err)
{
	struct sm_control *control;
	/* Without an agent nobody replies. */
	bool learner = !options->paused && options->identity.agent && sm_snapshot_wants_learner(snapshot);
	const struct sm_snapshot_restore how = {
		.transport = options->transport,
		.hv_fd = options->hv_fd,
		.watched = learner || options->watched,
		.mounts = options->mounts ? &options->mounts->bound : NULL,
	};
	int code = sm_snapshot_restore(snapshot, &how, &control, err);
	if (code < 0)
		return code;
	if (!options->paused)
		code = sm_control_resume(control, err);
	if (code >= 0)
		code = add_to(control, options, err);
	if (code >= 0 && !options->paused) {
		code = sm_identity_renew(control, &options->identity, err);
		if (code >= 0 && learner)
			sm_snapshot_replied(snapshot, control);
	}
	if (code < 0) {
		sm_control_close(control);
		return code;
	}
	*ret_control = control;
	return 0;
}

/* ---- many --------------------------------------------------------------------------------------------------- */

struct burst {
	struct sm_snapshot *snapshot;
	const struct sm_restore_options *options;
	const atomic_bool *cancel;
	unsigned count;
	struct sm_control **controls; /* NULL: not made */
	atomic_uint next;
	pthread_mutex_t lock;
	int code; /* of the first that failed: under the lock, as err */
	struct sm_error err;
};

static void fail(struct burst *burst, int code, const struct sm_error *err)
{
	pthread_mutex_lock(&burst->lock);
	if (burst->code == 0) {
		burst->code = code;
		burst->err = *err;
	}
	pthread_mutex_unlock(&burst->lock);
	atomic_store(&burst->next, burst->count);
}

static void *restore_next(void *arg)
{
	struct burst *burst = arg;
	unsigned index;
	while ((index = atomic_fetch_add(&burst->next, 1)) < burst->count) {
		struct sm_error err = { 0 };
		int code = atomic_load(burst->cancel)
		               ? sm_error_set(&err, ECANCELED, "cancelled")
		               : sm_restore(burst->snapshot, burst->options, &burst->controls[index], &err);
		if (code < 0) {
			sm_error_context(&err, "machine %u of %u", index + 1, burst->count);
			fail(burst, code, &err);
		}
	}
	return NULL;
}

/* This thread is one of them, so that one is there in any case. */
static void run_all(struct burst *burst)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned wanted =
	    processors > 0 && (unsigned long)processors < burst->count ? (unsigned)processors : burst->count;
	pthread_t *threads = calloc(wanted, sizeof *threads);
	unsigned started = 0;
	while (threads && started + 1 < wanted &&
	       sm_thread_start(&threads[started], "restore", restore_next, burst) == 0)
		started++;
	restore_next(burst);
	while (started > 0)
		pthread_join(threads[--started], NULL);
	free(threads);
}

int sm_restore_many(struct sm_snapshot *snapshot, const struct sm_restore_options *options, unsigned count,
                    const atomic_bool *cancel, struct sm_control **ret_controls, struct sm_error *err)
{
	if (count < 1 || count > SM_RESTORE_MANY_MAX)
		return sm_error_set(err, EINVAL, "%u machines: 1 to %u", count, SM_RESTORE_MANY_MAX);
	struct burst burst = {
		.snapshot = snapshot,
		.options = options,
		.cancel = cancel,
		.count = count,
		.controls = ret_controls,
		.lock = PTHREAD_MUTEX_INITIALIZER,
	};
	for (unsigned i = 0; i < count; i++)
		ret_controls[i] = NULL;
	run_all(&burst);
	for (unsigned i = 0; i < count && burst.code < 0; i++) {
		sm_control_close(ret_controls[i]);
		ret_controls[i] = NULL;
	}
	pthread_mutex_destroy(&burst.lock);
	if (burst.code < 0)
		*err = burst.err;
	return burst.code;
}
