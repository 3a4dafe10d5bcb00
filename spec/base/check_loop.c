/* check_loop NAME: one check of what runs on a thread of its own, operations and the loop. */
#include "base/fd.h"
#include "base/loop.h"
#include "base/op.h"
#include "base/thread.h"
#include "check.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>

static int run_until_cancelled(struct sm_op *op, void *arg, struct sm_error *err)
{
	sigset_t mask;
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	CHECK(sigismember(&mask, SIGINT) && sigismember(&mask, SIGCHLD));
	sm_fd_event_raise(*(int *)arg);
	while (!sm_op_cancelled(op))
		sched_yield();
	return sm_error_set(err, ECANCELED, "stopped");
}

static int wait_for_cancel(struct sm_op *op, void *arg, struct sm_error *err)
{
	int fd = sm_op_cancel_fd(op);
	CHECK(fd >= 0 && fd == sm_op_cancel_fd(op));
	CHECK(sm_fd_wait(fd, POLLIN, 0) == 0);
	sm_fd_event_raise(*(int *)arg);
	CHECK(sm_fd_wait(fd, POLLIN, -1) & POLLIN && sm_op_cancelled(op));
	return sm_error_set(err, ECANCELED, "stopped");
}

static int run_at_once(struct sm_op *op, void *arg, struct sm_error *err)
{
	(void)err;
	CHECK(sm_op_arg(op) == arg && !*sm_op_cancel_flag(op));
	return 7;
}

static int run_silent_failure(struct sm_op *op, void *arg, struct sm_error *err)
{
	(void)op, (void)arg, (void)err;
	return -ENODEV;
}

static unsigned args_freed;

static void count_free(void *arg)
{
	(void)arg;
	args_freed++;
}

static void check_op(void)
{
	struct sm_op *op;
	struct sm_error err = { 0 };
	int event = sm_fd_event();
	CHECK(!sm_op_begin(run_at_once, &event, count_free, &op, &err));
	CHECK(sm_fd_wait(sm_op_fd(op), POLLIN, -1) & POLLIN);
	CHECK(sm_op_finish(op, &err) == 7 && sm_op_finish(op, &err) == 7 && args_freed == 0);
	sm_op_free(op);
	CHECK(args_freed == 1);

	CHECK(!sm_op_begin(run_until_cancelled, &event, NULL, &op, &err));
	CHECK(sm_fd_wait(event, POLLIN, -1) & POLLIN);
	CHECK(sm_fd_wait(sm_op_fd(op), POLLIN, 0) == 0);
	sm_op_cancel(op);
	CHECK(sm_op_finish(op, &err) == -ECANCELED && !strcmp(err.message, "stopped"));
	sm_op_free(op);

	CHECK(!sm_op_begin(run_until_cancelled, &event, count_free, &op, &err));
	sm_op_free(op);
	CHECK(args_freed == 2);
	sm_op_free(NULL);

	sm_fd_event_take(event);
	CHECK(!sm_op_begin(wait_for_cancel, &event, NULL, &op, &err));
	CHECK(sm_fd_wait(event, POLLIN, -1) & POLLIN);
	sm_op_free(op);

	CHECK(!sm_op_begin(run_silent_failure, NULL, NULL, &op, &err));
	CHECK(sm_op_finish(op, &err) == -ENODEV && err.code == ENODEV && err.message[0]);
	sm_op_free(op);
	sm_fd_close(&event);
}

/* One watched eventfd.  `calls` and `alive` are plain on purpose: the loop's promises order them, and ThreadSanitizer
 * says so if they do not. */
struct watched {
	struct sm_loop *loop;
	struct sm_loop_source *source;
	int fd;
	bool alive;
	bool remove_self;
	unsigned calls;
	int reply; /* an eventfd raised by each call, or -1 */
};

static void on_event(void *arg, uint32_t events)
{
	struct watched *watched = arg;
	CHECK(watched->alive && (events & EPOLLIN));
	sm_fd_event_take(watched->fd);
	watched->calls++;
	int reply = watched->reply;
	if (watched->remove_self) {
		sm_loop_remove(watched->source);
		watched->alive = false;
	}
	if (reply >= 0)
		sm_fd_event_raise(reply);
}

static void watch(struct sm_loop *loop, struct watched *watched, int reply)
{
	*watched = (struct watched){ .loop = loop, .fd = sm_fd_event(), .alive = true, .reply = reply };
	CHECK(watched->fd >= 0);
	CHECK(!sm_loop_add(loop, watched->fd, EPOLLIN, on_event, watched, &watched->source));
}

static void wait_reply(int reply)
{
	CHECK(sm_fd_wait(reply, POLLIN, -1) & POLLIN);
	sm_fd_event_take(reply);
}

static void check_loop(void)
{
	struct sm_loop *loop;
	struct sm_error err;
	CHECK(!sm_loop_new(&loop, &err) && !sm_loop_start(loop, &err));
	int reply = sm_fd_event();
	struct watched one, two;
	watch(loop, &one, reply);
	watch(loop, &two, reply);

	sm_fd_event_raise(one.fd);
	wait_reply(reply);
	sm_loop_pause(loop);
	CHECK(one.calls == 1 && two.calls == 0);

	/* Paused twice: nothing runs until the second resume. */
	sm_loop_pause(loop);
	sm_fd_event_raise(one.fd);
	sm_loop_resume(loop);
	CHECK(sm_fd_wait(reply, POLLIN, 20) == 0);
	sm_loop_resume(loop);
	wait_reply(reply);

	/* No events wanted: none delivered. */
	CHECK(!sm_loop_modify(one.source, 0));
	sm_fd_event_raise(one.fd);
	CHECK(sm_fd_wait(reply, POLLIN, 20) == 0);
	CHECK(!sm_loop_modify(one.source, EPOLLIN));
	wait_reply(reply);

	/* A handler that removes itself. */
	sm_loop_pause(loop);
	two.remove_self = true;
	sm_loop_resume(loop);
	sm_fd_event_raise(two.fd);
	wait_reply(reply);
	sm_loop_pause(loop);
	CHECK(!two.alive && two.calls == 1);
	sm_loop_remove(one.source); /* while paused */
	sm_loop_resume(loop);
	sm_loop_remove(NULL);
	CHECK(sm_loop_add(loop, -1, EPOLLIN, on_event, NULL, &one.source) == -EBADF && !one.source);

	sm_fd_close(&one.fd);
	watch(loop, &one, reply); /* left for sm_loop_free */
	sm_loop_pause(loop);      /* freed while paused */
	sm_loop_free(loop);
	sm_loop_free(NULL);
	sm_fd_close(&one.fd);
	sm_fd_close(&two.fd);
	sm_fd_close(&reply);
}

/* A handler that is still running when somebody pauses the loop or removes its source. */
struct slow {
	int fd, started, go;
	bool finished;
};

static void on_slow_event(void *arg, uint32_t events)
{
	struct slow *slow = arg;
	CHECK(events == EPOLLIN);
	sm_fd_event_take(slow->fd);
	sm_fd_event_raise(slow->started);
	CHECK(sm_fd_wait(slow->go, POLLIN, -1) & POLLIN);
	sm_fd_event_take(slow->go);
	slow->finished = true;
}

/* Lets the handler go on a little after its caller has begun to wait for it. */
static void *let_go(void *arg)
{
	struct slow *slow = arg;
	CHECK(sm_fd_wait(slow->started, POLLIN, 30) == 0);
	sm_fd_event_raise(slow->go);
	return NULL;
}

static void check_loop_wait(void)
{
	struct sm_loop *loop;
	struct sm_error err;
	struct sm_loop_source *source;
	pthread_t thread;
	CHECK(!sm_loop_new(&loop, &err) && !sm_loop_start(loop, &err));
	struct slow slow = { .fd = sm_fd_event(), .started = sm_fd_event(), .go = sm_fd_event() };
	CHECK(!sm_loop_add(loop, slow.fd, EPOLLIN, on_slow_event, &slow, &source));
	for (int removing = 0; removing < 2; removing++) {
		slow.finished = false;
		sm_fd_event_raise(slow.fd);
		wait_reply(slow.started);
		CHECK(!sm_thread_start(&thread, "let-go", let_go, &slow));
		if (removing)
			sm_loop_remove(source);
		else
			sm_loop_pause(loop);
		CHECK(slow.finished);
		pthread_join(thread, NULL);
		if (!removing)
			sm_loop_resume(loop);
	}
	sm_loop_free(loop);
	sm_fd_close(&slow.fd);
	sm_fd_close(&slow.started);
	sm_fd_close(&slow.go);
}

#define STRESS_ROUNDS 2000

static void *pause_often(void *arg)
{
	for (int i = 0; i < STRESS_ROUNDS; i++) {
		sm_loop_pause(arg);
		sm_loop_resume(arg);
	}
	return NULL;
}

/* Sources are added, raised and removed at once: after remove returns, the memory and the descriptor are gone. */
static void *add_and_remove(void *arg)
{
	struct sm_loop *loop = arg;
	for (int i = 0; i < STRESS_ROUNDS; i++) {
		struct watched *watched = malloc(sizeof *watched);
		CHECK(watched);
		watch(loop, watched, -1);
		sm_fd_event_raise(watched->fd);
		if (i % 3 == 0)
			sched_yield();
		sm_loop_remove(watched->source);
		watched->alive = false;
		sm_fd_close(&watched->fd);
		free(watched);
	}
	return NULL;
}

static void check_loop_stress(void)
{
	struct sm_loop *loop;
	struct sm_error err;
	CHECK(!sm_loop_new(&loop, &err) && !sm_loop_start(loop, &err));
	pthread_t threads[3];
	for (int i = 0; i < 3; i++)
		CHECK(!sm_thread_start(&threads[i], "stress", i ? add_and_remove : pause_often, loop));
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	sm_loop_free(loop);
}

struct seen {
	char name[16];
	sigset_t mask;
	size_t stack_bytes;
};

static void *look_around(void *arg)
{
	struct seen *seen = arg;
	pthread_attr_t attr;
	CHECK(!pthread_getname_np(pthread_self(), seen->name, sizeof seen->name));
	CHECK(!pthread_sigmask(SIG_SETMASK, NULL, &seen->mask));
	CHECK(!pthread_getattr_np(pthread_self(), &attr));
	CHECK(!pthread_attr_getstacksize(&attr, &seen->stack_bytes));
	pthread_attr_destroy(&attr);
	return NULL;
}

static void check_thread(void)
{
	struct seen seen;
	pthread_t thread;
	sigset_t before, after;
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	CHECK(!sm_thread_start(&thread, "a-name-that-is-too-long", look_around, &seen));
	pthread_join(thread, NULL);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	CHECK(!strcmp(seen.name, "a-name-that-is-"));
	CHECK(sigismember(&seen.mask, SIGTERM) && sigismember(&seen.mask, SIGUSR1));
	CHECK(sigismember(&before, SIGTERM) == sigismember(&after, SIGTERM));
	/* No huge page (2 MiB) has room in it. */
	CHECK(seen.stack_bytes >= 1 << 19 && seen.stack_bytes < 2 << 20);
}

int main(int argc, char **argv)
{
	static const struct check checks[] = {
		{ "op", check_op },
		{ "thread", check_thread },
		{ "loop", check_loop },
		{ "loop-wait", check_loop_wait },
		{ "loop-stress", check_loop_stress },
		{ NULL, NULL },
	};
	return check_main(checks, argc, argv);
}
