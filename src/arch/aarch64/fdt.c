#include "arch/aarch64/fdt.h"

#include "arch/aarch64/platform.h"

#include <errno.h>
#include <libfdt.h>
#include <stdio.h>
#include <string.h>

/* Phandles: what other nodes point at. */
#define GIC_PHANDLE   1u
#define CLOCK_PHANDLE 2u

/* Interrupt specifiers (bindings/interrupt-controller/arm,gic-v3.yaml). */
#define GIC_SPI        0u
#define GIC_PPI        1u
#define EDGE_RISING    1u
#define LEVEL_HIGH     4u
#define PPI_BASE       16u
#define TIMER_PPI(irq) GIC_PPI, (irq)-PPI_BASE, LEVEL_HIGH

#define KASLR_SEED_BYTES 8u
#define VMGENID_BYTES    0x1000u

/* The largest page that a guest may have: what it must not map is made of such. */
#define GUEST_PAGE_MAX UINT64_C(0x10000)

/* libfdt's writer; the first failure is kept. */
struct tree {
	void *blob;
	int failed;
};

static void keep(struct tree *tree, int code)
{
	if (tree->failed == 0)
		tree->failed = code;
}

static void begin(struct tree *tree, const char *name)
{
	keep(tree, fdt_begin_node(tree->blob, name));
}

static void begin_at(struct tree *tree, const char *name, uint64_t address)
{
	char full[64];
	snprintf(full, sizeof full, "%s@%llx", name, (unsigned long long)address);
	begin(tree, full);
}

static void end(struct tree *tree)
{
	keep(tree, fdt_end_node(tree->blob));
}

static void bytes(struct tree *tree, const char *name, const void *value, size_t len)
{
	keep(tree, fdt_property(tree->blob, name, value, (int)len));
}

static void flag(struct tree *tree, const char *name)
{
	bytes(tree, name, "", 0);
}

static void cells(struct tree *tree, const char *name, const uint32_t *values, size_t count)
{
	fdt32_t *at = NULL;
	keep(tree, fdt_property_placeholder(tree->blob, name, (int)(count * sizeof *at), (void **)&at));
	for (size_t i = 0; i < count && tree->failed == 0; i++)
		at[i] = cpu_to_fdt32(values[i]);
}

#define CELLS(tree, name, ...) \
	cells(tree, name, (const uint32_t[]){ __VA_ARGS__ }, \
	      sizeof((const uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t))

/* One literal, more than one string by \0 in it. */
#define STRINGS(tree, name, literal) bytes(tree, name, literal, sizeof literal)

static void number(struct tree *tree, const char *name, uint64_t value)
{
	CELLS(tree, name, (uint32_t)(value >> 32), (uint32_t)value);
}

static void reg(struct tree *tree, uint64_t base, uint64_t size)
{
	CELLS(tree, "reg", (uint32_t)(base >> 32), (uint32_t)base, (uint32_t)(size >> 32), (uint32_t)size);
}

/* Every device raises its line by an eventfd: an edge, with no level to look at. */
static void spi(struct tree *tree, unsigned irq)
{
	CELLS(tree, "interrupts", GIC_SPI, irq - SM_ARM64_SPI_BASE, EDGE_RISING);
}

static void write_cpus(struct tree *tree, const struct sm_plan *plan)
{
	begin(tree, "cpus");
	CELLS(tree, "#address-cells", 1);
	CELLS(tree, "#size-cells", 0);
	for (unsigned i = 0; i < plan->vcpus; i++) {
		/* MPIDR_EL1 as KVM gives it: 16 processors a cluster, as many as one GICv3 SGI can name. */
		uint32_t affinity = (i & 0xf) | (i >> 4 & 0xff) << 8;
		begin_at(tree, "cpu", affinity);
		STRINGS(tree, "device_type", "cpu");
		STRINGS(tree, "compatible", "arm,armv8");
		CELLS(tree, "reg", affinity);
		STRINGS(tree, "enable-method", "psci");
		end(tree);
	}
	end(tree);
	begin(tree, "psci");
	STRINGS(tree, "compatible", "arm,psci-1.0\0arm,psci-0.2");
	STRINGS(tree, "method", "hvc");
	end(tree);
}

static void write_memory(struct tree *tree, const struct sm_plan *plan)
{
	for (unsigned i = 0; i < plan->nram; i++) {
		begin_at(tree, "memory", plan->ram[i].gpa);
		STRINGS(tree, "device_type", "memory");
		reg(tree, plan->ram[i].gpa, plan->ram[i].bytes);
		end(tree);
	}
	/* The generation ID's page is the host's to write.  no-map: Linux's driver maps it as device memory, and
	 * arm64 refuses that for RAM which it maps itself. */
	uint64_t page = plan->vmgenid_gpa / GUEST_PAGE_MAX * GUEST_PAGE_MAX;
	begin(tree, "reserved-memory");
	CELLS(tree, "#address-cells", 2);
	CELLS(tree, "#size-cells", 2);
	flag(tree, "ranges");
	begin_at(tree, "vmgenid", page);
	reg(tree, page, GUEST_PAGE_MAX);
	flag(tree, "no-map");
	end(tree);
	end(tree);
}

static void write_chosen(struct tree *tree, const struct sm_plan *plan, const struct sm_plan_range *initrd,
                         const uint8_t *seed)
{
	char console[64];
	int len = snprintf(console, sizeof console, "/serial@%llx", (unsigned long long)plan->serial_base);
	begin(tree, "chosen");
	bytes(tree, "bootargs", plan->cmdline, strlen(plan->cmdline) + 1);
	bytes(tree, "stdout-path", console, (size_t)len + 1);
	if (initrd->bytes) {
		number(tree, "linux,initrd-start", initrd->gpa);
		number(tree, "linux,initrd-end", initrd->gpa + initrd->bytes);
	}
	bytes(tree, "kaslr-seed", seed, KASLR_SEED_BYTES);
	bytes(tree, "rng-seed", seed + KASLR_SEED_BYTES, SM_ARM64_SEED_BYTES - KASLR_SEED_BYTES);
	end(tree);
}

static void write_gic(struct tree *tree, const struct sm_plan *plan)
{
	begin_at(tree, "interrupt-controller", SM_ARM64_GICD_BASE);
	STRINGS(tree, "compatible", "arm,gic-v3");
	CELLS(tree, "#interrupt-cells", 3);
	CELLS(tree, "#address-cells", 0);
	flag(tree, "interrupt-controller");
	CELLS(tree, "reg", 0, (uint32_t)SM_ARM64_GICD_BASE, 0, (uint32_t)SM_ARM64_GICD_BYTES, 0,
	      (uint32_t)SM_ARM64_GICR_BASE, 0, (uint32_t)(plan->vcpus * SM_ARM64_GICR_BYTES_A_VCPU));
	CELLS(tree, "phandle", GIC_PHANDLE);
	end(tree);
	begin(tree, "timer");
	STRINGS(tree, "compatible", "arm,armv8-timer");
	CELLS(tree, "interrupts", TIMER_PPI(SM_ARM64_PPI_TIMER_SECURE), TIMER_PPI(SM_ARM64_PPI_TIMER_PHYSICAL),
	      TIMER_PPI(SM_ARM64_PPI_TIMER_VIRTUAL), TIMER_PPI(SM_ARM64_PPI_TIMER_HYP));
	flag(tree, "always-on");
	end(tree);
}

static void write_serial(struct tree *tree, const struct sm_plan *plan)
{
	begin(tree, "apb-clock");
	STRINGS(tree, "compatible", "fixed-clock");
	CELLS(tree, "#clock-cells", 0);
	CELLS(tree, "clock-frequency", SM_ARM64_PL011_CLOCK_HZ);
	CELLS(tree, "phandle", CLOCK_PHANDLE);
	end(tree);
	begin_at(tree, "serial", plan->serial_base);
	STRINGS(tree, "compatible", "arm,pl011\0arm,primecell");
	reg(tree, plan->serial_base, SM_ARM64_PL011_BYTES);
	spi(tree, plan->serial_irq);
	CELLS(tree, "clocks", CLOCK_PHANDLE, CLOCK_PHANDLE);
	STRINGS(tree, "clock-names", "uartclk\0apb_pclk");
	end(tree);
}

/* In plan order, because Linux numbers disks as it finds them; a slot without anything behind it says so itself. */
static void write_devices(struct tree *tree, const struct sm_plan *plan)
{
	for (unsigned i = 0; i < plan->nslots; i++) {
		begin_at(tree, "virtio", plan->slots[i].base);
		STRINGS(tree, "compatible", "virtio,mmio");
		reg(tree, plan->slots[i].base, plan->mmio_stride);
		spi(tree, plan->slots[i].irq);
		flag(tree, "dma-coherent");
		end(tree);
	}
	begin_at(tree, "vmgenid", plan->vmgenid_gpa);
	STRINGS(tree, "compatible", "microsoft,vmgenid");
	reg(tree, plan->vmgenid_gpa, VMGENID_BYTES);
	spi(tree, plan->vmgenid_irq);
	end(tree);
}

int sm_arm64_fdt_build(const struct sm_plan *plan, const struct sm_plan_range *initrd,
                       const uint8_t seed[SM_ARM64_SEED_BYTES], struct sm_buf *out, struct sm_error *err)
{
	struct tree tree = { .blob = sm_buf_extend(out, SM_ARM64_FDT_MAX) };
	if (!tree.blob)
		return sm_error_sys(err, out->failed, "device tree");
	keep(&tree, fdt_create(tree.blob, SM_ARM64_FDT_MAX));
	keep(&tree, fdt_finish_reservemap(tree.blob));
	begin(&tree, "");
	STRINGS(&tree, "compatible", "linux,dummy-virt");
	STRINGS(&tree, "model", "supermachine");
	CELLS(&tree, "#address-cells", 2);
	CELLS(&tree, "#size-cells", 2);
	CELLS(&tree, "interrupt-parent", GIC_PHANDLE);
	flag(&tree, "dma-coherent");
	write_cpus(&tree, plan);
	write_memory(&tree, plan);
	write_chosen(&tree, plan, initrd, seed);
	write_gic(&tree, plan);
	write_serial(&tree, plan);
	write_devices(&tree, plan);
	end(&tree);
	keep(&tree, fdt_finish(tree.blob));
	if (tree.failed)
		return sm_error_set(err, tree.failed == -FDT_ERR_NOSPACE ? E2BIG : EINVAL, "device tree: %s",
		                    fdt_strerror(tree.failed));
	out->len = fdt_totalsize(tree.blob);
	return 0;
}
