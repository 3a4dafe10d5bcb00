#include "machine/vcpu.h"

#include "base/thread.h"
#include "machine/machine.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define FAULTS_MAX 16

struct sm_vcpu {
	struct sm_machine *machine;
	unsigned index;
	struct sm_hv_vcpu *hv_vcpu;
	pthread_t thread;
	atomic_bool started;  /* the thread is there */
	struct sm_hv_exit io; /* the last exit, and the answer the guest waits for */
	struct sm_vcpu_stats stats;
	unsigned faults; /* in a row, that nobody could explain */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool quit;
	bool running;      /* inside the run loop */
	sm_vcpu_call call; /* NULL: the mailbox is empty */
	void *call_arg;
	int call_code;
	struct sm_error call_err;
	sm_vcpu_call first; /* after the creation */
	void *first_arg;
	bool tell_resumed;
	atomic_bool want_run;
	atomic_bool probe, locate;
	uint64_t where; /* at the last look */
	atomic_bool halted;
};

static const struct sm_hv *hv_of(const struct sm_vcpu *vcpu)
{
	return vcpu->machine->hv;
}

static void count(atomic_uint_fast64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static void look_whether_halted(struct sm_vcpu *vcpu)
{
	atomic_store(&vcpu->halted, hv_of(vcpu)->vcpu_halted(vcpu->hv_vcpu));
	for (unsigned i = 0; i < vcpu->machine->nvcpus; i++)
		if (!atomic_load(&vcpu->machine->vcpus[i]->halted))
			return;
	atomic_store(&vcpu->machine->all_halted, true);
}

/* KVM resolves a fault aside while the vCPU halts, if it can take interrupts, and tries again without end where that
 * fails: the one way in which a file that is cut does not show as a fault. */
static void look_whether_stuck(struct sm_vcpu *vcpu)
{
	uint64_t where = hv_of(vcpu)->vcpu_where(vcpu->hv_vcpu);
	if (where == vcpu->where)
		(void)sm_machine_mend(vcpu->machine);
	vcpu->where = where;
}

/* A mapped file may be shorter than its mapping.  It may also have been for a moment only, or another vCPU has had it
 * mended: so a few times in a row it is tried again even where nothing is wrong any more. */
static bool tries_again(struct sm_vcpu *vcpu)
{
	struct sm_machine *machine = vcpu->machine;
	return sm_machine_mend(machine) || (sm_machine_has_windows(machine) && ++vcpu->faults < FAULTS_MAX);
}

/* Serve one exit.  The only place that looks at exit kinds. */
static void serve(struct sm_vcpu *vcpu)
{
	struct sm_machine *machine = vcpu->machine;
	struct sm_hv_exit *io = &vcpu->io;

	count(&vcpu->stats.exits);
	if (io->kind != SM_HV_EXIT_FAULT)
		vcpu->faults = 0;
	switch (io->kind) {
	case SM_HV_EXIT_MMIO:
		count(&vcpu->stats.mmio);
		if (!sm_machine_mmio(machine, io))
			count(&vcpu->stats.unhandled);
		break;
	case SM_HV_EXIT_PIO:
		count(&vcpu->stats.pio);
		if (!sm_machine_pio(machine, io))
			count(&vcpu->stats.unhandled);
		break;
	case SM_HV_EXIT_KICK:
		count(&vcpu->stats.kicks);
		if (atomic_exchange(&vcpu->probe, false))
			look_whether_halted(vcpu);
		if (atomic_exchange(&vcpu->locate, false))
			look_whether_stuck(vcpu);
		break;
	case SM_HV_EXIT_HALT:
		sm_machine_end(machine, SM_CONTROL_HALT, "a vCPU halted with nothing to wake it");
		break;
	case SM_HV_EXIT_SHUTDOWN:
		sm_machine_end_reset(machine, SM_CONTROL_TRIPLE_FAULT, io->detail ? io->detail : "triple fault");
		break;
	case SM_HV_EXIT_RESET:
		sm_machine_end_reset(machine, SM_CONTROL_RESET, "the guest reset itself");
		break;
	case SM_HV_EXIT_POWEROFF:
		sm_machine_end(machine, SM_CONTROL_POWEROFF, "the guest powered off");
		break;
	case SM_HV_EXIT_FAULT:
		if (tries_again(vcpu))
			break;
		sm_machine_endf(machine, SM_CONTROL_FAULT, "vCPU %u: no memory or device at 0x%llx", vcpu->index,
		                (unsigned long long)io->address);
		break;
	case SM_HV_EXIT_ERROR:
		sm_machine_endf(machine, SM_CONTROL_FAULT, "vCPU %u: %s (%s)", vcpu->index,
		                io->detail ? io->detail : "cannot go on", sm_error_name(io->error));
		break;
	}
}

static int create(struct sm_machine *machine, struct sm_hv_vcpu *unused, void *arg, struct sm_error *err)
{
	(void)unused;
	struct sm_vcpu *vcpu = arg;
	int code = hv_of(vcpu)->vcpu_new(machine->vm, vcpu->index, &vcpu->hv_vcpu, err);
	return code < 0 ? code : vcpu->first(machine, vcpu->hv_vcpu, vcpu->first_arg, err);
}

static int settle(struct sm_vcpu *vcpu, struct sm_error *err)
{
	return hv_of(vcpu)->vcpu_settle(vcpu->hv_vcpu, &vcpu->io, err);
}

static void run(struct sm_vcpu *vcpu, bool resumed)
{
	if (resumed)
		hv_of(vcpu)->vcpu_resumed(vcpu->hv_vcpu);
	while (atomic_load(&vcpu->want_run)) {
		hv_of(vcpu)->vcpu_run(vcpu->hv_vcpu, &vcpu->io);
		serve(vcpu);
		if (vcpu->io.kind != SM_HV_EXIT_KICK)
			sm_machine_served(vcpu->machine);
	}
	/* An access that crosses a page has parts: each is served before the guest is left. */
	struct sm_error err = { 0 };
	int code;
	while ((code = settle(vcpu, &err)) == 1)
		serve(vcpu);
	if (code < 0)
		sm_machine_endf(vcpu->machine, SM_CONTROL_FAULT, "vCPU %u: %s", vcpu->index, err.message);
}

static void *thread_main(void *arg)
{
	struct sm_vcpu *vcpu = arg;

	pthread_mutex_lock(&vcpu->lock);
	for (;;) {
		if (vcpu->quit)
			break;
		if (vcpu->call) {
			sm_vcpu_call call = vcpu->call;
			void *call_arg = vcpu->call_arg;
			pthread_mutex_unlock(&vcpu->lock);
			struct sm_error err = { 0 };
			int code = call(vcpu->machine, vcpu->hv_vcpu, call_arg, &err);
			pthread_mutex_lock(&vcpu->lock);
			vcpu->call = NULL;
			vcpu->call_code = code;
			vcpu->call_err = err;
			pthread_cond_broadcast(&vcpu->changed);
		} else if (atomic_load(&vcpu->want_run)) {
			bool resumed = vcpu->tell_resumed;
			vcpu->tell_resumed = false;
			vcpu->running = true;
			pthread_mutex_unlock(&vcpu->lock);
			run(vcpu, resumed);
			pthread_mutex_lock(&vcpu->lock);
			vcpu->running = false;
			pthread_cond_broadcast(&vcpu->changed);
		} else {
			pthread_cond_wait(&vcpu->changed, &vcpu->lock);
		}
	}
	pthread_mutex_unlock(&vcpu->lock);
	return NULL;
}

static int start_thread(struct sm_vcpu *vcpu, struct sm_error *err)
{
	if (atomic_load(&vcpu->started))
		return 0;
	char name[16];
	snprintf(name, sizeof name, "vcpu-%u", vcpu->index);
	int code = sm_thread_start(&vcpu->thread, name, thread_main, vcpu);
	if (code < 0)
		return sm_error_sys(err, code, "start the thread of vCPU %u", vcpu->index);
	atomic_store(&vcpu->started, true);
	return 0;
}

int sm_vcpu_new(struct sm_machine *machine, unsigned index, sm_vcpu_call first, void *arg, struct sm_vcpu **ret_vcpu,
                struct sm_error *err)
{
	struct sm_vcpu *vcpu = calloc(1, sizeof *vcpu);
	if (!vcpu)
		return sm_error_set(err, ENOMEM, "vCPU %u: out of memory", index);
	vcpu->machine = machine;
	vcpu->index = index;
	vcpu->first = first;
	vcpu->first_arg = arg;
	pthread_mutex_init(&vcpu->lock, NULL);
	pthread_cond_init(&vcpu->changed, NULL);
	int code = machine->caps.any_thread ? 0 : start_thread(vcpu, err);
	if (code < 0) {
		sm_vcpu_free(vcpu);
		return code;
	}
	sm_vcpu_call_begin(vcpu, create, vcpu);
	*ret_vcpu = vcpu;
	return 0;
}

void sm_vcpu_free(struct sm_vcpu *vcpu)
{
	if (!vcpu)
		return;
	sm_vcpu_park(vcpu);
	pthread_mutex_lock(&vcpu->lock);
	vcpu->quit = true;
	pthread_cond_broadcast(&vcpu->changed);
	pthread_mutex_unlock(&vcpu->lock);
	if (atomic_load(&vcpu->started))
		pthread_join(vcpu->thread, NULL);
	if (vcpu->hv_vcpu)
		hv_of(vcpu)->vcpu_free(vcpu->hv_vcpu);
	pthread_cond_destroy(&vcpu->changed);
	pthread_mutex_destroy(&vcpu->lock);
	free(vcpu);
}

/* A parked vCPU's thread has nothing to say about it, so where any thread will do it is left asleep. */
void sm_vcpu_call_begin(struct sm_vcpu *vcpu, sm_vcpu_call call, void *arg)
{
	if (vcpu->machine->caps.any_thread) {
		vcpu->call_err = (struct sm_error){ 0 };
		vcpu->call_code = call(vcpu->machine, vcpu->hv_vcpu, arg, &vcpu->call_err);
		return;
	}
	pthread_mutex_lock(&vcpu->lock);
	vcpu->call = call;
	vcpu->call_arg = arg;
	pthread_cond_broadcast(&vcpu->changed);
	pthread_mutex_unlock(&vcpu->lock);
}

int sm_vcpu_call_wait(struct sm_vcpu *vcpu, struct sm_error *err)
{
	pthread_mutex_lock(&vcpu->lock);
	while (vcpu->call)
		pthread_cond_wait(&vcpu->changed, &vcpu->lock);
	int code = vcpu->call_code;
	if (code < 0 && err)
		*err = vcpu->call_err;
	pthread_mutex_unlock(&vcpu->lock);
	return code;
}

int sm_vcpu_call_now(struct sm_vcpu *vcpu, sm_vcpu_call call, void *arg, struct sm_error *err)
{
	sm_vcpu_call_begin(vcpu, call, arg);
	return sm_vcpu_call_wait(vcpu, err);
}

int sm_vcpu_run(struct sm_vcpu *vcpu, bool resumed, struct sm_error *err)
{
	pthread_mutex_lock(&vcpu->lock);
	vcpu->tell_resumed = resumed;
	atomic_store(&vcpu->want_run, true);
	pthread_cond_broadcast(&vcpu->changed);
	pthread_mutex_unlock(&vcpu->lock);
	int code = start_thread(vcpu, err);
	if (code < 0)
		atomic_store(&vcpu->want_run, false);
	return code;
}

void sm_vcpu_park(struct sm_vcpu *vcpu)
{
	if (atomic_exchange(&vcpu->want_run, false) && vcpu->hv_vcpu)
		hv_of(vcpu)->vcpu_kick(vcpu->hv_vcpu);
}

void sm_vcpu_park_wait(struct sm_vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->lock);
	while (vcpu->running)
		pthread_cond_wait(&vcpu->changed, &vcpu->lock);
	pthread_mutex_unlock(&vcpu->lock);
}

uint64_t sm_vcpu_cpu_ns(const struct sm_vcpu *vcpu)
{
	clockid_t clock;
	struct timespec now;
	if (!atomic_load(&vcpu->started) || pthread_getcpuclockid(vcpu->thread, &clock) || clock_gettime(clock, &now))
		return 0;
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void sm_vcpu_probe(struct sm_vcpu *vcpu)
{
	atomic_store(&vcpu->halted, false);
	atomic_store(&vcpu->probe, true);
	hv_of(vcpu)->vcpu_kick(vcpu->hv_vcpu);
}

void sm_vcpu_locate(struct sm_vcpu *vcpu)
{
	atomic_store(&vcpu->locate, true);
	hv_of(vcpu)->vcpu_kick(vcpu->hv_vcpu);
}

const struct sm_vcpu_stats *sm_vcpu_stats(const struct sm_vcpu *vcpu)
{
	return &vcpu->stats;
}
