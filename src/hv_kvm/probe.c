#include "hv_kvm/probe.h"

#include "base/fd.h"
#include "base/thread.h"
#include "hv_kvm/internal.h"
#include "hv_kvm/kvm.h"
#include "hv_kvm/probe_guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

/* Slower than this, guest kernel mode is emulated and a Linux guest takes tens of seconds to start. */
#define SPEED_MIN        UINT64_C(20000000)
#define EXIT_ROUNDS      64u
#define MEASURE_NS       UINT64_C(10000000) /* long against an exit */
#define TURNS_MAX        (1u << 28)
#define TRIES_MAX        10u /* a busy host takes the processor away in the middle of one, not of all */
#define GUEST_TIMEOUT_MS 10000

/* Nice to have: shown, not asked for. */
static const struct sm_kvm_need extras[] = {
	{ KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM" },
	{ KVM_CAP_NR_MEMSLOTS, "KVM_CAP_NR_MEMSLOTS" },
	{ KVM_CAP_NR_VCPUS, "KVM_CAP_NR_VCPUS" },
	{ KVM_CAP_MAX_VCPUS, "KVM_CAP_MAX_VCPUS" },
	{ KVM_CAP_DIRTY_LOG_RING, "KVM_CAP_DIRTY_LOG_RING" },
	{ 0, NULL },
};

__attribute__((format(printf, 2, 3))) static void reason(struct sm_kvm_probe *probe, const char *format, ...)
{
	if (probe->nreasons == SM_KVM_PROBE_REASONS)
		return;
	va_list args;
	va_start(args, format);
	vsnprintf(probe->reasons[probe->nreasons++], SM_KVM_PROBE_REASON_MAX, format, args);
	va_end(args);
}

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- the device ----------------------------------------------------------------------------------------------- */

static int open_device(const char *path, struct sm_kvm_probe *probe)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	switch (errno) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		reason(probe, "there is no %s: %s", path, sm_kvm_probe_module_advice());
		break;
	case EACCES:
	case EPERM:
		reason(probe,
		       "no permission for %s: join its group (usermod -aG kvm USER, then log in again), or pass the "
		       "device into this container",
		       path);
		break;
	default:
		reason(probe, "%s: %s", path, strerror(errno));
		break;
	}
	return -1;
}

static void ask_capabilities(int fd, const struct sm_kvm_need *need, bool needed, struct sm_kvm_probe *probe)
{
	for (; need->name && probe->ncapabilities < SM_KVM_PROBE_CAPABILITIES; need++) {
		int value = ioctl(fd, KVM_CHECK_EXTENSION, need->capability);
		probe->capabilities[probe->ncapabilities].name = need->name;
		probe->capabilities[probe->ncapabilities++].value = value > 0 ? (unsigned)value : 0;
		if (needed && value <= 0)
			reason(probe, "KVM lacks %s: a newer host kernel (Linux 5.14 or later) has it", need->name);
	}
}

static bool check_device(int fd, const char *path, struct sm_kvm_probe *probe)
{
	if (ioctl(fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
		reason(probe, "%s is not a KVM device that speaks API version %d", path, KVM_API_VERSION);
		return false;
	}
	ask_capabilities(fd, sm_kvm_needs, true, probe);
	ask_capabilities(fd, sm_kvm_arch_needs, true, probe);
	ask_capabilities(fd, extras, false, probe);
	ask_capabilities(fd, sm_kvm_probe_extras, false, probe);
	struct sm_hv_caps caps;
	if (probe->nreasons || sm_hv_kvm.caps(fd, &caps, NULL) < 0)
		return false;
	probe->max_vcpus = caps.max_vcpus;
	probe->gpa_bits = caps.gpa_bits;
	return true;
}

/* ---- small guests --------------------------------------------------------------------------------------------- */

struct attempt {
	const struct sm_kvm_probe_guest *guest;
	/* Drives the guest on its vCPU's thread. */
	void (*drive)(struct attempt *attempt);
	struct sm_kvm_probe *probe;
	struct sm_hv_vm *vm;
	struct sm_hv_vcpu *vcpu;
	struct sm_hv_exit io;
	bool ran;       /* as it should */
	int made, done; /* eventfds: the vCPU exists (or never will), the thread is through */
	struct sm_error err;
};

/* Run to the next access; false when the guest ended some other way. */
static bool step(struct attempt *attempt, bool write)
{
	struct sm_hv_exit *io = &attempt->io;
	sm_hv_kvm.vcpu_run(attempt->vcpu, io);
	return (io->kind == SM_HV_EXIT_PIO || io->kind == SM_HV_EXIT_MMIO) && io->write == write;
}

/* One turn of the speed guest; nanoseconds, or 0 when it ended. */
static uint64_t turn(struct attempt *attempt, uint32_t count)
{
	if (!step(attempt, false))
		return 0;
	attempt->io.data = count;
	uint64_t start = now_ns();
	if (!step(attempt, true))
		return 0;
	uint64_t took = now_ns() - start;
	return took ? took : 1;
}

/* Instructions a second in a loop that takes long enough; 0: the guest did not do as it should. */
static uint64_t measure(struct attempt *attempt)
{
	uint32_t count = 1000;
	uint64_t took = turn(attempt, count);
	while (took && took < MEASURE_NS && count < TURNS_MAX) {
		count *= 4;
		took = turn(attempt, count);
	}
	if (!took)
		return 0;
	uint64_t loop = took > attempt->probe->exit_ns ? took - attempt->probe->exit_ns : 1;
	return UINT64_C(2000000000) * count / loop;
}

static void drive_speed(struct attempt *attempt)
{
	struct sm_kvm_probe *probe = attempt->probe;
	if (!turn(attempt, 1)) /* warm */
		return;
	uint64_t start = now_ns();
	for (unsigned i = 0; i < EXIT_ROUNDS; i++)
		if (!turn(attempt, 1))
			return;
	probe->exit_ns = (now_ns() - start) / (2 * EXIT_ROUNDS);

	for (unsigned i = 0; i < TRIES_MAX && probe->instructions_per_second < SPEED_MIN; i++) {
		uint64_t speed = measure(attempt);
		if (!speed)
			return;
		if (speed > probe->instructions_per_second)
			probe->instructions_per_second = speed;
	}
	attempt->ran = true;
}

static void drive_user(struct attempt *attempt)
{
	attempt->ran = step(attempt, true) && attempt->io.data == 0;
}

static void *run_attempt(void *arg)
{
	struct attempt *attempt = arg;
	const struct sm_hv_boot boot = {
		.kind = attempt->guest->boot,
		.entry = SM_KVM_PROBE_ENTRY,
		.page_table = attempt->guest->page_table,
	};
	int code = sm_hv_kvm.vcpu_new(attempt->vm, 0, &attempt->vcpu, &attempt->err);
	sm_fd_event_raise(attempt->made);
	if (code >= 0 && sm_hv_kvm.vcpu_boot(attempt->vcpu, &boot, &attempt->err) >= 0)
		attempt->drive(attempt);
	sm_fd_event_raise(attempt->done);
	return NULL;
}

/* A guest that does not come back is kicked out. */
static void try_thread(struct attempt *attempt)
{
	pthread_t thread;
	int code = sm_thread_start(&thread, "kvm-probe", run_attempt, attempt);
	if (code < 0) {
		sm_error_sys(&attempt->err, code, "start a thread");
		return;
	}
	sm_fd_wait(attempt->made, POLLIN, -1);
	if (sm_fd_wait(attempt->done, POLLIN, GUEST_TIMEOUT_MS) == 0 && attempt->vcpu)
		sm_hv_kvm.vcpu_kick(attempt->vcpu);
	pthread_join(thread, NULL);
	sm_hv_kvm.vcpu_free(attempt->vcpu);
}

static void try_ram(int fd, uint8_t *ram, struct attempt *attempt)
{
	const struct sm_plan plan = { .vcpus = 1 };
	memcpy(ram + SM_KVM_PROBE_ENTRY, attempt->guest->code, attempt->guest->bytes);
	if (attempt->guest->prepare)
		attempt->guest->prepare(ram);
	if (sm_hv_kvm.vm_new(fd, &plan, &attempt->vm, &attempt->err) < 0)
		return;
	if (sm_hv_kvm.vm_map(attempt->vm, 0, ram, SM_KVM_PROBE_RAM, 0, &attempt->err) >= 0 &&
	    sm_hv_kvm.vm_irqchip_new(attempt->vm, &attempt->err) >= 0)
		try_thread(attempt);
	sm_hv_kvm.vm_free(attempt->vm);
}

/* True when the guest did as it should; attempt->err is set when KVM failed to make one. */
static bool try_guest(int fd, struct attempt *attempt)
{
	int made SM_FD_CLEANUP = sm_fd_event();
	int done SM_FD_CLEANUP = sm_fd_event();
	uint8_t *ram = mmap(NULL, SM_KVM_PROBE_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (made < 0 || done < 0 || ram == MAP_FAILED) {
		sm_error_sys(&attempt->err, errno, "make a small guest");
	} else {
		attempt->made = made;
		attempt->done = done;
		try_ram(fd, ram, attempt);
	}
	if (ram != MAP_FAILED)
		munmap(ram, SM_KVM_PROBE_RAM);
	return attempt->ran;
}

/* ---- verdict -------------------------------------------------------------------------------------------------- */

static void check_speed(int fd, struct sm_kvm_probe *probe)
{
	struct attempt attempt = { .guest = &sm_kvm_probe_speed, .drive = drive_speed, .probe = probe };
	probe->usable = try_guest(fd, &attempt);
	if (attempt.err.code == EBUSY)
		reason(probe, "%s: another hypervisor holds the processor's virtualisation; stop it",
		       attempt.err.message);
	else if (attempt.err.code)
		reason(probe, "%s", attempt.err.message);
	else if (!probe->usable)
		reason(probe, "a guest of a few instructions did not run to its end: the host's KVM does not work");
	else if (probe->instructions_per_second < SPEED_MIN)
		reason(
		    probe,
		    "guest kernel mode runs %llu instructions a second, so it is emulated and a Linux guest would take "
		    "minutes to start: use a host with hardware virtualisation",
		    (unsigned long long)probe->instructions_per_second);
}

static void check_user(int fd, struct sm_kvm_probe *probe)
{
	struct attempt attempt = { .guest = &sm_kvm_probe_user, .drive = drive_user, .probe = probe };
	probe->user_mode = try_guest(fd, &attempt);
	if (attempt.err.code)
		reason(probe, "%s", attempt.err.message);
	else if (!probe->user_mode)
		reason(probe,
		       "a system call from guest user mode does not arrive in guest kernel mode, so programs of a "
		       "Linux guest cannot run: use a host with hardware virtualisation");
}

void sm_kvm_probe(const char *path, struct sm_kvm_probe *ret)
{
	memset(ret, 0, sizeof *ret);
	int fd SM_FD_CLEANUP = open_device(path, ret);
	if (fd < 0 || !check_device(fd, path, ret))
		return;
	check_speed(fd, ret);
	if (ret->usable)
		check_user(fd, ret);
	ret->fit = ret->usable && ret->nreasons == 0;
}
