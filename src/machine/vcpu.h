/* One vCPU: its thread, a mailbox for calls that must run on it, and the one switch that serves its exits. */
#ifndef SM_MACHINE_VCPU_H
#define SM_MACHINE_VCPU_H

#include "base/error.h"
#include "hv/hv.h"

#include <stdatomic.h>
#include <stdint.h>

struct sm_machine;
struct sm_vcpu;

/* Counters, written by the vCPU's thread alone. */
struct sm_vcpu_stats {
	atomic_uint_fast64_t exits, mmio, pio, kicks, unhandled;
};

typedef int (*sm_vcpu_call)(struct sm_machine *machine, struct sm_hv_vcpu *hv_vcpu, void *arg, struct sm_error *err);

/* Create the hypervisor's vCPU and make the call `first` (how it gets its state); parked.  sm_vcpu_call_wait gives the
 * result of both.  The thread is started here where the back end binds a vCPU to it, and by the first run
 * otherwise. */
int sm_vcpu_new(struct sm_machine *machine, unsigned index, sm_vcpu_call first, void *arg, struct sm_vcpu **ret_vcpu,
                struct sm_error *err);
/* Parks, joins, frees.  NULL is fine. */
void sm_vcpu_free(struct sm_vcpu *vcpu);

/* Make `call` on the vCPU's thread, or on this one where the back end allows it.  One call at a time; wait gives the
 * result.  The vCPU must be parked, so that state is read between instructions.  now: both. */
void sm_vcpu_call_begin(struct sm_vcpu *vcpu, sm_vcpu_call call, void *arg);
int sm_vcpu_call_wait(struct sm_vcpu *vcpu, struct sm_error *err);
int sm_vcpu_call_now(struct sm_vcpu *vcpu, sm_vcpu_call call, void *arg, struct sm_error *err);

/* run lets the guest go on (resumed: after telling it that it was stopped); park asks it to stop (any thread, also the
 * vCPU's own) and park_wait waits until it has, with pending I/O finished.  run fails only where it cannot start the
 * thread. */
int sm_vcpu_run(struct sm_vcpu *vcpu, bool resumed, struct sm_error *err);
void sm_vcpu_park(struct sm_vcpu *vcpu);
void sm_vcpu_park_wait(struct sm_vcpu *vcpu);

/* Ask the vCPU to look whether it goes on at all; if it does not, and did not the last time either, the devices mend
 * what memory it may be waiting for. */
void sm_vcpu_locate(struct sm_vcpu *vcpu);
/* Processor time the thread has used, nanoseconds. */
uint64_t sm_vcpu_cpu_ns(const struct sm_vcpu *vcpu);
/* Ask the vCPU to look whether it is halted for good; when all of a machine's are, the machine ends. */
void sm_vcpu_probe(struct sm_vcpu *vcpu);

const struct sm_vcpu_stats *sm_vcpu_stats(const struct sm_vcpu *vcpu);

#endif
