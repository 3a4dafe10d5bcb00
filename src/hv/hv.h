/* THE hypervisor interface: what a machine asks of KVM, Hypervisor.framework or another.
 *
 * A back end is one const table.  It never sees a device, opens no path, and installs no signal handler.
 * State travels as base/codec records, never as raw kernel structs: a record that another host cannot load is
 * refused by name.
 *
 * Threads: vm calls from the machine's control thread; vcpu calls, one at a time, on the vCPU's own thread (some back
 * ends bind a vCPU to it), except vcpu_kick, which any thread may call.  With any_thread in the caps, only
 * vcpu_run, vcpu_settle, vcpu_halted, vcpu_where and vcpu_resumed have to be there.  Where a vm call says that no vCPU
 * runs, no vcpu call is under way either: state of the machine that lies in its vCPUs is then the control thread's. */
#ifndef SM_HV_HV_H
#define SM_HV_HV_H

#include "base/codec.h"
#include "base/error.h"
#include "plan/plan.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sm_hv_vm;   /* the back end's own */
struct sm_hv_vcpu; /* the back end's own */

/* How a vCPU starts. */
enum sm_hv_boot_kind {
	SM_HV_BOOT_WAIT = 1, /* an application processor: waits for the guest to start it */
	SM_HV_BOOT_PVH,      /* x86_64: 32-bit protected mode, flat, paging off, EBX = arg (xen pvh.pandoc) */
	SM_HV_BOOT_LONG64,   /* x86_64: 64-bit, page_table in CR3, RSI = arg (Linux x86 boot protocol) */
	SM_HV_BOOT_ARM64,    /* aarch64: EL1, MMU off, X0 = arg (Linux arm64 booting) */
};

/* What Lua calls it; NULL: no such kind. */
static inline const char *sm_hv_boot_name(unsigned kind)
{
	static const char *const names[] = {
		[SM_HV_BOOT_WAIT] = "wait",
		[SM_HV_BOOT_PVH] = "pvh",
		[SM_HV_BOOT_LONG64] = "long64",
		[SM_HV_BOOT_ARM64] = "arm64",
	};
	return kind < sizeof names / sizeof *names ? names[kind] : NULL;
}

struct sm_hv_caps {
	const char *name;   /* "kvm" */
	bool ioeventfd;     /* vm_ioeventfd works; else the machine raises eventfds from MMIO exits */
	bool any_thread;    /* a vCPU is made, loaded and saved on any thread, and gets its own when it first runs */
	unsigned max_vcpus; /* of one machine */
	unsigned gpa_bits;  /* guest physical address width */
	/* How a guest starts that needs nothing but its code. */
	enum sm_hv_boot_kind plain_boot;
};

enum sm_hv_exit_kind {
	SM_HV_EXIT_MMIO = 1,
	SM_HV_EXIT_PIO,
	SM_HV_EXIT_HALT,     /* halted with nothing that could wake it */
	SM_HV_EXIT_SHUTDOWN, /* triple fault (x86_64) */
	SM_HV_EXIT_RESET,    /* the guest asked for it by firmware call (PSCI) */
	SM_HV_EXIT_POWEROFF, /* likewise */
	SM_HV_EXIT_KICK,     /* vcpu_kick was called */
	SM_HV_EXIT_FAULT,    /* an access the back end could not place: address, if known */
	SM_HV_EXIT_ERROR,    /* the vCPU cannot go on: error, detail */
};

struct sm_hv_exit {
	enum sm_hv_exit_kind kind;
	bool write;
	uint8_t size;     /* MMIO, PIO: 1, 2, 4 or 8 bytes */
	uint64_t address; /* guest physical address or port */
	/* MMIO, PIO write: the value.  Read: the caller stores the answer here before the next vcpu_run. */
	uint64_t data;
	int error;          /* ERROR: positive errno */
	const char *detail; /* ERROR, SHUTDOWN: static text or NULL */
};

/* Of vm_map. */
enum {
	SM_HV_MAP_READ_ONLY = 1, /* guest writes are MMIO exits */
	SM_HV_MAP_LOG = 2,       /* guest writes are kept track of, for vm_dirty */
};

struct sm_hv_boot {
	enum sm_hv_boot_kind kind;
	uint64_t entry;
	uint64_t arg;
	uint64_t page_table;
};

struct sm_hv {
	/* Check the device descriptor (borrowed; KVM: /dev/kvm) and say what it can do.  -ENOTSUP names the
	 * missing capability. */
	int (*caps)(int device_fd, struct sm_hv_caps *ret_caps, struct sm_error *err);

	/* A machine without RAM.  The irqchip comes with irqchip_new, after the memory slots (a slot set before the
	 * irqchip is cheaper) and before any vCPU; interrupts can be wired and raised from then on.  What an irqchip
	 * and the vCPUs of the plan need of each other (KVM's GIC: all of them made, in order) is made there too, and
	 * vcpu_new, which may come in any order, takes over its part. */
	int (*vm_new)(int device_fd, const struct sm_plan *plan, struct sm_hv_vm **ret_vm, struct sm_error *err);
	void (*vm_free)(struct sm_hv_vm *vm);
	int (*vm_map)(struct sm_hv_vm *vm, uint64_t gpa, void *hva, uint64_t bytes, unsigned flags,
	              struct sm_error *err);
	int (*vm_unmap)(struct sm_hv_vm *vm, uint64_t gpa, struct sm_error *err);
	/* Of a region mapped with SM_HV_MAP_LOG: the host pages that the guest has written since it was mapped or last
	 * asked, a bit each, lowest first; bits is a whole number of u64.  Any thread, vCPUs may run. */
	int (*vm_dirty)(struct sm_hv_vm *vm, uint64_t gpa, uint64_t *ret_bits, struct sm_error *err);
	/* Turn SM_HV_MAP_LOG of a region on, with nothing written yet, or off.  Any thread, vCPUs may run. */
	int (*vm_log)(struct sm_hv_vm *vm, uint64_t gpa, bool on, struct sm_error *err);
	int (*vm_irqchip_new)(struct sm_hv_vm *vm, struct sm_error *err);
	int (*vm_irq_set)(struct sm_hv_vm *vm, unsigned irq, bool level); /* any thread */
	/* A 4-byte guest write of any value to gpa adds 1 to event_fd and does not exit. */
	int (*vm_ioeventfd)(struct sm_hv_vm *vm, int event_fd, uint64_t gpa, struct sm_error *err);
	/* Interrupt controllers and the like, while no vCPU runs, all vCPUs exist, and (load) their state is set. */
	int (*vm_save)(struct sm_hv_vm *vm, struct sm_buf *out, struct sm_error *err);
	int (*vm_load)(struct sm_hv_vm *vm, struct sm_reader *in, struct sm_error *err);
	/* The guest's clock, last before vCPUs run: saved with the machine paused, set once on restore, while no vCPU
	 * runs, and from then on the same on each.  What is measured in it (timers) is the vCPUs' state and is loaded
	 * before: nothing may fire by the clock that was there until then. */
	int (*vm_clock_save)(struct sm_hv_vm *vm, struct sm_buf *out, struct sm_error *err);
	int (*vm_clock_load)(struct sm_hv_vm *vm, struct sm_reader *in, struct sm_error *err);

	int (*vcpu_new)(struct sm_hv_vm *vm, unsigned index, struct sm_hv_vcpu **ret_vcpu, struct sm_error *err);
	void (*vcpu_free)(struct sm_hv_vcpu *vcpu); /* any thread, after its own has ended */
	int (*vcpu_boot)(struct sm_hv_vcpu *vcpu, const struct sm_hv_boot *boot, struct sm_error *err);
	/* Run until an exit.  io is in and out: the answer to the last read goes in. */
	void (*vcpu_run)(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *io);
	/* Make the current or the next vcpu_run return SM_HV_EXIT_KICK soon.  Sticky until seen.  thread: the vCPU's
	 * own. */
	void (*vcpu_kick)(struct sm_hv_vcpu *vcpu);
	/* Finish a pending MMIO or PIO (answer in io), so that registers may be read.  The guest runs no further.
	 * 1: the instruction has more to access: io holds the next part; answer it and settle again. */
	int (*vcpu_settle)(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *io, struct sm_error *err);
	/* Whether the vCPU sleeps with interrupts off, or waits for a start that another vCPU would give: when this
	 * holds for all of a machine, nothing but a reset will wake it.  On aarch64 only the latter counts (PSCI: off):
	 * a WFI wakes for masked interrupts too, and Linux idles like that. */
	bool (*vcpu_halted)(struct sm_hv_vcpu *vcpu);
	/* Where it is, its registers as one number: the same at two looks, it has not gone on in between. */
	uint64_t (*vcpu_where)(struct sm_hv_vcpu *vcpu);
	int (*vcpu_save)(struct sm_hv_vcpu *vcpu, struct sm_buf *out, struct sm_error *err);
	int (*vcpu_load)(struct sm_hv_vcpu *vcpu, struct sm_reader *in, struct sm_error *err);
	/* Tell a restored guest that it was stopped (KVM_KVMCLOCK_CTRL: no soft lockup reports).  An aarch64 guest has
	 * nothing that could be told: its counter stood still. */
	void (*vcpu_resumed)(struct sm_hv_vcpu *vcpu);
};

/* What a third back end would bring along: Hypervisor.framework of macOS on Apple silicon.
 * - There is no device: device_fd is -1 and not looked at.  A process has one VM, so every machine is a worker's, and
 *   vm_new is -EBUSY where there is one.  Pages are of 16 KiB: RAM and DAX windows are multiples of that (2 MiB),
 *   other maps are refused.  The address space is as wide as sm_plan_end needs (hv_vm_config).
 * - No ioeventfd: the machine forwards.  vm_irq_set is what raises (an edge: on, off), from whichever thread a device
 *   serves on.  The event descriptors themselves, and the loop, are base/'s to port.
 * - The GIC is the framework's (hv_gic, before any vCPU; its state is a blob, so the record holds the macOS release
 *   that it is good for) or one in user space behind MMIO exits and trapped ICC registers, as records like KVM's.
 * - A vCPU belongs to its thread from hv_vcpu_create to hv_vcpu_destroy: vcpu_free would be called there, as its last
 *   call.
 * - PSCI comes as HVC exits and is served in the back end: CPU_ON wakes the thread that waits in its vcpu_run, off and
 *   reset are exits.  A WFI exits too: vcpu_run sleeps until the timer's deadline, an interrupt or a kick.
 * - hv_vcpus_exit does not stick: a flag beside it makes vcpu_kick do so.
 * - An access's answer and the step past its instruction are the back end's own work, so vcpu_settle runs nothing.
 * - The counter's offset is each vCPU's: vm_clock_load keeps it, and each vCPU sets it before it next runs. */

/* The back end that the Makefile chose for this platform. */
const struct sm_hv *sm_hv_host(void);

#endif
