#include "lua/hv_guest.h"

#include "base/fd.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define STATE_MAX  (1u << 20)
#define EVENTS_MAX 16u
#define MAPS_MAX   8u

#define ENTRY_OFFSET UINT64_C(0x100000)

struct vcpu {
	struct sm_hv_guest *guest;
	unsigned index;
	struct sm_hv_vcpu *hv_vcpu;
	struct sm_hv_exit io;
	struct sm_buf state;
	pthread_t thread;
	bool started;
	int done; /* eventfd: the task is through */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool quit;
	enum sm_hv_guest_task task; /* 0: none */
	int result;
	struct sm_error err;
};

struct map {
	uint64_t gpa, bytes;
	void *hva; /* NULL: free */
};

struct sm_hv_guest {
	const struct sm_hv *hv;
	int device;
	struct sm_plan plan;
	struct sm_hv_boot boot;
	struct sm_memory *memory;
	struct sm_hv_vm *vm;
	unsigned nvcpus;
	struct vcpu vcpus[SM_PLAN_VCPUS_MAX];
	unsigned nevents;
	int events[EVENTS_MAX];
	struct map maps[MAPS_MAX];
};

/* ---- on the vCPU's thread ------------------------------------------------------------------------------------- */

static int load(struct vcpu *vcpu, struct sm_error *err)
{
	struct sm_reader reader;
	sm_reader_init(&reader, vcpu->state.data, vcpu->state.len);
	int code = vcpu->guest->hv->vcpu_load(vcpu->hv_vcpu, &reader, err);
	return code < 0 ? code : !sm_reader_at_end(&reader);
}

static int boot(struct vcpu *vcpu, struct sm_error *err)
{
	const struct sm_hv_boot wait = { .kind = SM_HV_BOOT_WAIT };
	return vcpu->guest->hv->vcpu_boot(vcpu->hv_vcpu, vcpu->index ? &wait : &vcpu->guest->boot, err);
}

static int save(struct vcpu *vcpu, struct sm_error *err)
{
	sm_buf_clear(&vcpu->state);
	int code = vcpu->guest->hv->vcpu_save(vcpu->hv_vcpu, &vcpu->state, err);
	if (code >= 0 && sm_buf_failed(&vcpu->state))
		code = sm_error_sys(err, vcpu->state.failed, "vCPU state");
	return code;
}

static int perform(struct vcpu *vcpu, enum sm_hv_guest_task task, struct sm_error *err)
{
	const struct sm_hv *hv = vcpu->guest->hv;
	switch (task) {
	case SM_HV_GUEST_CREATE:
		return hv->vcpu_new(vcpu->guest->vm, vcpu->index, &vcpu->hv_vcpu, err);
	case SM_HV_GUEST_BOOT:
		return boot(vcpu, err);
	case SM_HV_GUEST_RUN:
		hv->vcpu_run(vcpu->hv_vcpu, &vcpu->io);
		return 0;
	case SM_HV_GUEST_SETTLE:
		return hv->vcpu_settle(vcpu->hv_vcpu, &vcpu->io, err);
	case SM_HV_GUEST_HALTED:
		return hv->vcpu_halted(vcpu->hv_vcpu);
	case SM_HV_GUEST_WHERE:
		return (int)(hv->vcpu_where(vcpu->hv_vcpu) & INT32_MAX);
	case SM_HV_GUEST_SAVE:
		return save(vcpu, err);
	case SM_HV_GUEST_LOAD:
		return load(vcpu, err);
	case SM_HV_GUEST_RESUMED:
		hv->vcpu_resumed(vcpu->hv_vcpu);
		return 0;
	}
	return sm_error_set(err, EINVAL, "no such task");
}

static void *thread_main(void *arg)
{
	struct vcpu *vcpu = arg;
	pthread_mutex_lock(&vcpu->lock);
	for (;;) {
		while (!vcpu->quit && !vcpu->task)
			pthread_cond_wait(&vcpu->changed, &vcpu->lock);
		if (!vcpu->task)
			break;
		enum sm_hv_guest_task task = vcpu->task;
		pthread_mutex_unlock(&vcpu->lock);
		struct sm_error err = { 0 };
		int result = perform(vcpu, task, &err);
		pthread_mutex_lock(&vcpu->lock);
		vcpu->result = result;
		vcpu->err = err;
		vcpu->task = 0;
		sm_fd_event_raise(vcpu->done);
	}
	pthread_mutex_unlock(&vcpu->lock);
	return NULL;
}

/* ---- tasks ---------------------------------------------------------------------------------------------------- */

int sm_hv_guest_begin(struct sm_hv_guest *guest, unsigned index, enum sm_hv_guest_task task)
{
	struct vcpu *vcpu = &guest->vcpus[index];
	pthread_mutex_lock(&vcpu->lock);
	int code = vcpu->task ? -EBUSY : 0;
	if (code == 0) {
		sm_fd_event_take(vcpu->done);
		vcpu->task = task;
		pthread_cond_signal(&vcpu->changed);
	}
	pthread_mutex_unlock(&vcpu->lock);
	return code;
}

int sm_hv_guest_wait(struct sm_hv_guest *guest, unsigned index, int timeout_ms, struct sm_error *err)
{
	struct vcpu *vcpu = &guest->vcpus[index];
	int ready = sm_fd_wait(vcpu->done, POLLIN, timeout_ms);
	if (ready <= 0)
		return sm_error_set(err, ready < 0 ? ready : ETIMEDOUT, "vCPU %u is still busy", index);
	pthread_mutex_lock(&vcpu->lock);
	int code = vcpu->result;
	if (code < 0 && err)
		*err = vcpu->err;
	pthread_mutex_unlock(&vcpu->lock);
	return code;
}

/* On every vCPU at once. */
static int all(struct sm_hv_guest *guest, enum sm_hv_guest_task task, struct sm_error *err)
{
	int code = 0;
	for (unsigned i = 0; i < guest->nvcpus; i++)
		sm_hv_guest_begin(guest, i, task);
	for (unsigned i = 0; i < guest->nvcpus; i++) {
		int one = sm_hv_guest_wait(guest, i, -1, code < 0 ? NULL : err);
		if (one < 0)
			code = one;
	}
	return code;
}

struct sm_hv_exit *sm_hv_guest_io(struct sm_hv_guest *guest, unsigned vcpu)
{
	return &guest->vcpus[vcpu].io;
}

struct sm_buf *sm_hv_guest_state(struct sm_hv_guest *guest, unsigned vcpu)
{
	return &guest->vcpus[vcpu].state;
}

void sm_hv_guest_kick(struct sm_hv_guest *guest, unsigned vcpu)
{
	guest->hv->vcpu_kick(guest->vcpus[vcpu].hv_vcpu);
}

/* ---- life ----------------------------------------------------------------------------------------------------- */

static int start_vcpu(struct sm_hv_guest *guest, unsigned index, struct sm_error *err)
{
	struct vcpu *vcpu = &guest->vcpus[index];
	vcpu->guest = guest;
	vcpu->index = index;
	sm_buf_init(&vcpu->state, STATE_MAX);
	pthread_mutex_init(&vcpu->lock, NULL);
	pthread_cond_init(&vcpu->changed, NULL);
	guest->nvcpus++;
	vcpu->done = sm_fd_event();
	if (vcpu->done < 0)
		return sm_error_sys(err, vcpu->done, "create an eventfd");
	int code = sm_thread_start(&vcpu->thread, "guest-vcpu", thread_main, vcpu);
	if (code < 0)
		return sm_error_sys(err, code, "start the thread of vCPU %u", index);
	vcpu->started = true;
	return 0;
}

static void end_vcpu(struct vcpu *vcpu)
{
	if (vcpu->started) {
		pthread_mutex_lock(&vcpu->lock);
		vcpu->quit = true;
		pthread_cond_signal(&vcpu->changed);
		pthread_mutex_unlock(&vcpu->lock);
		if (vcpu->hv_vcpu)
			vcpu->guest->hv->vcpu_kick(vcpu->hv_vcpu);
		pthread_join(vcpu->thread, NULL);
	}
	if (vcpu->hv_vcpu)
		vcpu->guest->hv->vcpu_free(vcpu->hv_vcpu);
	sm_fd_close(&vcpu->done);
	sm_buf_done(&vcpu->state);
	pthread_cond_destroy(&vcpu->changed);
	pthread_mutex_destroy(&vcpu->lock);
}

void sm_hv_guest_free(struct sm_hv_guest *guest)
{
	if (!guest)
		return;
	for (unsigned i = 0; i < guest->nvcpus; i++)
		end_vcpu(&guest->vcpus[i]);
	if (guest->vm)
		guest->hv->vm_free(guest->vm);
	for (unsigned i = 0; i < guest->nevents; i++)
		sm_fd_close(&guest->events[i]);
	for (unsigned i = 0; i < MAPS_MAX; i++)
		if (guest->maps[i].hva)
			munmap(guest->maps[i].hva, guest->maps[i].bytes);
	sm_memory_free(guest->memory);
	sm_fd_close(&guest->device);
	free(guest);
}

static int build_memory(struct sm_hv_guest *guest, const struct sm_hv_guest_options *options, struct sm_error *err)
{
	const struct sm_memory_region *regions;
	int code = sm_memory_new(&guest->plan, NULL, 0, &guest->memory, err);
	if (code < 0)
		return code;
	size_t count = sm_memory_regions(guest->memory, &regions);
	for (size_t i = 0; i < count && code >= 0; i++)
		code = guest->hv->vm_map(guest->vm, regions[i].gpa, regions[i].hva, regions[i].bytes, 0, err);
	if (code < 0)
		return code;
	code = sm_memory_write(guest->memory, guest->boot.entry, options->code, options->code_bytes);
	return code < 0 ? sm_error_sys(err, code, "code at 0x%llx", (unsigned long long)guest->boot.entry) : 0;
}

static int build(struct sm_hv_guest *guest, const struct sm_hv_guest_options *options, struct sm_error *err)
{
	const struct sm_plan_config config = {
		.arch = sm_plan_arch_host(),
		.vcpus = options->vcpus,
		.memory_mib = options->memory_mib,
		.cpu_disable = options->cpu_disable,
	};
	int code = sm_plan_make(&config, &guest->plan, err);
	if (code < 0)
		return code;
	guest->boot.entry = guest->plan.ram[0].gpa + ENTRY_OFFSET;
	guest->device = open(options->path, O_RDWR | O_CLOEXEC);
	if (guest->device < 0)
		return sm_error_sys(err, errno, "open %s", options->path);
	struct sm_hv_caps caps;
	code = guest->hv->caps(guest->device, &caps, err);
	if (code >= 0 && options->plain)
		guest->boot.kind = caps.plain_boot;
	if (code >= 0)
		code = guest->hv->vm_new(guest->device, &guest->plan, &guest->vm, err);
	if (code >= 0)
		code = build_memory(guest, options, err);
	if (code >= 0)
		code = guest->hv->vm_irqchip_new(guest->vm, err);
	for (unsigned i = 0; i < guest->plan.vcpus && code >= 0; i++)
		code = start_vcpu(guest, i, err);
	if (code >= 0)
		code = all(guest, SM_HV_GUEST_CREATE, err);
	if (code >= 0 && guest->boot.kind)
		code = all(guest, SM_HV_GUEST_BOOT, err);
	return code;
}

int sm_hv_guest_new(const struct sm_hv_guest_options *options, struct sm_hv_guest **ret_guest, struct sm_error *err)
{
	struct sm_hv_guest *guest = calloc(1, sizeof *guest);
	if (!guest)
		return sm_error_set(err, ENOMEM, "small guest: out of memory");
	guest->hv = sm_hv_host();
	guest->device = -1;
	guest->boot = options->boot;
	int code = build(guest, options, err);
	if (code < 0) {
		sm_hv_guest_free(guest);
		return code;
	}
	*ret_guest = guest;
	return 0;
}

const struct sm_hv *sm_hv_guest_hv(const struct sm_hv_guest *guest)
{
	return guest->hv;
}

struct sm_hv_vm *sm_hv_guest_vm(const struct sm_hv_guest *guest)
{
	return guest->vm;
}

struct sm_memory *sm_hv_guest_memory(const struct sm_hv_guest *guest)
{
	return guest->memory;
}

unsigned sm_hv_guest_vcpus(const struct sm_hv_guest *guest)
{
	return guest->nvcpus;
}

/* ---- events and memory ---------------------------------------------------------------------------------------- */

static int new_event(struct sm_hv_guest *guest, int *ret_fd, struct sm_error *err)
{
	if (guest->nevents == EVENTS_MAX)
		return sm_error_set(err, ENOSPC, "a small guest has at most %u eventfds", EVENTS_MAX);
	int fd = sm_fd_event();
	if (fd < 0)
		return sm_error_sys(err, fd, "create an eventfd");
	guest->events[guest->nevents++] = *ret_fd = fd;
	return 0;
}

int sm_hv_guest_ioeventfd(struct sm_hv_guest *guest, uint64_t gpa, int *ret_fd, struct sm_error *err)
{
	int code = new_event(guest, ret_fd, err);
	return code < 0 ? code : guest->hv->vm_ioeventfd(guest->vm, *ret_fd, gpa, err);
}

int sm_hv_guest_map(struct sm_hv_guest *guest, uint64_t gpa, uint64_t bytes, bool read_only, bool broken,
                    struct sm_error *err)
{
	struct map *map = guest->maps;
	while (map < guest->maps + MAPS_MAX && map->hva)
		map++;
	if (map == guest->maps + MAPS_MAX)
		return sm_error_set(err, ENOSPC, "a small guest has at most %u maps", MAPS_MAX);
	int protection = broken ? PROT_NONE : PROT_READ | PROT_WRITE;
	void *hva = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (hva == MAP_FAILED)
		return sm_error_sys(err, errno, "map 0x%llx bytes", (unsigned long long)bytes);
	int code = guest->hv->vm_map(guest->vm, gpa, hva, bytes, read_only ? SM_HV_MAP_READ_ONLY : 0, err);
	if (code < 0) {
		munmap(hva, bytes);
		return code;
	}
	*map = (struct map){ .gpa = gpa, .bytes = bytes, .hva = hva };
	return 0;
}

int sm_hv_guest_unmap(struct sm_hv_guest *guest, uint64_t gpa, struct sm_error *err)
{
	int code = guest->hv->vm_unmap(guest->vm, gpa, err);
	if (code < 0)
		return code;
	for (unsigned i = 0; i < MAPS_MAX; i++) {
		struct map *map = &guest->maps[i];
		if (map->hva && map->gpa == gpa) {
			munmap(map->hva, map->bytes);
			map->hva = NULL;
		}
	}
	return 0;
}
