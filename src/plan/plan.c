#include "plan/plan.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DAX_ALIGN       (2 * SM_MIB) /* a slice's grain: huge pages line up */
#define DAX_BASE_ALIGN  SM_GIB
#define DAX_DEFAULT_MIB 8192

/* What an architecture's machine looks like. */
struct layout {
	enum sm_plan_arch arch;
	const char *name;
	uint64_t ram_base;
	uint64_t low_ram_max; /* RAM past this much goes on at high_ram_base; UINT64_MAX: no hole */
	uint64_t high_ram_base;
	uint64_t dax_floor; /* no DAX window below, however little RAM there is */
	uint64_t mmio_base, mmio_stride;
	unsigned irq_base, irq_max; /* of slots; the ones below in between are taken */
	unsigned serial_irq, vmgenid_irq;
	uint64_t serial_base;
	uint64_t firmware_gpa, firmware_bytes, vmgenid_gpa;
	const char *cmdline;
};

/* The command line, for a start without a PIT, an RTC or a PCI bus to probe:
 * quiet: each byte on the console is an exit.  panic=-1: a panic ends the machine at once, by a reset.
 * reboot=a: by the ACPI reset register, before anything else is tried.  pci=off: no bus to scan.
 * 8250.nr_uarts=1: no search for three more ports.  tsc=nowatchdog: no half-second timer that compares the TSC with
 * kvm-clock.  Not tsc=reliable: that would also skip the check whether CPUs' TSCs agree, and guests whose TSC is not
 * invariant should notice.  cryptomgr.notests: no self-tests of the crypto library.  random.trust_cpu=on: RDRAND may
 * credit the pool, so that nothing waits for entropy.  swiotlb=noforce: virtio needs no bounce buffers, which would be
 * 64 MiB as soon as there is RAM above 4 GiB. */
static const struct layout layouts[] = {
	{
	    .arch = SM_PLAN_X86_64,
	    .name = "x86_64",
	    .ram_base = 0,
	    .low_ram_max = UINT64_C(0xc0000000), /* up to the hole for MMIO, IOAPIC and LAPIC */
	    .high_ram_base = 4 * SM_GIB,
	    .dax_floor = 4 * SM_GIB,
	    .mmio_base = UINT64_C(0xd0000000),
	    .mmio_stride = 0x1000,
	    .irq_base = 5, /* IOAPIC pins; 0 to 4: what a PC has there, serial port included */
	    .irq_max = 23,
	    .serial_irq = 4,
	    .vmgenid_irq = 9,
	    .serial_base = 0x3f8,
	    .firmware_gpa = 0xe0000, /* where a PC's firmware searches for an RSDP (ACPI 6.4, 5.2.5.1) */
	    .firmware_bytes = 0x20000,
	    .vmgenid_gpa = 0xff000,
	    .cmdline = "console=ttyS0 quiet panic=-1 reboot=a pci=off 8250.nr_uarts=1 tsc=nowatchdog cryptomgr.notests "
		       "random.trust_cpu=on swiotlb=noforce",
	},
	{
	    .arch = SM_PLAN_AARCH64,
	    .name = "aarch64",
	    .ram_base = UINT64_C(0x40000000),
	    .low_ram_max = UINT64_MAX,
	    .dax_floor = 0,
	    .mmio_base = UINT64_C(0x0a000000),
	    .mmio_stride = 0x1000,
	    .irq_base = 32, /* the first SPI; slot 0 has it, the serial port the second, slot n the one after n + 1 */
	    .irq_max = 159,
	    .serial_irq = 33,
	    .vmgenid_irq = 160, /* past every slot: the GIC needs 192 lines (a multiple of 32) */
	    .serial_base = UINT64_C(0x09000000),
	    .firmware_gpa = UINT64_C(0x40000000), /* an FDT is at most 2 MiB, in 2 MiB that hold nothing else */
	    .firmware_bytes = 2 * SM_MIB,
	    .vmgenid_gpa = UINT64_C(0x401ff000),
	    .cmdline = "console=ttyAMA0 quiet panic=-1 cryptomgr.notests random.trust_cpu=on swiotlb=noforce",
	},
};

static const struct layout *layout_of(enum sm_plan_arch arch)
{
	for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
		if (layouts[i].arch == arch)
			return &layouts[i];
	return NULL;
}

const char *sm_plan_arch_name(enum sm_plan_arch arch)
{
	const struct layout *layout = layout_of(arch);
	return layout ? layout->name : "?";
}

const char *sm_plan_kind_name(enum sm_plan_kind kind)
{
	static const char *const names[] = {
		[SM_PLAN_VSOCK] = "vsock", [SM_PLAN_BLOCK] = "block",     [SM_PLAN_VOLUME] = "volume",
		[SM_PLAN_RNG] = "rng",     [SM_PLAN_BALLOON] = "balloon", [SM_PLAN_FS] = "fs",
		[SM_PLAN_NET] = "net",
	};
	return kind >= SM_PLAN_VSOCK && kind <= SM_PLAN_NET ? names[kind] : "?";
}

const struct sm_plan_slot *sm_plan_find(const struct sm_plan *plan, enum sm_plan_kind kind, unsigned index)
{
	for (unsigned i = 0; i < plan->nslots; i++)
		if (plan->slots[i].kind == kind && plan->slots[i].index == index)
			return &plan->slots[i];
	return NULL;
}

uint64_t sm_plan_end(const struct sm_plan *plan)
{
	uint64_t end = 0;
	for (unsigned i = 0; i < plan->nram; i++)
		end = plan->ram[i].gpa + plan->ram[i].bytes;
	for (unsigned i = 0; i < plan->nslots; i++)
		if (plan->slots[i].dax.bytes)
			end = plan->slots[i].dax.gpa + plan->slots[i].dax.bytes;
	return end;
}

static uint64_t mounts_of(const struct sm_plan_config *config)
{
	return (uint64_t)config->mounts + config->mount_slots;
}

/* The interrupt of the next slot after one that has `irq` (0: the first slot), past those in use. */
static unsigned next_irq(const struct layout *layout, unsigned irq)
{
	irq = irq ? irq + 1 : layout->irq_base;
	while (irq == layout->serial_irq || irq == layout->vmgenid_irq)
		irq++;
	return irq;
}

/* vmgenid_irq may lie just past irq_max: the IRQ that is named in an error is the one a slot would need. */
static int no_irq(const struct layout *layout, const struct sm_plan_config *config, enum sm_plan_kind kind,
                  unsigned index, struct sm_error *err)
{
	uint64_t disks = (uint64_t)config->blocks + config->volumes + config->volume_slots;
	return sm_error_set(
	    err, ENOSPC, "too many devices: %s %u needs IRQ %u, the limit is %u (%llu block devices, %llu mounts%s)",
	    sm_plan_kind_name(kind), index, layout->irq_max + 1, layout->irq_max, (unsigned long long)disks,
	    (unsigned long long)mounts_of(config), config->net ? ", net" : "");
}

/* Append `count` slots of a kind, the first `backed` of them with something behind them. */
static int add_slots(const struct layout *layout, const struct sm_plan_config *config, struct sm_plan *plan,
                     enum sm_plan_kind kind, uint64_t count, unsigned backed, struct sm_error *err)
{
	for (uint64_t i = 0; i < count; i++) {
		unsigned n = plan->nslots;
		unsigned irq = next_irq(layout, n ? plan->slots[n - 1].irq : 0);
		if (irq > layout->irq_max || n == SM_PLAN_SLOTS_MAX)
			return no_irq(layout, config, kind, (unsigned)i, err);
		plan->slots[n] = (struct sm_plan_slot){
			.kind = kind,
			.index = (unsigned)i,
			.backed = i < backed,
			.base = layout->mmio_base + n * layout->mmio_stride,
			.irq = irq,
		};
		plan->nslots++;
	}
	return 0;
}

static int plan_slots(const struct layout *layout, const struct sm_plan_config *config, struct sm_plan *plan,
                      struct sm_error *err)
{
	const struct {
		enum sm_plan_kind kind;
		uint64_t count;
		unsigned backed;
	} wanted[] = {
		{ SM_PLAN_VSOCK, 1, 1 },
		{ SM_PLAN_BLOCK, config->blocks, config->blocks },
		{ SM_PLAN_VOLUME, (uint64_t)config->volumes + config->volume_slots, config->volumes },
		{ SM_PLAN_RNG, 1, 1 },
		{ SM_PLAN_BALLOON, 1, 1 },
		{ SM_PLAN_FS, mounts_of(config), config->mounts },
		{ SM_PLAN_NET, config->net, config->net },
	};
	for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
		int code = add_slots(layout, config, plan, wanted[i].kind, wanted[i].count, wanted[i].backed, err);
		if (code < 0)
			return code;
	}
	return 0;
}

static void plan_ram(const struct layout *layout, uint64_t bytes, struct sm_plan *plan)
{
	uint64_t low = bytes < layout->low_ram_max ? bytes : layout->low_ram_max;
	plan->ram[plan->nram++] = (struct sm_plan_range){ layout->ram_base, low };
	if (bytes > low)
		plan->ram[plan->nram++] = (struct sm_plan_range){ layout->high_ram_base, bytes - low };
}

/* One window a mount, side by side above RAM. */
static int plan_dax(const struct layout *layout, const struct sm_plan_config *config, struct sm_plan *plan,
                    struct sm_error *err)
{
	uint64_t total_mib = config->dax_mib, mounts = mounts_of(config);
	if (total_mib == SM_PLAN_DAX_DEFAULT)
		total_mib = config->memory_mib < DAX_DEFAULT_MIB ? config->memory_mib : DAX_DEFAULT_MIB;
	if (total_mib > SM_PLAN_MEMORY_MIB_MAX)
		return sm_error_set(err, EINVAL, "dax_mib: %llu, the limit is %llu", (unsigned long long)total_mib,
		                    (unsigned long long)SM_PLAN_MEMORY_MIB_MAX);
	if (mounts == 0 || total_mib == 0)
		return 0;
	uint64_t slice = total_mib * SM_MIB / mounts / DAX_ALIGN * DAX_ALIGN;
	if (slice == 0)
		return sm_error_set(err, EINVAL, "dax_mib: %llu MiB for %llu mounts leave less than 2 MiB for each",
		                    (unsigned long long)total_mib, (unsigned long long)mounts);

	const struct sm_plan_range *top = &plan->ram[plan->nram - 1];
	uint64_t gpa = top->gpa + top->bytes;
	if (gpa < layout->dax_floor)
		gpa = layout->dax_floor;
	gpa = (gpa + DAX_BASE_ALIGN - 1) / DAX_BASE_ALIGN * DAX_BASE_ALIGN;
	for (unsigned i = 0; i < plan->nslots; i++) {
		if (plan->slots[i].kind != SM_PLAN_FS)
			continue;
		plan->slots[i].dax = (struct sm_plan_range){ gpa, slice };
		gpa += slice;
	}
	return 0;
}

static int plan_cmdline(const struct layout *layout, const char *extra, struct sm_plan *plan, struct sm_error *err)
{
	const char *gap = extra && extra[0] ? " " : "";
	int len = snprintf(plan->cmdline, sizeof plan->cmdline, "%s%s%s", layout->cmdline, gap, extra ? extra : "");
	if (len < 0 || (size_t)len >= sizeof plan->cmdline)
		return sm_error_set(err, E2BIG, "cmdline: %zu bytes, at most %zu fit",
		                    extra ? strlen(extra) : (size_t)0,
		                    sizeof plan->cmdline - strlen(layout->cmdline) - 2);
	return 0;
}

static int check_numbers(const struct sm_plan_config *config, struct sm_error *err)
{
	if (config->vcpus < 1 || config->vcpus > SM_PLAN_VCPUS_MAX)
		return sm_error_set(err, EINVAL, "vcpus: %u, from 1 to %d are possible", config->vcpus,
		                    SM_PLAN_VCPUS_MAX);
	if (config->memory_mib < SM_PLAN_MEMORY_MIB_MIN || config->memory_mib > SM_PLAN_MEMORY_MIB_MAX)
		return sm_error_set(err, EINVAL, "memory_mib: %llu, from %d to %d are possible",
		                    (unsigned long long)config->memory_mib, SM_PLAN_MEMORY_MIB_MIN,
		                    SM_PLAN_MEMORY_MIB_MAX);
	return 0;
}

int sm_plan_make(const struct sm_plan_config *config, struct sm_plan *ret_plan, struct sm_error *err)
{
	const struct layout *layout = layout_of(config->arch);
	if (!layout)
		return sm_error_set(err, EINVAL, "arch: %d is not one this build knows", (int)config->arch);
	int code = check_numbers(config, err);
	if (code < 0)
		return code;

	struct sm_plan *plan = ret_plan;
	*plan = (struct sm_plan){
		.arch = config->arch,
		.vcpus = config->vcpus,
		.memory_mib = config->memory_mib,
		.mmio_base = layout->mmio_base,
		.mmio_stride = layout->mmio_stride,
		.serial_irq = layout->serial_irq,
		.serial_base = layout->serial_base,
		.vmgenid_irq = layout->vmgenid_irq,
		.vmgenid_gpa = layout->vmgenid_gpa,
		.firmware_gpa = layout->firmware_gpa,
		.firmware_bytes = layout->firmware_bytes,
	};
	const char *disable = config->cpu_disable ? config->cpu_disable : "";
	if (strlen(disable) >= sizeof plan->cpu_disable)
		return sm_error_set(err, E2BIG, "cpu_disable: %zu bytes, at most %zu fit", strlen(disable),
		                    sizeof plan->cpu_disable - 1);
	memcpy(plan->cpu_disable, disable, strlen(disable) + 1);

	plan_ram(layout, config->memory_mib * SM_MIB, plan);
	code = plan_slots(layout, config, plan, err);
	if (code == 0)
		code = plan_dax(layout, config, plan, err);
	if (code == 0)
		code = plan_cmdline(layout, config->cmdline, plan, err);
	return code;
}
