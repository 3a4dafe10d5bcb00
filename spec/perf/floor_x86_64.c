/* The floor under a restore: what the kernel alone takes to bring a virtual machine back, with nothing of this
 * project around it.  One VM, RAM mapped MAP_PRIVATE from a file (what is over 3 GiB as a second slot, at 4 GiB), the
 * interrupt controllers, the vCPUs, the state set (CPUID, registers, XSAVE, local APIC, MSRs, interrupt controllers,
 * clock), and KVM_RUN until the first port access of vCPU 0.  The state is that of a guest that was stopped at such an
 * access.
 *
 * Prints one line a stage: name and median microseconds, "total" with them; then what it takes to bring the machine
 * back that is there: "stop", from a signal to the thread that runs the guest to its answer, "again", the state set
 * once more, and "copy", for KIB of pages copied back, every other one.  Then "p99" of the total.
 *
 *   cc -O2 -D_GNU_SOURCE -pthread -o floor spec/perf/floor_x86_64.c
 *   floor [VCPUS [RUNS [MIB [KIB]]]]        1, 50, 256 and 64 when not given */
#include "floor_x86_64.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <time.h>

#define VCPUS_MAX 16
#define RUNS_MAX  10000
#define ENTRIES   512
#define LOW_MIB   3072u /* what is more lies from 4 GiB on: below that are the local APIC and the like */

enum stage {
	STAGE_VM,
	STAGE_MEMORY,
	STAGE_IRQCHIP,
	STAGE_VCPUS,
	STAGE_STATE,
	STAGE_RUN,
	STAGE_TOTAL,
	STAGE_STOP,
	STAGE_AGAIN,
	STAGES
};
static const char *const names[] = { "vm", "memory", "irqchip", "vcpus", "state", "run", "total", "stop", "again" };

/* The kernel's own structures end in flexible arrays. */
struct cpuid_table {
	uint32_t count, padding;
	struct kvm_cpuid_entry2 entries[ENTRIES];
};

struct msr_table {
	uint32_t count, padding;
	struct kvm_msr_entry entries[ENTRIES];
};

struct vcpu_state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	uint32_t xsave[1024];
	struct kvm_lapic_state lapic;
	struct msr_table msrs;
	struct kvm_xcrs xcrs;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debug;
	struct kvm_mp_state mp;
};

struct machine {
	int vm;
	int vcpus[VCPUS_MAX];
	struct kvm_run *run; /* of the first vCPU */
	void *shared[VCPUS_MAX];
	void *ram;
};

static int kvm, ram_file, run_bytes;
static unsigned vcpus = 1, runs = 50, mib = 256;
static struct cpuid_table cpuid;
static struct vcpu_state states[VCPUS_MAX];
static struct kvm_irqchip chips[KVM_NR_IRQCHIPS];
static struct kvm_clock_data clock_data;
static double samples[STAGES][RUNS_MAX];

static double now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void lap(enum stage stage, unsigned run, double *since)
{
	double now = now_us();
	samples[stage][run] = now - *since;
	*since = now;
}

static void make_vm(struct machine *machine)
{
	machine->vm = call(kvm, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
	uint64_t identity_map = 0xfffbc000;
	call(machine->vm, KVM_SET_TSS_ADDR, (void *)0xfffbd000, "KVM_SET_TSS_ADDR");
	call(machine->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map, "KVM_SET_IDENTITY_MAP_ADDR");
}

static void set_slot(struct machine *machine, uint32_t slot, uint64_t gpa, uint64_t offset, uint64_t bytes)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = gpa,
		.memory_size = bytes,
		.userspace_addr = (uintptr_t)machine->ram + offset,
	};
	call(machine->vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
}

static void make_memory(struct machine *machine)
{
	uint64_t bytes = (uint64_t)mib << 20, low = (uint64_t)(mib < LOW_MIB ? mib : LOW_MIB) << 20;
	machine->ram = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, ram_file, 0);
	if (machine->ram == MAP_FAILED)
		fail("mmap");
	set_slot(machine, 0, 0, 0, low);
	if (bytes > low)
		set_slot(machine, 1, UINT64_C(4) << 30, low, bytes - low);
}

static void make_vcpus(struct machine *machine)
{
	for (unsigned i = 0; i < vcpus; i++)
		machine->vcpus[i] = call(machine->vm, KVM_CREATE_VCPU, (void *)(uintptr_t)i, "KVM_CREATE_VCPU");
	for (unsigned i = 0; i < vcpus; i++) {
		machine->shared[i] =
		    mmap(NULL, (size_t)run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, machine->vcpus[i], 0);
		if (machine->shared[i] == MAP_FAILED)
			fail("mmap of a vCPU");
	}
	machine->run = machine->shared[0];
}

/* As every machine of this project has it: no leaf of XSAVE without XSAVE, which an emulated KVM may offer, and which
 * changes what KVM_SET_CPUID2 takes. */
static void trim_cpuid(void)
{
	bool xsave = false;
	uint32_t kept = 0;
	for (uint32_t i = 0; i < cpuid.count; i++)
		if (cpuid.entries[i].function == 1)
			xsave = cpuid.entries[i].ecx >> 26 & 1;
	for (uint32_t i = 0; i < cpuid.count; i++)
		if (xsave || cpuid.entries[i].function != 0xd)
			cpuid.entries[kept++] = cpuid.entries[i];
	cpuid.count = kept;
}

/* The APIC ID, as in leaf 1; the rest is the host's. */
static void set_cpuid(int vcpu, unsigned index)
{
	for (unsigned i = 0; i < cpuid.count; i++)
		if (cpuid.entries[i].function == 1)
			cpuid.entries[i].ebx = (cpuid.entries[i].ebx & 0xffffff) | index << 24;
	call(vcpu, KVM_SET_CPUID2, &cpuid, "KVM_SET_CPUID2");
}

/* A vCPU that has run keeps its CPUID, and may have changed what a new one has as it should be. */
static void set_state(struct machine *machine, bool used)
{
	for (unsigned i = 0; i < vcpus; i++) {
		int vcpu = machine->vcpus[i];
		struct vcpu_state *state = &states[i];
		if (used) {
			call(vcpu, KVM_SET_XCRS, &state->xcrs, "KVM_SET_XCRS");
			call(vcpu, KVM_SET_VCPU_EVENTS, &state->events, "KVM_SET_VCPU_EVENTS");
			call(vcpu, KVM_SET_DEBUGREGS, &state->debug, "KVM_SET_DEBUGREGS");
			call(vcpu, KVM_SET_MP_STATE, &state->mp, "KVM_SET_MP_STATE");
		} else {
			set_cpuid(vcpu, i);
		}
		call(vcpu, KVM_SET_SREGS, &state->sregs, "KVM_SET_SREGS");
		call(vcpu, KVM_SET_XSAVE, state->xsave, "KVM_SET_XSAVE");
		call(vcpu, KVM_SET_REGS, &state->regs, "KVM_SET_REGS");
		call(vcpu, KVM_SET_LAPIC, &state->lapic, "KVM_SET_LAPIC");
		call(vcpu, KVM_SET_MSRS, &state->msrs, "KVM_SET_MSRS");
	}
	for (unsigned i = 0; i < KVM_NR_IRQCHIPS; i++)
		call(machine->vm, KVM_SET_IRQCHIP, &chips[i], "KVM_SET_IRQCHIP");
	call(machine->vm, KVM_SET_CLOCK, &clock_data, "KVM_SET_CLOCK");
}

/* ---- a guest that runs, and is stopped ------------------------------------------------------------------------ */

struct runner {
	struct machine *machine;
	pthread_t thread;
	atomic_uint exits;
	sem_t stopped;
};

static void *run_guest(void *arg)
{
	struct runner *runner = arg;
	while (ioctl(runner->machine->vcpus[0], KVM_RUN, NULL) >= 0)
		atomic_fetch_add(&runner->exits, 1);
	if (errno != EINTR)
		fail("KVM_RUN");
	sem_post(&runner->stopped);
	return NULL;
}

static void ignore(int signal)
{
	(void)signal;
}

static double stop_guest(struct machine *machine)
{
	struct runner runner = { .machine = machine };
	sem_init(&runner.stopped, 0, 0);
	signal(SIGUSR1, ignore);
	if (pthread_create(&runner.thread, NULL, run_guest, &runner))
		fail("pthread_create");
	while (!atomic_load(&runner.exits))
		usleep(100);
	double start = now_us();
	machine->run->immediate_exit = 1; /* for a signal that comes between two runs */
	pthread_kill(runner.thread, SIGUSR1);
	while (sem_wait(&runner.stopped) < 0)
		;
	double us = now_us() - start;
	machine->run->immediate_exit = 0;
	pthread_join(runner.thread, NULL);
	sem_destroy(&runner.stopped);
	return us;
}

static void end(struct machine *machine)
{
	for (unsigned i = 0; i < vcpus; i++) {
		munmap(machine->shared[i], (size_t)run_bytes);
		close(machine->vcpus[i]);
	}
	close(machine->vm);
	munmap(machine->ram, (size_t)mib << 20);
}

/* ---- the state to go back to ---------------------------------------------------------------------------------- */

/* Every MSR that KVM lists and that can be read and written. */
static void get_msrs(int vcpu, struct msr_table *table)
{
	struct {
		uint32_t count;
		uint32_t indices[ENTRIES];
	} list = { .count = ENTRIES };
	call(kvm, KVM_GET_MSR_INDEX_LIST, &list, "KVM_GET_MSR_INDEX_LIST");
	table->count = 0;
	for (uint32_t i = 0; i < list.count; i++) {
		struct {
			uint32_t count, padding;
			struct kvm_msr_entry entry;
		} one = { .count = 1, .entry.index = list.indices[i] };
		if (ioctl(vcpu, KVM_GET_MSRS, &one) == 1 && ioctl(vcpu, KVM_SET_MSRS, &one) == 1)
			table->entries[table->count++] = one.entry;
	}
}

static void get_state(struct machine *machine)
{
	for (unsigned i = 0; i < vcpus; i++) {
		int vcpu = machine->vcpus[i];
		struct vcpu_state *state = &states[i];
		call(vcpu, KVM_GET_SREGS, &state->sregs, "KVM_GET_SREGS");
		call(vcpu, KVM_GET_XSAVE, state->xsave, "KVM_GET_XSAVE");
		call(vcpu, KVM_GET_REGS, &state->regs, "KVM_GET_REGS");
		call(vcpu, KVM_GET_LAPIC, &state->lapic, "KVM_GET_LAPIC");
		call(vcpu, KVM_GET_XCRS, &state->xcrs, "KVM_GET_XCRS");
		call(vcpu, KVM_GET_VCPU_EVENTS, &state->events, "KVM_GET_VCPU_EVENTS");
		call(vcpu, KVM_GET_DEBUGREGS, &state->debug, "KVM_GET_DEBUGREGS");
		call(vcpu, KVM_GET_MP_STATE, &state->mp, "KVM_GET_MP_STATE");
		get_msrs(vcpu, &state->msrs);
	}
	for (unsigned i = 0; i < KVM_NR_IRQCHIPS; i++) {
		chips[i].chip_id = i;
		call(machine->vm, KVM_GET_IRQCHIP, &chips[i], "KVM_GET_IRQCHIP");
	}
	call(machine->vm, KVM_GET_CLOCK, &clock_data, "KVM_GET_CLOCK");
	clock_data.flags = 0;
}

static void prepare(void)
{
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		fail("/dev/kvm");
	run_bytes = call(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE");
	cpuid.count = ENTRIES;
	call(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid, "KVM_GET_SUPPORTED_CPUID");
	trim_cpuid();
	ram_file = make_ram((size_t)mib << 20);

	struct machine machine;
	make_vm(&machine);
	make_memory(&machine);
	call(machine.vm, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP");
	make_vcpus(&machine);
	for (unsigned i = 0; i < vcpus; i++)
		set_cpuid(machine.vcpus[i], i);
	start_flat(machine.vcpus[0]);
	run_to_port(machine.vcpus[0], machine.run);
	machine.run->immediate_exit = 1; /* finish the access */
	ioctl(machine.vcpus[0], KVM_RUN, NULL);
	get_state(&machine);
	end(&machine);
}

/* ---- measure -------------------------------------------------------------------------------------------------- */

static void measure(unsigned run)
{
	struct machine machine;
	double start = now_us(), since = start;
	make_vm(&machine);
	lap(STAGE_VM, run, &since);
	make_memory(&machine);
	lap(STAGE_MEMORY, run, &since);
	call(machine.vm, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP");
	lap(STAGE_IRQCHIP, run, &since);
	make_vcpus(&machine);
	lap(STAGE_VCPUS, run, &since);
	set_state(&machine, false);
	lap(STAGE_STATE, run, &since);
	run_to_port(machine.vcpus[0], machine.run);
	lap(STAGE_RUN, run, &since);
	samples[STAGE_TOTAL][run] = since - start;
	samples[STAGE_STOP][run] = stop_guest(&machine);
	since = now_us();
	set_state(&machine, true);
	lap(STAGE_AGAIN, run, &since);
	end(&machine);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static unsigned argument(int argc, char **argv, int index, unsigned fallback, unsigned most)
{
	if (index >= argc)
		return fallback;
	char *rest;
	unsigned long value = strtoul(argv[index], &rest, 10);
	if (*rest || value < 1 || value > most) {
		fprintf(stderr, "usage: floor [VCPUS [RUNS [MIB [KIB]]]]\n");
		exit(2);
	}
	return (unsigned)value;
}

/* What a guest does between two resets, to the caches. */
static void use_caches(void)
{
	static char other[64 << 20];
	for (size_t at = 0; at < sizeof other; at += 64)
		((volatile char *)other)[at]++;
}

/* Pages of a private mapping of the RAM file, each written to, made what the file says: by plain copies of pages, every
 * other one, and not one system call. */
static double copy_median(unsigned kib)
{
	const size_t pages = kib / 4 ? kib / 4 : 1, bytes = pages * 8192;
	if (ftruncate(ram_file, (off_t)bytes) < 0)
		fail("RAM file");
	char *from = mmap(NULL, bytes, PROT_READ, MAP_SHARED, ram_file, 0);
	char *to = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, ram_file, 0);
	if (from == MAP_FAILED || to == MAP_FAILED)
		fail("mmap");
	for (unsigned run = 0; run < runs; run++) {
		for (size_t at = 0; at < bytes; at += 8192)
			to[at] = (char)run;
		use_caches();
		double start = now_us();
		for (size_t at = 0; at < bytes; at += 8192)
			memcpy(to + at, from + at, 4096);
		samples[0][run] = now_us() - start;
	}
	qsort(samples[0], runs, sizeof(double), compare);
	munmap(from, bytes);
	munmap(to, bytes);
	return samples[0][runs / 2];
}

int main(int argc, char **argv)
{
	vcpus = argument(argc, argv, 1, vcpus, VCPUS_MAX);
	runs = argument(argc, argv, 2, runs, RUNS_MAX);
	mib = argument(argc, argv, 3, mib, 1u << 20);
	unsigned kib = argument(argc, argv, 4, 64, 1u << 20);
	prepare();
	for (unsigned run = 0; run < runs; run++)
		measure(run);
	for (int stage = 0; stage < STAGES; stage++) {
		qsort(samples[stage], runs, sizeof(double), compare);
		printf("%s %.1f\n", names[stage], samples[stage][runs / 2]);
	}
	printf("p99 %.1f\n", samples[STAGE_TOTAL][runs * 99 / 100]);
	printf("copy %.1f\n", copy_median(kib));
	return 0;
}
