#include "machine/request.h"

#include "machine/machine.h"
#include "machine/platform.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void sm_message_init(struct sm_message *message)
{
	sm_buf_init(&message->body, SM_REQUEST_MAX);
	message->nfds = 0;
}

void sm_message_done(struct sm_message *message)
{
	sm_buf_done(&message->body);
}

void sm_message_close_fds(struct sm_message *message)
{
	for (size_t i = 0; i < message->nfds; i++)
		sm_fd_close(&message->fds[i]);
	message->nfds = 0;
}

void sm_message_put_fd(struct sm_message *message, int fd)
{
	if (fd >= 0 && message->nfds == SM_FD_PASS_MAX) {
		message->body.failed = -E2BIG;
		return;
	}
	sm_put_u32(&message->body, fd < 0 ? UINT32_MAX : (uint32_t)message->nfds);
	if (fd >= 0)
		message->fds[message->nfds++] = fd;
}

int sm_message_get_fd(struct sm_reader *reader, const struct sm_message *message)
{
	uint32_t index = sm_get_u32(reader);
	if (index == UINT32_MAX)
		return -1;
	if (index >= message->nfds) {
		reader->failed = true;
		return -1;
	}
	return message->fds[index];
}

/* ---- build -------------------------------------------------------------------------------------------------- */

/* Pieces as they lie in memory: both ends are this program. */
static void put_ram(struct sm_message *request, const struct sm_memory_source *ram)
{
	sm_put_u32(&request->body, ram ? ram->nfiles : 0);
	for (unsigned i = 0; ram && i < ram->nfiles; i++)
		sm_message_put_fd(request, ram->files[i]);
	sm_put_bytes(&request->body, ram ? ram->pieces : NULL, ram ? ram->npieces * sizeof *ram->pieces : 0);
	sm_put_u8(&request->body, ram && ram->watched);
	sm_memory_extents_put(&request->body, ram ? &ram->written : &(struct sm_memory_extents){ 0 });
}

static int get_ram(struct sm_reader *in, const struct sm_message *request, struct sm_memory_source *ret)
{
	uint32_t nfiles = sm_get_u32(in);
	if (in->failed || nfiles > SM_MEMORY_FILES_MAX)
		return -EBADMSG;
	for (; ret->nfiles < nfiles; ret->nfiles++)
		ret->files[ret->nfiles] = sm_message_get_fd(in, request);
	size_t len = 0;
	const void *pieces = sm_get_bytes(in, &len);
	ret->watched = sm_get_u8(in) != 0;
	if (in->failed || len % sizeof *ret->pieces || len / sizeof *ret->pieces > SM_MEMORY_PIECES_MAX)
		return -EBADMSG;
	ret->pieces = malloc(len + 1);
	if (!ret->pieces)
		return -ENOMEM;
	if (len)
		memcpy(ret->pieces, pieces, len);
	ret->npieces = len / sizeof *ret->pieces;
	return sm_memory_extents_get(in, UINT64_MAX, &ret->written, NULL);
}

void sm_request_put_build(struct sm_message *request, const struct sm_control_build *build)
{
	sm_plan_put(&request->body, build->plan);
	sm_message_put_fd(request, build->hv_fd);
	sm_message_put_fd(request, build->kernel_fd);
	sm_message_put_fd(request, build->initrd_fd);
	sm_message_put_fd(request, build->state_fd);
	put_ram(request, build->ram);
	sm_put_u32(&request->body, build->ndisks);
	for (unsigned i = 0; i < build->ndisks; i++)
		sm_request_put_disk(request, &build->disks[i]);
	sm_put_u32(&request->body, build->nvolumes);
	for (unsigned i = 0; i < build->nvolumes; i++)
		sm_request_put_volume(request, &build->volumes[i]);
	sm_put_u32(&request->body, build->nmounts);
	for (unsigned i = 0; i < build->nmounts; i++)
		sm_request_put_mount(request, &build->mounts[i]);
}

/* What a machine is built from, as it comes out of a request. */
struct parts {
	struct sm_plan plan;
	struct sm_memory_source ram;
	struct sm_disk disks[SM_PLAN_SLOTS_MAX];
	struct sm_volume volumes[SM_PLAN_SLOTS_MAX];
	struct sm_request_backing *backings; /* of the mounts; most machines have none */
	struct sm_mount *mounts;
};

static int get_disks(struct sm_reader *in, const struct sm_message *request, struct parts *parts,
                     struct sm_control_build *build, struct sm_error *err)
{
	build->disks = parts->disks;
	build->ndisks = sm_get_u32(in);
	if (in->failed || build->ndisks > SM_PLAN_SLOTS_MAX)
		return sm_error_sys(err, EBADMSG, "build request");
	for (unsigned i = 0; i < build->ndisks; i++) {
		int code = sm_request_get_disk(in, request, &parts->disks[i]);
		if (code < 0)
			return sm_error_sys(err, code, "build request: disk %u", i);
	}
	return 0;
}

static int get_volumes(struct sm_reader *in, const struct sm_message *request, struct parts *parts,
                       struct sm_control_build *build, struct sm_error *err)
{
	build->volumes = parts->volumes;
	build->nvolumes = sm_get_u32(in);
	int code = in->failed || build->nvolumes > SM_PLAN_SLOTS_MAX ? -EBADMSG : 0;
	for (unsigned i = 0; i < build->nvolumes && code == 0; i++)
		code = sm_request_get_volume(in, request, &parts->volumes[i]);
	return code < 0 ? sm_error_sys(err, code, "build request: volumes") : 0;
}

static int get_mounts(struct sm_reader *in, const struct sm_message *request, struct parts *parts,
                      struct sm_control_build *build, struct sm_error *err)
{
	build->nmounts = sm_get_u32(in);
	if (in->failed || build->nmounts > SM_PLAN_SLOTS_MAX)
		return sm_error_sys(err, EBADMSG, "build request");
	if (build->nmounts == 0)
		return 0;
	parts->backings = calloc(build->nmounts, sizeof *parts->backings);
	parts->mounts = calloc(build->nmounts, sizeof *parts->mounts);
	if (!parts->backings || !parts->mounts)
		return sm_error_set(err, ENOMEM, "build: out of memory");
	for (unsigned i = 0; i < build->nmounts; i++) {
		int code = sm_request_get_mount(in, request, &parts->backings[i]);
		if (code < 0)
			return sm_error_sys(err, code, "build request: mount %u", i);
		parts->mounts[i] = parts->backings[i].mount;
	}
	build->mounts = parts->mounts;
	return 0;
}

static int get_build(struct sm_reader *in, const struct sm_message *request, struct parts *parts,
                     struct sm_control_build *build, struct sm_error *err)
{
	int code = sm_plan_get(in, &parts->plan, err);
	if (code < 0)
		return code;
	build->plan = &parts->plan;
	build->hv_fd = sm_message_get_fd(in, request);
	build->kernel_fd = sm_message_get_fd(in, request);
	build->initrd_fd = sm_message_get_fd(in, request);
	build->state_fd = sm_message_get_fd(in, request);
	code = get_ram(in, request, &parts->ram);
	if (code < 0)
		return sm_error_sys(err, code, "build request: RAM");
	build->ram = parts->ram.nfiles ? &parts->ram : NULL;
	code = get_disks(in, request, parts, build, err);
	if (code >= 0)
		code = get_volumes(in, request, parts, build, err);
	return code < 0 ? code : get_mounts(in, request, parts, build, err);
}

static int serve_build(struct sm_machine **machine, int end_fd, struct sm_reader *in, const struct sm_message *request,
                       struct sm_error *err)
{
	struct sm_control_build build = { 0 };
	struct parts *parts = calloc(1, sizeof *parts);
	if (!parts)
		return sm_error_set(err, ENOMEM, "build: out of memory");
	int code = get_build(in, request, parts, &build, err);
	if (code >= 0)
		code = sm_machine_build(&build, end_fd, machine, err);
	for (unsigned i = 0; i < build.ndisks && i < SM_PLAN_SLOTS_MAX; i++)
		free((void *)(uintptr_t)parts->disks[i].segments);
	free(parts->backings);
	free(parts->mounts);
	sm_memory_source_done(&parts->ram);
	free(parts);
	return code;
}

/* ---- the rest ----------------------------------------------------------------------------------------------- */

static struct sm_virtio *find_device(struct sm_machine *machine, enum sm_plan_kind kind)
{
	for (unsigned i = 0; i < machine->plan.nslots; i++)
		if (machine->plan.slots[i].kind == kind)
			return machine->devices[i].virtio;
	return NULL;
}

/* The first slot of the kind that has nothing behind it. */
static int serve_back(struct sm_machine *machine, struct sm_reader *in, const struct sm_message *request,
                      struct sm_message *reply, struct sm_error *err)
{
	enum sm_plan_kind kind = sm_get_u32(in);
	struct sm_request_backing got;
	struct sm_backing backing;
	unsigned i = 0, slots = 0;
	for (; i < machine->plan.nslots; i++) {
		slots += machine->plan.slots[i].kind == kind;
		if (machine->plan.slots[i].kind == kind && !machine->plan.slots[i].backed && !machine->backed_later[i])
			break;
	}
	if (i == machine->plan.nslots)
		return sm_error_set(err, ENOSPC, "%s: the machine has %u slots, and something behind each",
		                    sm_plan_kind_name(kind), slots);
	int code = sm_request_get_backing(in, request, &got, &backing);
	if (code < 0)
		return sm_error_sys(err, code, "back request");
	code = sm_virtio_back(machine->devices[i].virtio, &backing, err);
	sm_request_backing_done(&got);
	if (code < 0)
		return code;
	machine->backed_later[i] = true;
	sm_put_u32(&reply->body, i);
	return 0;
}

static int serve_stream(struct sm_machine *machine, uint32_t op, struct sm_reader *in, struct sm_message *reply,
                        struct sm_error *err)
{
	struct sm_virtio *vsock = find_device(machine, SM_PLAN_VSOCK);
	if (!vsock)
		return sm_error_set(err, ENODEV, "the machine has no vsock device");
	uint32_t port = sm_get_u32(in);
	int fd = -1;
	int code = op == SM_REQUEST_CONNECT ? sm_virtio_vsock_connect(vsock, port, &fd, err)
	                                    : sm_virtio_vsock_listen(vsock, port, &fd, err);
	if (code >= 0)
		sm_message_put_fd(reply, fd);
	return code;
}

static int serve_capture(struct sm_machine *machine, struct sm_reader *in, const struct sm_message *request,
                         struct sm_error *err)
{
	struct sm_control_volume volumes[SM_PLAN_SLOTS_MAX];
	int ram_fd = sm_message_get_fd(in, request), state_fd = sm_message_get_fd(in, request);
	if (ram_fd < 0 || state_fd < 0)
		return sm_error_set(err, EBADF, "capture: two descriptors are needed");
	bool differing = sm_get_u8(in) != 0;
	uint32_t nvolumes = sm_get_u32(in);
	for (uint32_t i = 0; i < nvolumes && i < SM_PLAN_SLOTS_MAX; i++) {
		volumes[i].index = sm_get_u32(in);
		volumes[i].fd = sm_message_get_fd(in, request);
	}
	if (in->failed || nvolumes > SM_PLAN_SLOTS_MAX)
		return sm_error_set(err, EBADMSG, "capture request: malformed");
	return sm_machine_capture_begin(machine, ram_fd, state_fd, volumes, nvolumes, differing, err);
}

static int serve_volumes(struct sm_machine *machine, struct sm_message *reply)
{
	struct sm_volume volumes[SM_PLAN_SLOTS_MAX];
	unsigned count = sm_machine_volumes(machine, volumes);
	sm_put_u32(&reply->body, count);
	for (unsigned i = 0; i < count; i++) {
		sm_put_u32(&reply->body, volumes[i].index);
		sm_put_u8(&reply->body, volumes[i].readonly);
		sm_put_u8(&reply->body, volumes[i].as_writable);
		sm_put_u64(&reply->body, volumes[i].bytes);
	}
	return 0;
}

static int serve_capture_step(struct sm_machine *machine, struct sm_message *reply, struct sm_error *err)
{
	bool more;
	int code = sm_machine_capture_step(machine, &more, err);
	if (code >= 0)
		sm_put_u8(&reply->body, more);
	return code;
}

static int serve_capture_end(struct sm_machine *machine, struct sm_message *reply, struct sm_error *err)
{
	struct sm_control_captured captured;
	struct sm_memory_extents extents = { 0 };
	int code = sm_machine_capture_end(machine, &captured, &extents, err);
	if (code < 0)
		return code;
	sm_put_u64(&reply->body, captured.ram_bytes);
	sm_put_u64(&reply->body, captured.written_bytes);
	sm_put_u64(&reply->body, captured.pause_us);
	sm_put_u64(&reply->body, captured.volumes_us);
	sm_put_u32(&reply->body, captured.rounds);
	sm_memory_extents_put(&reply->body, &extents);
	sm_memory_extents_done(&extents);
	return 0;
}

static int serve_reset(struct sm_machine *machine, struct sm_message *reply, struct sm_error *err)
{
	struct sm_control_reset reset;
	int code = sm_machine_reset(machine, &reset, err);
	if (code < 0)
		return code;
	sm_put_u64(&reply->body, reset.copied_bytes);
	sm_put_u64(&reply->body, reset.dropped_bytes);
	sm_put_u32(&reply->body, reset.stop_us);
	sm_put_u32(&reply->body, reset.memory_us);
	sm_put_u32(&reply->body, reset.total_us);
	return 0;
}

static int serve_balloon(struct sm_machine *machine, struct sm_reader *in, struct sm_error *err)
{
	struct sm_virtio *balloon = find_device(machine, SM_PLAN_BALLOON);
	uint64_t mib = sm_get_u64(in);
	if (!balloon)
		return sm_error_set(err, ENODEV, "the machine has no balloon");
	if (mib > machine->plan.memory_mib)
		return sm_error_set(err, EINVAL, "balloon: %llu MiB of %llu", (unsigned long long)mib,
		                    (unsigned long long)machine->plan.memory_mib);
	int code = sm_virtio_balloon_set(balloon, (uint32_t)(mib * (SM_MIB / SM_MEMORY_PAGE)));
	return code < 0 ? sm_error_sys(err, code, "balloon") : 0;
}

static int serve_console(struct sm_machine *machine, struct sm_reader *in, struct sm_message *reply,
                         struct sm_error *err)
{
	uint64_t cursor = sm_get_u64(in), lost = 0;
	struct sm_buf text SM_BUF_CLEANUP;
	sm_buf_init(&text, SM_REQUEST_MAX / 2);
	int code = sm_ring_read(sm_platform_console(machine->platform), &cursor, &text, &lost);
	if (code < 0)
		return sm_error_sys(err, code, "console");
	sm_put_u64(&reply->body, cursor);
	sm_put_u64(&reply->body, lost);
	sm_put_bytes(&reply->body, text.data, text.len);
	return 0;
}

static int serve_devices(struct sm_machine *machine, struct sm_message *reply)
{
	sm_put_u32(&reply->body, machine->plan.nslots);
	for (unsigned i = 0; i < machine->plan.nslots; i++) {
		struct sm_virtio_stats stats;
		sm_virtio_stats(machine->devices[i].virtio, &stats);
		sm_put_u64(&reply->body, stats.requests);
		sm_put_u64(&reply->body, stats.bytes);
		sm_put_u64(&reply->body, stats.errors);
		sm_put_u64(&reply->body, stats.full);
		sm_put_u64(&reply->body, stats.kicks);
		sm_put_u64(&reply->body, stats.interrupts);
		/* As it lies in memory: both ends are this program. */
		struct sm_fuse_stats fs;
		bool has_fs = sm_virtio_fs_stats(machine->devices[i].virtio, &fs);
		sm_put_u8(&reply->body, has_fs);
		if (has_fs)
			sm_put_bytes(&reply->body, &fs, sizeof fs);
	}
	return 0;
}

static int serve_statistics(struct sm_machine *machine, struct sm_message *reply)
{
	uint64_t exits = 0, mmio = 0, pio = 0, kicks = 0, unhandled = 0;
	for (unsigned i = 0; i < machine->nvcpus; i++) {
		const struct sm_vcpu_stats *stats = sm_vcpu_stats(machine->vcpus[i]);
		exits += atomic_load_explicit(&stats->exits, memory_order_relaxed);
		mmio += atomic_load_explicit(&stats->mmio, memory_order_relaxed);
		pio += atomic_load_explicit(&stats->pio, memory_order_relaxed);
		kicks += atomic_load_explicit(&stats->kicks, memory_order_relaxed);
		unhandled += atomic_load_explicit(&stats->unhandled, memory_order_relaxed);
	}
	struct sm_virtio *balloon = find_device(machine, SM_PLAN_BALLOON);
	sm_put_u64(&reply->body, exits);
	sm_put_u64(&reply->body, mmio);
	sm_put_u64(&reply->body, pio);
	sm_put_u64(&reply->body, kicks);
	sm_put_u64(&reply->body, unhandled);
	sm_put_u32(&reply->body, balloon ? sm_virtio_balloon_actual(balloon) / (uint32_t)(SM_MIB / SM_MEMORY_PAGE) : 0);
	return 0;
}

/* As it lies in memory: both ends are this program. */
static int serve_times(struct sm_machine *machine, struct sm_message *reply)
{
	struct sm_control_times times = machine->times;
	times.first_run_us = (uint32_t)atomic_load(&machine->first_exit_us);
	sm_put_bytes(&reply->body, &times, sizeof times);
	return 0;
}

static int serve_touched(struct sm_machine *machine, struct sm_reader *in, const struct sm_message *request,
                         struct sm_message *reply, struct sm_error *err)
{
	struct sm_memory_touched touched;
	int pagemap_fd = sm_message_get_fd(in, request);
	if (pagemap_fd < 0)
		return sm_error_set(err, EBADF, "touched pages: a descriptor is needed");
	int code = sm_memory_touched(machine->memory, pagemap_fd, &touched, err);
	if (code < 0)
		return code;
	sm_memory_touched_put(&reply->body, &touched);
	sm_memory_touched_done(&touched);
	return 0;
}

static int dispatch(struct sm_machine **machine, int end_fd, uint32_t op, const struct sm_message *request,
                    struct sm_message *reply, struct sm_error *err)
{
	struct sm_reader in;
	sm_reader_init(&in, request->body.data, request->body.len);

	if ((op == SM_REQUEST_BUILD) != (*machine == NULL))
		return sm_error_set(err, EINVAL, "control request %u: the machine is %s", op,
		                    *machine ? "built already" : "not built");
	switch (op) {
	case SM_REQUEST_BUILD:
		return serve_build(machine, end_fd, &in, request, err);
	case SM_REQUEST_RESUME:
		return sm_machine_resume(*machine, err);
	case SM_REQUEST_PAUSE:
		return sm_machine_pause(*machine, err);
	case SM_REQUEST_CAPTURE:
		return serve_capture(*machine, &in, request, err);
	case SM_REQUEST_CAPTURE_STEP:
		return serve_capture_step(*machine, reply, err);
	case SM_REQUEST_CAPTURE_END:
		return serve_capture_end(*machine, reply, err);
	case SM_REQUEST_RESET:
		return serve_reset(*machine, reply, err);
	case SM_REQUEST_BACK:
		return serve_back(*machine, &in, request, reply, err);
	case SM_REQUEST_CONNECT:
	case SM_REQUEST_LISTEN:
		return serve_stream(*machine, op, &in, reply, err);
	case SM_REQUEST_GENERATION: {
		uint8_t guid[16];
		sm_get_exact(&in, guid, sizeof guid);
		return in.failed ? sm_error_set(err, EBADMSG, "generation request: malformed")
		                 : sm_machine_set_generation(*machine, guid, err);
	}
	case SM_REQUEST_BALLOON:
		return serve_balloon(*machine, &in, err);
	case SM_REQUEST_CONSOLE:
		return serve_console(*machine, &in, reply, err);
	case SM_REQUEST_DEVICES:
		return serve_devices(*machine, reply);
	case SM_REQUEST_STATISTICS:
		return serve_statistics(*machine, reply);
	case SM_REQUEST_TIMES:
		return serve_times(*machine, reply);
	case SM_REQUEST_TOUCHED:
		return serve_touched(*machine, &in, request, reply, err);
	case SM_REQUEST_VOLUMES:
		return serve_volumes(*machine, reply);
	}
	return sm_error_set(err, ENOSYS, "control request %u is unknown", op);
}

int sm_request_serve(struct sm_machine **machine, int end_fd, uint32_t op, const struct sm_message *request,
                     struct sm_message *reply, struct sm_error *err)
{
	int code = dispatch(machine, end_fd, op, request, reply, err);
	if (code < 0 || !sm_buf_failed(&reply->body))
		return code;
	/* What was done has no answer: to whoever asked it is as if it had failed. */
	sm_message_close_fds(reply);
	if (op == SM_REQUEST_BUILD) {
		sm_machine_free(*machine);
		*machine = NULL;
	}
	return sm_error_sys(err, reply->body.failed, "control request %u: its answer", op);
}
