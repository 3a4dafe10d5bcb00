#include "oci/fetch.h"

#include "base/fd.h"
#include "oci/pull.h"
#include "oci/retry.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define PROGRESS_MS    100
#define PROGRESS_BYTES (32u << 10) /* who got so far before it broke has not failed in vain */
#define LOCK_LOOKS_MS  500         /* see sm_oci_partial_watch */
#define WAITING_MAX    16          /* each holds a descriptor */

enum state {
	QUEUED,
	WAITING,  /* for another's lock */
	FETCHING, /* by the source */
	PAUSED,   /* until `at_ms` */
	ENDED,
};

struct job {
	struct fetch *fetch;
	const struct sm_oci_layer *layer;
	struct sm_oci_feed *feed;
	unsigned index;
	enum state state;
	struct sm_oci_ingest ingest;
	struct sm_oci_transfer transfer;
	struct sm_error sink_error;
	uint64_t resumed;
	uint64_t mark; /* the most bytes that were ever there when it broke */
	unsigned failures;
	bool suspect; /* not all of its bytes came in one piece: they may not fit together */
	int64_t at_ms;
	int64_t told_ms;
	uint64_t told_bytes;
};

struct fetch {
	struct sm_oci_source *source;
	const struct sm_oci_store *store;
	const struct sm_oci_fetch_options *options;
	struct sm_oci_pull_stats *stats;
	struct job *jobs;
	size_t count;
	unsigned fetching, waiting; /* jobs in FETCHING or PAUSED, and in WAITING */
	int watch_fd;               /* -1: nobody waits, or there is none to be had */
};

static void tell(struct job *job, enum sm_oci_progress_state state)
{
	const struct sm_oci_fetch_options *options = job->fetch->options;
	struct sm_oci_progress progress = {
		.index = job->index,
		.state = state,
		.digest = job->layer->digest,
		.done = state == SM_OCI_PROGRESS_REUSED ? job->layer->size : job->ingest.written,
		.total = job->layer->size,
	};
	if (options->on_progress)
		options->on_progress(options->progress_arg, &progress);
	job->told_ms = sm_oci_retry_now_ms();
	job->told_bytes = job->ingest.written;
}

static void set_state(struct job *job, enum state state)
{
	struct fetch *fetch = job->fetch;
	fetch->fetching -= job->state == FETCHING || job->state == PAUSED;
	fetch->waiting -= job->state == WAITING;
	job->state = state;
	fetch->fetching += state == FETCHING || state == PAUSED;
	fetch->waiting += state == WAITING;
}

/* Whoever reads along reads the stored one. */
static int feed_stored(struct job *job, struct sm_error *err)
{
	uint64_t size;
	if (!job->feed)
		return 0;
	SM_FD_CLEANUP int fd = sm_oci_store_open_blob(job->fetch->store, job->layer->digest, &size, err);
	if (fd < 0)
		return fd;
	int code = sm_oci_feed_begin(job->feed, fd, size);
	if (code < 0)
		return sm_error_sys(err, code, "layer %s", job->layer->digest);
	sm_oci_feed_complete(job->feed, job->layer->size);
	return 0;
}

static void end_reused(struct job *job)
{
	sm_oci_ingest_discard(&job->ingest);
	set_state(job, ENDED);
	job->fetch->stats->reused_bytes += job->layer->size;
	job->fetch->stats->reused_layers++;
	tell(job, SM_OCI_PROGRESS_REUSED);
}

/* What is not sound goes; what only broke off stays. */
static int end_failed(struct job *job, int code)
{
	if (code == -EBADMSG || !job->fetch->source->ops->start)
		sm_oci_ingest_discard(&job->ingest);
	else
		sm_oci_ingest_keep(&job->ingest);
	bool known = job->state != QUEUED;
	sm_oci_feed_fail(job->feed);
	set_state(job, ENDED);
	if (known)
		tell(job, SM_OCI_PROGRESS_FAILED);
	return code;
}

/* How long until the bytes that came may be told of; -1: there is nothing to tell. */
static int64_t untold_ms(const struct job *job)
{
	if (!job->fetch->options->on_progress || job->told_bytes == job->ingest.written)
		return -1;
	int64_t left = job->told_ms + PROGRESS_MS - sm_oci_retry_now_ms();
	return left > 0 ? left : 0;
}

static int sink(void *arg, const void *data, size_t len)
{
	struct job *job = arg;
	int code = sm_oci_ingest_write(&job->ingest, data, len);
	if (!code)
		sm_oci_feed_advance(job->feed, job->ingest.written);
	if (!code && untold_ms(job) == 0)
		tell(job, SM_OCI_PROGRESS_FETCHING);
	return code;
}

static int restart(void *arg)
{
	struct job *job = arg;
	job->suspect = false;
	job->resumed = 0;
	sm_oci_feed_restart(job->feed);
	return sm_oci_ingest_restart(&job->ingest);
}

static int start(struct job *job, struct sm_error *err);

/* Ask somebody else: for all of it when what came is not sound, for the rest when it only broke off. */
static bool turn_away(struct job *job, bool sound, const struct sm_error *why)
{
	struct sm_oci_source *source = job->fetch->source;
	if (!source->ops->another || !source->ops->another(source, &job->transfer, why) || (!sound && restart(job) < 0))
		return false;
	job->failures = 0;
	job->fetch->stats->retries++;
	return true;
}

/* All bytes are there.  Where they came in pieces, and do not fit together, they are asked for once more as one. */
static int commit(struct job *job, struct sm_error *err)
{
	struct fetch *fetch = job->fetch;
	int code = sm_oci_ingest_commit(&job->ingest, &job->sink_error);
	if (code == -EBADMSG && job->suspect && (code = restart(job)) == 0)
		return start(job, err);
	if (code == -EBADMSG && turn_away(job, false, &job->sink_error))
		return start(job, err);
	if (code < 0) {
		sm_error_set(err, code, "%s", job->sink_error.message);
		return end_failed(job, code);
	}
	sm_oci_ingest_discard(&job->ingest);
	sm_oci_feed_complete(job->feed, job->layer->size);
	set_state(job, ENDED);
	fetch->stats->fetched_bytes += job->layer->size - job->resumed;
	fetch->stats->resumed_bytes += job->resumed;
	fetch->stats->fetched_layers++;
	tell(job, SM_OCI_PROGRESS_DONE);
	return 0;
}

static int fetch_alone(struct job *job, struct sm_error *err)
{
	struct sm_oci_source *source = job->fetch->source;
	int code = restart(job);
	if (!code)
		code = source->ops->blob(source, job->layer->digest, sink, job, err);
	if (code < 0) {
		if (job->sink_error.code)
			sm_error_set(err, job->sink_error.code, "%s", job->sink_error.message);
		return end_failed(job, code);
	}
	return commit(job, err);
}

/* Ask the source for what is missing. */
static int start(struct job *job, struct sm_error *err)
{
	struct sm_oci_source *source = job->fetch->source;
	set_state(job, FETCHING);
	tell(job, SM_OCI_PROGRESS_FETCHING);
	if (!source->ops->start)
		return fetch_alone(job, err);
	if (job->ingest.written == job->layer->size && job->suspect)
		return commit(job, err);
	job->suspect = job->ingest.written > 0;
	job->sink_error.code = 0;
	job->transfer = (struct sm_oci_transfer){
		.digest = job->layer->digest,
		.size = job->layer->size,
		.offset = job->ingest.written,
		.sink = sink,
		.restart = restart,
		.arg = job,
	};
	int code = source->ops->start(source, &job->transfer, err);
	return code < 0 ? end_failed(job, code) : 0;
}

/* The lock, and then a look whether the work is still to be done. */
static int begin(struct job *job, struct sm_error *err)
{
	struct fetch *fetch = job->fetch;
	const struct sm_oci_layer *layer = job->layer;
	bool there = sm_oci_store_has(fetch->store, layer->digest, layer->size);
	if (!there && layer->size > fetch->options->blob_max_bytes) {
		sm_error_set(err, EFBIG, "layer %s: %llu bytes, more than the %llu allowed", layer->digest,
		             (unsigned long long)layer->size, (unsigned long long)fetch->options->blob_max_bytes);
		return end_failed(job, -EFBIG);
	}
	int code = 0;
	if (!there) {
		code = sm_oci_ingest_begin(&job->ingest, fetch->store, layer->digest, layer->size,
		                           fetch->options->cancel, &job->sink_error);
		there = code == 0 && sm_oci_store_has(fetch->store, layer->digest, layer->size);
	}
	if (there) {
		code = feed_stored(job, err);
		if (code < 0)
			return end_failed(job, code);
		end_reused(job);
		return 0;
	}
	if (code == -EAGAIN) {
		if (job->state != WAITING) {
			set_state(job, WAITING);
			tell(job, SM_OCI_PROGRESS_WAITING);
		}
		return 0;
	}
	if (code < 0) {
		sm_error_set(err, code, "%s", job->sink_error.message);
		return end_failed(job, code);
	}
	code = sm_oci_feed_begin(job->feed, job->ingest.file.fd, job->ingest.written);
	if (code < 0) {
		sm_error_sys(err, code, "layer %s", layer->digest);
		return end_failed(job, code);
	}
	job->resumed = job->mark = job->ingest.written;
	job->suspect = job->resumed > 0;
	return start(job, err);
}

/* It broke off: again at once where it got on, later where it did not, never where that cannot help. */
static int ended(struct job *job, struct sm_error *err)
{
	struct sm_oci_transfer *transfer = &job->transfer;
	if (transfer->code == 0)
		return commit(job, err);
	if ((transfer->code == -ERANGE || transfer->code == -EBADMSG) && job->suspect) {
		job->fetch->stats->retries++;
		if (restart(job) == 0)
			return start(job, err);
	}
	/* From a server that knows no ranges the same bytes again are no progress. */
	if (job->ingest.written >= job->mark + PROGRESS_BYTES)
		job->failures = 0;
	else
		job->failures++;
	if (job->mark < job->ingest.written)
		job->mark = job->ingest.written;
	if (!transfer->transient || job->sink_error.code || job->failures > job->fetch->options->retries) {
		struct sm_error *why = job->sink_error.code ? &job->sink_error : &transfer->err;
		if (!why->code)
			sm_error_sys(why, transfer->code, "blob %s", job->layer->digest);
		if ((!job->sink_error.code || why->code == EBADMSG) && turn_away(job, !job->sink_error.code, why))
			return start(job, err);
		if (job->failures > 1)
			sm_error_set(err, why->code, "%s (the last of %u attempts)", why->message, job->failures);
		else
			sm_error_set(err, why->code, "%s", why->message);
		return end_failed(job, -why->code);
	}
	job->fetch->stats->retries++;
	set_state(job, PAUSED);
	int64_t delay_ms = job->failures || transfer->retry_after_s
	                       ? sm_oci_retry_delay_ms(job->failures, transfer->retry_after_s)
	                       : 0;
	job->at_ms = sm_oci_retry_now_ms() + delay_ms;
	tell(job, SM_OCI_PROGRESS_RETRYING);
	return 0;
}

/* How long until the clock lets the job do something; -1: it does not wait for the clock. */
static int64_t clock_ms(const struct job *job)
{
	int64_t left;
	switch (job->state) {
	case PAUSED:
		left = job->at_ms - sm_oci_retry_now_ms();
		return left > 0 ? left : 0;
	case WAITING:
		return LOCK_LOOKS_MS;
	case FETCHING:
		return untold_ms(job);
	default:
		return -1;
	}
}

/* Whatever can move does; *ret_timeout_ms is when the clock will next let something. */
static int move(struct fetch *fetch, bool *ret_over, int *ret_timeout_ms, struct sm_error *err)
{
	*ret_over = true;
	*ret_timeout_ms = -1;
	for (size_t i = 0; i < fetch->count; i++) {
		struct job *job = &fetch->jobs[i];
		bool room = fetch->fetching < fetch->options->parallel;
		int code = 0;
		if (job->state == FETCHING && untold_ms(job) == 0)
			tell(job, SM_OCI_PROGRESS_FETCHING);
		else if (job->state == PAUSED && clock_ms(job) == 0)
			code = start(job, err);
		else if (room && (job->state == WAITING || (job->state == QUEUED && fetch->waiting < WAITING_MAX)))
			code = begin(job, err);
		if (code < 0)
			return code;
		if (job->state != ENDED)
			*ret_over = false;
		int64_t wait_ms = clock_ms(job);
		if (wait_ms >= 0 && (*ret_timeout_ms < 0 || wait_ms < *ret_timeout_ms))
			*ret_timeout_ms = (int)wait_ms;
	}
	/* Room may have come after a job was passed over. */
	if (!fetch->fetching && !fetch->waiting)
		*ret_timeout_ms = 0;
	return 0;
}

/* A source of one blob at a time has nothing under way while others' locks are waited for. */
static int await(const struct fetch *fetch, int timeout_ms, struct sm_error *err)
{
	struct pollfd fds[2] = {
		{ .fd = fetch->watch_fd, .events = POLLIN },
		{ .fd = fetch->options->cancel_fd, .events = POLLIN },
	};
	int limit = fetch->options->cancel && fetch->options->cancel_fd < 0 ? LOCK_LOOKS_MS : INT_MAX;
	if (poll(fds, 2, timeout_ms >= 0 && timeout_ms < limit ? timeout_ms : limit) < 0 && errno != EINTR)
		return sm_error_sys(err, errno, "wait for another pull");
	return 0;
}

static int run(struct fetch *fetch, struct sm_error *err)
{
	const atomic_bool *cancel = fetch->options->cancel;
	const struct sm_oci_source_ops *ops = fetch->source->ops;
	for (;;) {
		struct sm_oci_transfer *transfer = NULL;
		bool over;
		int timeout_ms;
		if (cancel && atomic_load(cancel))
			return sm_error_sys(err, ECANCELED, "layers");
		int code = move(fetch, &over, &timeout_ms, err);
		if (code < 0 || over)
			return code;
		if (fetch->waiting && fetch->watch_fd < 0) {
			char folder[PATH_MAX];
			if ((code = sm_oci_store_partial_path(fetch->store, folder, err)) < 0)
				return code;
			/* From here on nothing is missed; what was before shows when it is tried once more. */
			if ((fetch->watch_fd = sm_oci_partial_watch(folder)) >= 0)
				continue;
		}
		code = ops->step ? ops->step(fetch->source, fetch->watch_fd, timeout_ms, &transfer, err)
		                 : await(fetch, timeout_ms, err);
		if (fetch->watch_fd >= 0)
			sm_oci_partial_watch_drain(fetch->watch_fd);
		if (code == 0 && transfer)
			code = ended(transfer->arg, err);
		if (code < 0)
			return code;
	}
}

static bool is_repeated(const struct fetch *fetch, const struct sm_oci_layer *layer)
{
	for (size_t i = 0; i < fetch->count; i++)
		if (!strcmp(fetch->jobs[i].layer->digest, layer->digest) && fetch->jobs[i].layer->size == layer->size)
			return true;
	return false;
}

int sm_oci_fetch(struct sm_oci_source *source, const struct sm_oci_store *store, const struct sm_oci_layer *layers,
                 size_t count, const struct sm_oci_fetch_options *options, struct sm_oci_pull_stats *stats,
                 struct sm_error *err)
{
	char folder[PATH_MAX];
	struct fetch fetch = { .source = source, .store = store, .options = options, .stats = stats, .watch_fd = -1 };
	fetch.jobs = calloc(count ? count : 1, sizeof *fetch.jobs);
	if (!fetch.jobs)
		return sm_error_sys(err, ENOMEM, "fetch layers");
	int code = sm_oci_store_partial_path(store, folder, err);
	if (code == 0)
		sm_oci_partial_sweep(folder);
	for (size_t i = 0; i < count; i++) {
		if (is_repeated(&fetch, &layers[i])) {
			stats->reused_bytes += layers[i].size;
			stats->reused_layers++;
			continue;
		}
		struct job *job = &fetch.jobs[fetch.count++];
		job->fetch = &fetch;
		job->layer = &layers[i];
		job->feed = sm_oci_feeds_find(options->feeds, layers[i].digest);
		job->index = (unsigned)(job - fetch.jobs);
		sm_oci_ingest_init(&job->ingest);
	}
	if (code == 0)
		code = run(&fetch, err);
	for (size_t i = 0; i < fetch.count; i++) {
		struct job *job = &fetch.jobs[i];
		if (job->state == FETCHING && source->ops->stop)
			source->ops->stop(source, &job->transfer);
		if (job->state != ENDED)
			end_failed(job, -ECANCELED);
	}
	sm_fd_close(&fetch.watch_fd);
	free(fetch.jobs);
	return code;
}
