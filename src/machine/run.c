#include "base/fd.h"
#include "base/time.h"
#include "machine/machine.h"
#include "machine/platform.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define LOOK_MS       250
#define HALTED_PROBES 3
#define BUSY_NS       (LOOK_MS * 1000000u / 100)

/* ---- why it ended ------------------------------------------------------------------------------------------- */

void sm_machine_end(struct sm_machine *machine, enum sm_control_end end, const char *detail)
{
	pthread_mutex_lock(&machine->end_lock);
	if (!atomic_load(&machine->ended)) {
		/* One datagram: u32 end, then the detail's characters. */
		char message[4 + 256];
		uint32_t code = (uint32_t)end;
		size_t len = strnlen(detail, 255);
		memcpy(message, &code, 4);
		memcpy(message + 4, detail, len);
		(void)send(machine->end_fd, message, 4 + len, MSG_DONTWAIT | MSG_NOSIGNAL);
		atomic_store(&machine->ended, true);
	}
	pthread_mutex_unlock(&machine->end_lock);
	for (unsigned i = 0; i < machine->nvcpus; i++)
		sm_vcpu_park(machine->vcpus[i]);
	/* Whoever talks to the guest hears that it is gone. */
	for (unsigned i = 0; i < machine->plan.nslots; i++)
		if (machine->plan.slots[i].kind == SM_PLAN_VSOCK)
			sm_virtio_vsock_hang_up(machine->devices[i].virtio);
}

void sm_machine_endf(struct sm_machine *machine, enum sm_control_end end, const char *format, ...)
{
	char detail[256];
	va_list args;
	va_start(args, format);
	vsnprintf(detail, sizeof detail, format, args);
	va_end(args);
	sm_machine_end(machine, end, detail);
}

void sm_machine_end_reset(struct sm_machine *machine, enum sm_control_end end, const char *detail)
{
	char line[256];
	if (sm_ring_last_line(sm_platform_console(machine->platform), "Kernel panic - not syncing: ", line,
	                      sizeof line))
		sm_machine_end(machine, SM_CONTROL_PANIC, line);
	else
		sm_machine_end(machine, end, detail);
}

/* ---- a guest that sleeps for good --------------------------------------------------------------------------- */

/* With the interrupt controller in the kernel, `cli; hlt` never exits.  When no vCPU used any processor time since
 * the last look, each is asked whether it can still wake; the question itself uses some, so the look after it only
 * takes a new measure.  The answers come at different moments, and a vCPU that waits for a spin lock also halts with
 * interrupts off, so they must agree several times, with nothing happening in between. */
static void look(void *arg, uint32_t events)
{
	(void)events;
	struct sm_machine *machine = arg;
	uint64_t expirations;
	if (read(machine->halt_timer, &expirations, sizeof expirations) < 0 || atomic_load(&machine->ended))
		return;
	uint64_t cpu_ns = 0;
	const bool windows = sm_machine_has_windows(machine);
	for (unsigned i = 0; i < machine->nvcpus; i++) {
		uint64_t own_ns = sm_vcpu_cpu_ns(machine->vcpus[i]);
		/* One that waits for memory in vain is busy with it. */
		if (windows && own_ns - machine->vcpu_ns[i] > BUSY_NS)
			sm_vcpu_locate(machine->vcpus[i]);
		machine->vcpu_ns[i] = own_ns;
		cpu_ns += own_ns;
	}
	bool measured = machine->cpu_ns == UINT64_MAX, idle = cpu_ns == machine->cpu_ns;
	machine->cpu_ns = idle ? UINT64_MAX : cpu_ns;
	if (!idle) {
		if (!measured)
			machine->halted_probes = 0;
		return;
	}
	machine->halted_probes = atomic_exchange(&machine->all_halted, false) ? machine->halted_probes + 1 : 0;
	if (machine->halted_probes == HALTED_PROBES) {
		sm_machine_end(machine, SM_CONTROL_HALT, "every vCPU is off, or halted with interrupts off");
		return;
	}
	for (unsigned i = 0; i < machine->nvcpus; i++)
		sm_vcpu_probe(machine->vcpus[i]);
}

static void set_halt_timer(struct sm_machine *machine, bool on)
{
	const struct itimerspec spec = {
		.it_interval = { .tv_nsec = on ? LOOK_MS * 1000000 : 0 },
		.it_value = { .tv_nsec = on ? LOOK_MS * 1000000 : 0 },
	};
	timerfd_settime(machine->halt_timer, 0, &spec, NULL);
}

static int watch_halt(struct sm_machine *machine, struct sm_error *err)
{
	if (machine->halt_timer >= 0)
		return 0;
	machine->halt_timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (machine->halt_timer < 0)
		return sm_error_sys(err, errno, "create a timer");
	int code = sm_loop_add(machine->loop, machine->halt_timer, EPOLLIN, look, machine, &machine->halt_source);
	if (code < 0)
		sm_fd_close(&machine->halt_timer);
	return code < 0 ? sm_error_sys(err, code, "watch a timer") : 0;
}

/* ---- running and paused ------------------------------------------------------------------------------------- */

void sm_machine_served(struct sm_machine *machine)
{
	if (atomic_load_explicit(&machine->first_exit_us, memory_order_relaxed) == 0) {
		uint_fast64_t none = 0;
		uint64_t since = sm_time_us() - machine->resumed_at_us;
		atomic_compare_exchange_strong(&machine->first_exit_us, &none, since ? since : 1);
	}
}

static void park(struct sm_machine *machine)
{
	for (unsigned i = 0; i < machine->nvcpus; i++)
		sm_vcpu_park(machine->vcpus[i]);
	for (unsigned i = 0; i < machine->nvcpus; i++)
		sm_vcpu_park_wait(machine->vcpus[i]);
}

int sm_machine_resume(struct sm_machine *machine, struct sm_error *err)
{
	if (atomic_load(&machine->ended))
		return sm_error_set(err, ESHUTDOWN, "resume: the machine has ended");
	if (machine->running)
		return 0;
	if (!machine->resumed_at_us)
		machine->resumed_at_us = sm_time_us();
	/* Threads and the timer are made here the first time: the first vCPU is not to wait for them. */
	int code = 0;
	for (unsigned i = 0; i < machine->nvcpus && code == 0; i++)
		code = sm_vcpu_run(machine->vcpus[i], machine->restored, err);
	if (code == 0)
		code = watch_halt(machine, err);
	if (code == 0)
		code = sm_loop_start(machine->loop, err);
	if (code < 0) {
		park(machine);
		return sm_error_context(err, "resume");
	}
	machine->running = true;
	machine->restored = false;
	set_halt_timer(machine, true);
	/* The first may have ended the machine before the last was told to run. */
	if (atomic_load(&machine->ended))
		park(machine);
	return 0;
}

int sm_machine_pause(struct sm_machine *machine, struct sm_error *err)
{
	set_halt_timer(machine, false);
	park(machine);
	machine->running = false;
	machine->restored = true; /* its clock stood still: the next resume tells the guest */
	if (atomic_load(&machine->ended))
		return sm_error_set(err, ESHUTDOWN, "pause: the machine has ended");
	return 0;
}
