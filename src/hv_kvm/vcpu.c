/* A vCPU: running it, handing its exits out as plain data, and getting it out of the guest.
 *
 * A kick is a real-time signal sent to the vCPU's thread.  It is blocked there always and let through only
 * inside KVM_RUN (KVM_SET_SIGNAL_MASK), which then returns EINTR; the pending signal is what makes a kick sticky.
 * No handler is ever run, so none is installed, and whatever the process does with that signal's number elsewhere
 * is undisturbed: ours is directed to one thread and consumed there. */
#include "base/fd.h"
#include "hv_kvm/internal.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than some systems' headers (Linux 6.8). */
#ifndef KVM_EXIT_MEMORY_FAULT
#define KVM_EXIT_MEMORY_FAULT 39
#endif

/* Above what the C library keeps for itself. */
static int kick_signal(void)
{
	return SIGRTMIN + 7;
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

/* Block the kick here and let it through inside KVM_RUN, where otherwise this thread's own mask holds. */
static int set_signal_mask(struct sm_hv_vcpu *vcpu)
{
	struct {
		uint32_t len;
		uint8_t set[8]; /* the kernel's sigset_t */
	} mask = { .len = sizeof mask.set };
	sigset_t kick, inside;
	sigemptyset(&kick);
	sigaddset(&kick, kick_signal());
	int code = pthread_sigmask(SIG_BLOCK, &kick, &inside);
	if (code)
		return -code;
	sigdelset(&inside, kick_signal());
	memcpy(mask.set, &inside, sizeof mask.set);
	return ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, &mask) < 0 ? -errno : 0;
}

int sm_kvm_vcpu_new(struct sm_hv_vm *vm, unsigned index, struct sm_hv_vcpu **ret_vcpu, struct sm_error *err)
{
	struct sm_hv_vcpu *vcpu = calloc(1, sizeof *vcpu);
	if (!vcpu)
		return sm_error_set(err, ENOMEM, "vCPU %u: out of memory", index);
	vcpu->vm = vm;
	vcpu->index = index;
	vcpu->untouched = true;
	vcpu->run = MAP_FAILED;
	int code = vcpu->fd = sm_kvm_arch_vcpu_open(vm, index, err);
	if (code < 0)
		goto fail;
	vcpu->run = mmap(NULL, vm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED) {
		code = sm_error_sys(err, errno, "map the shared area of vCPU %u", index);
		goto fail;
	}
	code = sm_kvm_arch_vcpu_init(vcpu, err);
	if (code < 0)
		goto fail;
	*ret_vcpu = vcpu;
	return 0;
fail:
	sm_kvm_vcpu_free(vcpu);
	return code;
}

void sm_kvm_vcpu_free(struct sm_hv_vcpu *vcpu)
{
	if (!vcpu)
		return;
	sm_kvm_arch_vcpu_done(vcpu);
	if (vcpu->run != MAP_FAILED)
		munmap(vcpu->run, vcpu->vm->run_bytes);
	sm_fd_close(&vcpu->fd);
	free(vcpu);
}

/* ---- kicks --------------------------------------------------------------------------------------------------- */

/* tgkill and not pthread_kill: the thread may have ended by now.  A real-time signal is refused, not merged, when
 * the user's queue of signals is full (RLIMIT_SIGPENDING). */
static void signal_thread(pid_t thread)
{
	while (syscall(SYS_tgkill, getpid(), thread, kick_signal()) < 0 && errno == EAGAIN)
		sched_yield();
}

/* A vCPU that has not run yet has no thread: bind sends the signal. */
void sm_kvm_vcpu_kick(struct sm_hv_vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->vm->lock);
	bool sent = atomic_exchange(&vcpu->kicked, true);
	pid_t thread = vcpu->thread;
	pthread_mutex_unlock(&vcpu->vm->lock);
	if (!sent && thread)
		signal_thread(thread);
}

/* The thread that runs the vCPU first runs it ever after. */
static int bind(struct sm_hv_vcpu *vcpu)
{
	int code = set_signal_mask(vcpu);
	if (code < 0)
		return code;
	pid_t thread = (pid_t)syscall(SYS_gettid);
	pthread_mutex_lock(&vcpu->vm->lock);
	vcpu->thread = thread;
	bool kicked = atomic_load(&vcpu->kicked);
	pthread_mutex_unlock(&vcpu->vm->lock);
	if (kicked)
		signal_thread(thread);
	return 0;
}

/* Consume a kick.  A kicker that comes between the two steps sends nothing, and is served by this exit. */
static bool take_kick(struct sm_hv_vcpu *vcpu)
{
	if (!atomic_load(&vcpu->kicked))
		return false; /* another signal, meant for the process */
	sigset_t kick;
	sigemptyset(&kick);
	sigaddset(&kick, kick_signal());
	while (sigwaitinfo(&kick, NULL) < 0 && errno == EINTR)
		;
	atomic_exchange(&vcpu->kicked, false);
	return true;
}

/* ---- accesses ------------------------------------------------------------------------------------------------ */

/* Both are little-endian on every architecture of this project. */
static void hand_out(struct sm_kvm_access *access, struct sm_hv_exit *io)
{
	*io = (struct sm_hv_exit){
		.kind = access->kind,
		.write = access->write,
		.size = (uint8_t)access->size,
		.address = access->address,
	};
	if (access->write)
		memcpy(&io->data, access->data, access->size);
}

/* The answer goes where KVM looks for it.  True: there is another part, now in io. */
static bool next_part(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *io)
{
	struct sm_kvm_access *access = &vcpu->access;
	if (!access->data)
		return false;
	if (!access->write)
		memcpy(access->data, &io->data, access->size);
	if (--access->left == 0) {
		access->data = NULL;
		return false;
	}
	access->data += access->size;
	access->address += access->step;
	hand_out(access, io);
	return true;
}

/* ---- exits --------------------------------------------------------------------------------------------------- */

static void stop(struct sm_hv_exit *io, int error, const char *detail)
{
	*io = (struct sm_hv_exit){ .kind = SM_HV_EXIT_ERROR, .error = error, .detail = detail };
}

static void mmio_exit(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *io)
{
	struct kvm_run *run = vcpu->run;
	unsigned len = run->mmio.len;
	if (len < 1 || len > sizeof run->mmio.data) {
		stop(io, EPROTO, "KVM reported an MMIO access of no known size");
		return;
	}
	/* What crosses a page comes in odd sizes; devices know only the four, so it goes byte by byte. */
	bool even = (len & (len - 1)) == 0;
	vcpu->access = (struct sm_kvm_access){
		.data = run->mmio.data,
		.address = run->mmio.phys_addr,
		.size = even ? len : 1,
		.step = 1,
		.left = even ? 1 : len,
		.write = run->mmio.is_write,
		.kind = SM_HV_EXIT_MMIO,
	};
	hand_out(&vcpu->access, io);
}

/* String instructions give many values at once, all for one port. */
static void pio_exit(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *io)
{
	struct kvm_run *run = vcpu->run;
	uint64_t bytes = (uint64_t)run->io.size * run->io.count;
	if (!bytes || run->io.size > 4 || run->io.data_offset > vcpu->vm->run_bytes ||
	    bytes > vcpu->vm->run_bytes - run->io.data_offset) {
		stop(io, EPROTO, "KVM reported a port access outside its shared area");
		return;
	}
	vcpu->access = (struct sm_kvm_access){
		.data = (uint8_t *)run + run->io.data_offset,
		.address = run->io.port,
		.size = run->io.size,
		.left = run->io.count,
		.write = run->io.direction == KVM_EXIT_IO_OUT,
		.kind = SM_HV_EXIT_PIO,
	};
	hand_out(&vcpu->access, io);
}

static void internal_error(const struct kvm_run *run, struct sm_hv_exit *io)
{
	switch (run->internal.suberror) {
	case KVM_INTERNAL_ERROR_EMULATION:
		stop(io, EIO, "KVM cannot emulate the guest's instruction");
		break;
	case KVM_INTERNAL_ERROR_DELIVERY_EV:
		stop(io, EIO, "KVM could not deliver an event to the guest");
		break;
	case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
		stop(io, EIO, "the processor left the guest for a reason KVM does not know");
		break;
	default:
		stop(io, EIO, "KVM internal error");
		break;
	}
}

static void system_event(const struct kvm_run *run, struct sm_hv_exit *io)
{
	switch (run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		io->kind = SM_HV_EXIT_POWEROFF;
		break;
	case KVM_SYSTEM_EVENT_RESET:
		io->kind = SM_HV_EXIT_RESET;
		break;
	case KVM_SYSTEM_EVENT_CRASH:
		stop(io, EIO, "the guest reported a crash");
		break;
	default:
		stop(io, EIO, "KVM reported an unknown system event");
		break;
	}
}

static void decode(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *io)
{
	const struct kvm_run *run = vcpu->run;
	*io = (struct sm_hv_exit){ 0 };
	switch (run->exit_reason) {
	case KVM_EXIT_MMIO:
		mmio_exit(vcpu, io);
		break;
	case KVM_EXIT_IO:
		pio_exit(vcpu, io);
		break;
	case KVM_EXIT_HLT:
		io->kind = SM_HV_EXIT_HALT;
		break;
	case KVM_EXIT_SHUTDOWN:
		io->kind = SM_HV_EXIT_SHUTDOWN;
		io->detail = "triple fault";
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		system_event(run, io);
		break;
	case KVM_EXIT_ARM_NISV:
		stop(io, ENOSYS,
		     "the guest reached for a device with an instruction that KVM cannot take apart (a pair, "
		     "write-back, a "
		     "vector)");
		break;
	case KVM_EXIT_FAIL_ENTRY:
		stop(io, EIO, "the processor refused to enter the guest");
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		internal_error(run, io);
		break;
	default:
		stop(io, EIO, "KVM gave an exit that was not asked for");
		break;
	}
}

/* KVM_RUN failed with `code`. */
static void failed(struct sm_hv_vcpu *vcpu, int code, struct sm_hv_exit *io)
{
	if (code != EFAULT) {
		stop(io, code, "KVM_RUN failed");
		return;
	}
	/* Host memory behind the access is gone (a file was cut, say).  Older kernels do not tell the address;
	 * the padding holds what newer ones call memory_fault: flags, gpa, size. */
	*io = (struct sm_hv_exit){ .kind = SM_HV_EXIT_FAULT, .address = UINT64_MAX };
	if (vcpu->run->exit_reason == KVM_EXIT_MEMORY_FAULT)
		memcpy(&io->address, vcpu->run->padding + sizeof(uint64_t), sizeof io->address);
}

void sm_kvm_vcpu_run(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *io)
{
	if (next_part(vcpu, io))
		return;
	int bound = vcpu->thread ? 0 : bind(vcpu);
	if (bound < 0) {
		stop(io, -bound, "KVM_SET_SIGNAL_MASK failed");
		return;
	}
	vcpu->untouched = false;
	for (;;) {
		if (ioctl(vcpu->fd, KVM_RUN, 0) >= 0) {
			decode(vcpu, io);
			return;
		}
		int code = errno;
		if (code == EINTR) {
			if (!take_kick(vcpu))
				continue;
			*io = (struct sm_hv_exit){ .kind = SM_HV_EXIT_KICK };
			return;
		}
		if (code != EAGAIN) { /* EAGAIN: a waiting processor was started */
			failed(vcpu, code, io);
			return;
		}
	}
}

/* KVM finishes an access on the next KVM_RUN; told to leave at once, it runs no instruction after it. */
int sm_kvm_vcpu_settle(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *io, struct sm_error *err)
{
	if (!vcpu->access.data)
		return 0;
	if (next_part(vcpu, io))
		return 1;
	vcpu->run->immediate_exit = 1;
	int code = ioctl(vcpu->fd, KVM_RUN, 0) < 0 ? errno : 0;
	vcpu->run->immediate_exit = 0;
	if (code == EINTR || code == EAGAIN)
		return 0;
	if (code)
		return sm_error_sys(err, code, "finish the guest's pending access");
	decode(vcpu, io);
	if (!vcpu->access.data)
		return sm_error_set(err, EIO, "finish the guest's pending access: %s",
		                    io->detail ? io->detail : "another exit");
	return 1; /* the instruction has more to access */
}
