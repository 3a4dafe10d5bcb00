/* An Image (Linux, Documentation/arch/arm64/booting.rst), its initramfs and the device tree into RAM. */
#include "arch/load.h"

#include "arch/aarch64/fdt.h"
#include "base/fd.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define PAGE            UINT64_C(4096)
#define INITRD_ALIGN    UINT64_C(0x10000) /* the largest page: what a guest frees of it is nobody else's */
#define INITRD_WINDOW   (32 * SM_GIB)     /* from a GiB boundary, initramfs and kernel in it */
#define TEXT_OFFSET_OLD UINT64_C(0x80000) /* of kernels before 3.17, which do not say how large they are */
#define FLAG_BIG_ENDIAN UINT64_C(1)

struct header {
	uint32_t code[2];
	uint64_t text_offset, image_size, flags, reserved[3];
	uint32_t magic, pe_offset;
};
_Static_assert(sizeof(struct header) == 64, "no padding");

struct place {
	uint64_t start, end; /* of the kernel, with the room that it asks for after the file's bytes */
};

static int read_header(const struct sm_arch_kernel *kernel, struct header *header, struct sm_error *err)
{
	if (kernel->bytes < sizeof *header)
		return sm_error_set(err, ENOEXEC, "kernel: an Image cut short: %llu bytes",
		                    (unsigned long long)kernel->bytes);
	int code = sm_fd_pread_full(kernel->fd, header, sizeof *header, 0);
	if (code < 0)
		return sm_error_sys(err, code, "kernel: read the Image's header");
	if (le64toh(header->flags) & FLAG_BIG_ENDIAN)
		return sm_error_set(err, ENOEXEC, "kernel: a big-endian Image, a little-endian one is needed");
	return 0;
}

/* As near to the start of RAM as the device tree lets it: older kernels cannot use what lies below them. */
static int place_kernel(const struct sm_plan *plan, const struct sm_memory *memory, const struct sm_arch_kernel *kernel,
                        const struct header *header, struct place *ret_place, struct sm_error *err)
{
	uint64_t image_size = le64toh(header->image_size);
	uint64_t text_offset = image_size ? le64toh(header->text_offset) : TEXT_OFFSET_OLD;
	if (text_offset % PAGE)
		return sm_error_set(err, ENOEXEC, "kernel: its text_offset 0x%llx is no multiple of a page",
		                    (unsigned long long)text_offset);
	uint64_t base = plan->firmware_gpa + plan->firmware_bytes; /* a multiple of 2 MiB */
	uint64_t room = image_size > kernel->bytes ? image_size : kernel->bytes;
	if (text_offset > plan->ram[0].bytes || !sm_memory_at_read(memory, base + text_offset, room))
		return sm_error_set(err, E2BIG, "kernel: %llu bytes at 0x%llx + 0x%llx are not within %llu MiB of RAM",
		                    (unsigned long long)room, (unsigned long long)base, (unsigned long long)text_offset,
		                    (unsigned long long)plan->memory_mib);
	*ret_place = (struct place){ base + text_offset, base + text_offset + room };
	return 0;
}

static int load_initrd(const struct sm_plan *plan, struct sm_memory *memory, const struct place *kernel, int initrd_fd,
                       struct sm_plan_range *ret_initrd, struct sm_error *err)
{
	uint64_t top = plan->ram[0].gpa + plan->ram[0].bytes;
	uint64_t window_end = kernel->start / SM_GIB * SM_GIB + INITRD_WINDOW;
	return sm_arch_initrd_load(memory, initrd_fd, kernel->end, top < window_end ? top : window_end, INITRD_ALIGN,
	                           &ret_initrd->gpa, &ret_initrd->bytes, err);
}

static int write_tree(const struct sm_plan *plan, struct sm_memory *memory, const struct sm_plan_range *initrd,
                      struct sm_error *err)
{
	uint8_t seed[SM_ARM64_SEED_BYTES];
	if (getrandom(seed, sizeof seed, 0) != (ssize_t)sizeof seed)
		return sm_error_sys(err, errno, "device tree: random seed");
	SM_BUF_CLEANUP struct sm_buf tree;
	sm_buf_init(&tree, SM_ARM64_FDT_MAX);
	int code = sm_arm64_fdt_build(plan, initrd, seed, &tree, err);
	explicit_bzero(seed, sizeof seed);
	if (code < 0)
		return code;
	code = sm_memory_write(memory, plan->firmware_gpa, tree.data, tree.len);
	explicit_bzero(tree.data, tree.len);
	return code < 0 ? sm_error_sys(err, code, "device tree") : 0;
}

static int aarch64_load(const struct sm_plan *plan, struct sm_memory *memory, const struct sm_arch_kernel *kernel,
                        int initrd_fd, struct sm_hv_boot *ret_boot, struct sm_error *err)
{
	if (kernel->format == SM_ARCH_ELF)
		return sm_error_set(err, ENOEXEC,
		                    "kernel: an ELF image (a vmlinux?): give the Image that is made from it, "
		                    "arch/arm64/boot/Image");
	if (kernel->format != SM_ARCH_IMAGE)
		return sm_error_set(err, ENOEXEC, "kernel: not an aarch64 Image");
	struct header header;
	struct place place = { 0 };
	struct sm_plan_range initrd = { 0 };
	int code = read_header(kernel, &header, err);
	if (code == 0)
		code = place_kernel(plan, memory, kernel, &header, &place, err);
	if (code < 0)
		return code;
	code = sm_fd_pread_full(kernel->fd, sm_memory_at_write(memory, place.start, kernel->bytes), kernel->bytes, 0);
	if (code < 0)
		return sm_error_sys(err, code, "kernel: read");
	code = load_initrd(plan, memory, &place, initrd_fd, &initrd, err);
	if (code == 0)
		code = write_tree(plan, memory, &initrd, err);
	if (code < 0)
		return code;
	*ret_boot = (struct sm_hv_boot){
		.kind = SM_HV_BOOT_ARM64,
		.entry = place.start,
		.arg = plan->firmware_gpa,
	};
	return 0;
}

const struct sm_arch sm_arch_aarch64 = { SM_PLAN_AARCH64, aarch64_load };
