/* The plan: what a machine is made of, as pure data.
 *
 * Computed from a configuration before anything is opened, stored in snapshots, printed by vm:plan().
 * It is an ABI: a change of any rule here needs a new SM_PLAN_VERSION. */
#ifndef SM_PLAN_PLAN_H
#define SM_PLAN_PLAN_H

#include "base/codec.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define SM_PLAN_VERSION        1
#define SM_PLAN_VCPUS_MAX      16
#define SM_PLAN_SLOTS_MAX      128
#define SM_PLAN_RAM_MAX        2
#define SM_PLAN_CMDLINE_MAX    2048
#define SM_PLAN_MEMORY_MIB_MIN 16
#define SM_PLAN_MEMORY_MIB_MAX (1024 * 1024)
#define SM_PLAN_DAX_DEFAULT    UINT64_MAX

#define SM_MIB (UINT64_C(1) << 20)
#define SM_GIB (UINT64_C(1) << 30)

enum sm_plan_arch {
	SM_PLAN_X86_64 = 1,
	SM_PLAN_AARCH64 = 2,
};

/* In slot order: read-only disks before volumes, and so on. */
enum sm_plan_kind {
	SM_PLAN_VSOCK = 1,
	SM_PLAN_BLOCK,  /* read-only disk */
	SM_PLAN_VOLUME, /* writable disk */
	SM_PLAN_RNG,
	SM_PLAN_BALLOON,
	SM_PLAN_FS,
	SM_PLAN_NET,
};

/* What a user wishes for. */
struct sm_plan_config {
	enum sm_plan_arch arch;
	unsigned vcpus;        /* 1 to SM_PLAN_VCPUS_MAX */
	uint64_t memory_mib;   /* SM_PLAN_MEMORY_MIB_MIN to SM_PLAN_MEMORY_MIB_MAX */
	unsigned blocks;       /* read-only disks, backed */
	unsigned volumes;      /* writable disks, backed */
	unsigned volume_slots; /* writable disks that a restore can back */
	unsigned mounts;       /* virtio-fs mounts, backed */
	unsigned mount_slots;  /* virtio-fs mounts that a restore can back */
	bool net;
	uint64_t dax_mib;        /* DAX window for all mounts; SM_PLAN_DAX_DEFAULT: min(8192, memory_mib); 0: none */
	const char *cmdline;     /* appended to the kernel command line; NULL: nothing */
	const char *cpu_disable; /* comma-separated CPU feature names to hide, "cx16,avx2"; NULL: none */
};

struct sm_plan_range {
	uint64_t gpa;
	uint64_t bytes;
};

struct sm_plan_slot {
	enum sm_plan_kind kind;
	unsigned index; /* within its kind, from 0 */
	bool backed;
	uint64_t base;            /* MMIO base, mmio_stride bytes long */
	unsigned irq;             /* GSI (x86_64) or INTID - 32 + 32, i.e. the plan's IRQ number (aarch64) */
	struct sm_plan_range dax; /* bytes 0: no window */
};

struct sm_plan {
	enum sm_plan_arch arch;
	unsigned vcpus;
	uint64_t memory_mib;
	unsigned nram;
	struct sm_plan_range ram[SM_PLAN_RAM_MAX]; /* ascending; x86_64: below and above the 32-bit hole */
	uint64_t mmio_base, mmio_stride;
	unsigned serial_irq;
	uint64_t serial_base;  /* I/O port (x86_64) or MMIO address (aarch64) */
	unsigned vmgenid_irq;  /* generic event device's interrupt */
	uint64_t vmgenid_gpa;  /* 16 bytes, in RAM that the guest is told is reserved */
	uint64_t firmware_gpa; /* where tables go: reserved RAM, firmware_bytes long */
	uint64_t firmware_bytes;
	unsigned nslots;
	struct sm_plan_slot slots[SM_PLAN_SLOTS_MAX];
	char cmdline[SM_PLAN_CMDLINE_MAX];
	char cpu_disable[256];
};

/* -EINVAL for a wish out of range (naming it and the limits), -ENOSPC for too many devices (naming the
 * kind, the IRQ, the limit and the counts). */
int sm_plan_make(const struct sm_plan_config *config, struct sm_plan *ret_plan, struct sm_error *err);

/* "vsock", "block", "volume", "rng", "balloon", "fs", "net"; "?" for anything else. */
const char *sm_plan_kind_name(enum sm_plan_kind kind);
const char *sm_plan_arch_name(enum sm_plan_arch arch);
/* The architecture this program was built for. */
enum sm_plan_arch sm_plan_arch_host(void);

/* Where the last of RAM and DAX windows ends. */
uint64_t sm_plan_end(const struct sm_plan *plan);

/* The slot of this kind and index, or NULL. */
const struct sm_plan_slot *sm_plan_find(const struct sm_plan *plan, enum sm_plan_kind kind, unsigned index);

/* As a record.  get refuses a plan that sm_plan_make could not have made (hostile snapshot). */
void sm_plan_put(struct sm_buf *buf, const struct sm_plan *plan);
int sm_plan_get(struct sm_reader *reader, struct sm_plan *ret_plan, struct sm_error *err);

#endif
