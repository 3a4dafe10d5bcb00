/* A small guest directly on the hypervisor's back end, without a machine around it: what the back end's specs drive.
 *
 * Each vCPU has its own thread and a mailbox.  All calls from one thread, the Lua one. */
#ifndef SM_LUA_HV_GUEST_H
#define SM_LUA_HV_GUEST_H

#include "base/buf.h"
#include "hv/hv.h"
#include "memory/memory.h"

struct sm_hv_guest;

struct sm_hv_guest_options {
	const char *path; /* of the hypervisor's device */
	unsigned vcpus;
	uint64_t memory_mib;
	const char *cpu_disable; /* or NULL */
	const void *code;        /* goes 1 MiB into RAM */
	size_t code_bytes;
	/* Of vCPU 0, at the code; the others wait.  plain: the back end's choice; kind 0: none is booted, all are to be
	 * loaded. */
	bool plain;
	struct sm_hv_boot boot;
};

int sm_hv_guest_new(const struct sm_hv_guest_options *options, struct sm_hv_guest **ret_guest, struct sm_error *err);
void sm_hv_guest_free(struct sm_hv_guest *guest);

const struct sm_hv *sm_hv_guest_hv(const struct sm_hv_guest *guest);
struct sm_hv_vm *sm_hv_guest_vm(const struct sm_hv_guest *guest);
struct sm_memory *sm_hv_guest_memory(const struct sm_hv_guest *guest);
unsigned sm_hv_guest_vcpus(const struct sm_hv_guest *guest);

/* What a vCPU's thread is asked to do. */
enum sm_hv_guest_task {
	SM_HV_GUEST_CREATE = 1,
	SM_HV_GUEST_BOOT,
	SM_HV_GUEST_RUN,    /* io */
	SM_HV_GUEST_SETTLE, /* io; result 1: another access */
	SM_HV_GUEST_HALTED, /* result 0 or 1 */
	SM_HV_GUEST_WHERE,  /* result: 31 bits of it */
	SM_HV_GUEST_SAVE,   /* state */
	SM_HV_GUEST_LOAD,   /* state; result 1: bytes were left over */
	SM_HV_GUEST_RESUMED,
};
/* begin: -EBUSY while the last task is under way.  wait: its result, or -ETIMEDOUT (timeout_ms < 0: no limit), and
 * it can be waited for again. */
int sm_hv_guest_begin(struct sm_hv_guest *guest, unsigned vcpu, enum sm_hv_guest_task task);
int sm_hv_guest_wait(struct sm_hv_guest *guest, unsigned vcpu, int timeout_ms, struct sm_error *err);
/* The vCPU's exit and answer, and its state; only while no task is under way. */
struct sm_hv_exit *sm_hv_guest_io(struct sm_hv_guest *guest, unsigned vcpu);
struct sm_buf *sm_hv_guest_state(struct sm_hv_guest *guest, unsigned vcpu);
void sm_hv_guest_kick(struct sm_hv_guest *guest, unsigned vcpu);

/* An eventfd that the guest owns and that counts the writes to the address. */
int sm_hv_guest_ioeventfd(struct sm_hv_guest *guest, uint64_t gpa, int *ret_fd, struct sm_error *err);

/* Map more memory: zero, or (broken) with nothing behind it.  Only outside RAM. */
int sm_hv_guest_map(struct sm_hv_guest *guest, uint64_t gpa, uint64_t bytes, bool read_only, bool broken,
                    struct sm_error *err);
int sm_hv_guest_unmap(struct sm_hv_guest *guest, uint64_t gpa, struct sm_error *err);

#endif
