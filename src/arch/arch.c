/* Which architecture loads, what kernel it is given, and the initramfs. */
#include "arch/arch.h"

#include "arch/load.h"
#include "base/fd.h"

#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#define HEAD_BYTES 1024

/* An EFI zboot image (Linux, drivers/firmware/efi/libstub/zboot-header.S): where it says what it packs. */
#define ZBOOT_OFFSET_AT 8
#define ZBOOT_BYTES_AT  12

static const struct sm_arch *arch_of(enum sm_plan_arch arch)
{
	static const struct sm_arch *const known[] = { &sm_arch_x86_64, &sm_arch_aarch64 };
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (known[i]->arch == arch)
			return known[i];
	return NULL;
}

struct magic {
	size_t offset, len;
	const char *bytes;
};

static bool has(const uint8_t *head, size_t len, const struct magic *magic)
{
	return magic->len == 0 ||
	       (len >= magic->offset + magic->len && memcmp(head + magic->offset, magic->bytes, magic->len) == 0);
}

/* Kernels that people give by mistake are named. */
static int sniff(enum sm_plan_arch machine, const uint8_t *head, size_t len, enum sm_arch_format *ret_format,
                 struct sm_error *err)
{
	static const struct {
		struct magic magic, more;
		enum sm_arch_format format; /* SM_ARCH_UNKNOWN: compressed */
		enum sm_plan_arch arch;     /* 0: whose it is the loader finds out */
		const char *what;
	} known[] = {
		{ { 0, SELFMAG, ELFMAG }, { 18, 2, "\x3e\0" }, SM_ARCH_ELF, SM_PLAN_X86_64, "ELF image" },
		{ { 0, SELFMAG, ELFMAG }, { 18, 2, "\xb7\0" }, SM_ARCH_ELF, SM_PLAN_AARCH64, "ELF image" },
		{ { 0, SELFMAG, ELFMAG }, { 0 }, SM_ARCH_ELF, 0, NULL },
		{ { 56, 4, "ARM\x64" }, { 0 }, SM_ARCH_IMAGE, SM_PLAN_AARCH64, "Image" },
		{ { 0x202, 4, "HdrS" }, { 0x1fe, 2, "\x55\xaa" }, SM_ARCH_BZIMAGE, SM_PLAN_X86_64, "bzImage" },
		{ { 0, 2, "\x1f\x8b" }, { 0 }, SM_ARCH_UNKNOWN, 0, "gzip" },
		{ { 0, 6, "\xfd\x37zXZ" }, { 0 }, SM_ARCH_UNKNOWN, 0, "xz" },
		{ { 0, 4, "\x28\xb5\x2f\xfd" }, { 0 }, SM_ARCH_UNKNOWN, 0, "zstd" },
	};
	static const struct magic zboot = { 0, 8, "MZ\0\0zimg" };
	if (has(head, len, &zboot) && len >= ZBOOT_BYTES_AT + sizeof(uint32_t)) {
		uint32_t offset, bytes;
		memcpy(&offset, head + ZBOOT_OFFSET_AT, sizeof offset);
		memcpy(&bytes, head + ZBOOT_BYTES_AT, sizeof bytes);
		return sm_error_set(err, ENOEXEC,
		                    "kernel: an EFI zboot image: unpack its payload first (%u bytes at %u)", bytes,
		                    offset);
	}
	*ret_format = SM_ARCH_UNKNOWN;
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		if (!has(head, len, &known[i].magic) || !has(head, len, &known[i].more))
			continue;
		if (known[i].format == SM_ARCH_UNKNOWN)
			return sm_error_set(err, ENOEXEC, "kernel: compressed with %s: unpack it first", known[i].what);
		if (known[i].arch && known[i].arch != machine)
			return sm_error_set(err, ENOEXEC, "kernel: an %s %s, and this machine is %s",
			                    sm_plan_arch_name(known[i].arch), known[i].what,
			                    sm_plan_arch_name(machine));
		*ret_format = known[i].format;
		return 0;
	}
	return 0;
}

static int file_size(int fd, const char *what, uint64_t *ret_bytes, struct sm_error *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return sm_error_sys(err, errno, "%s", what);
	if (!S_ISREG(st.st_mode))
		return sm_error_set(err, EINVAL, "%s: not a regular file", what);
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

int sm_arch_initrd_load(struct sm_memory *memory, int initrd_fd, uint64_t floor, uint64_t top, uint64_t align,
                        uint64_t *ret_gpa, uint64_t *ret_bytes, struct sm_error *err)
{
	uint64_t bytes = 0;
	int code = initrd_fd < 0 ? 0 : file_size(initrd_fd, "initramfs", &bytes, err);
	*ret_bytes = bytes;
	if (code < 0 || bytes == 0)
		return code;
	if (bytes > top || (top - bytes) / align * align < floor)
		return sm_error_set(
		    err, E2BIG,
		    "initramfs: %llu bytes do not fit between the kernel's end at 0x%llx and 0x%llx: give the "
		    "machine more memory_mib",
		    (unsigned long long)bytes, (unsigned long long)floor, (unsigned long long)top);
	*ret_gpa = (top - bytes) / align * align;
	void *at = sm_memory_at_write(memory, *ret_gpa, bytes);
	if (!at)
		return sm_error_set(err, E2BIG, "initramfs: no RAM at 0x%llx", (unsigned long long)*ret_gpa);
	code = sm_fd_pread_full(initrd_fd, at, bytes, 0);
	return code < 0 ? sm_error_sys(err, code, "initramfs: read") : 0;
}

int sm_arch_load(const struct sm_plan *plan, struct sm_memory *memory, int kernel_fd, int initrd_fd,
                 struct sm_hv_boot *ret_boot, struct sm_error *err)
{
	const struct sm_arch *arch = arch_of(plan->arch);
	if (!arch)
		return sm_error_set(err, ENOEXEC, "arch: %d is not one this build knows", (int)plan->arch);
	struct sm_arch_kernel kernel = { .fd = kernel_fd };
	int code = file_size(kernel_fd, "kernel", &kernel.bytes, err);
	if (code < 0)
		return code;
	uint8_t head[HEAD_BYTES];
	size_t len = kernel.bytes < sizeof head ? kernel.bytes : sizeof head;
	code = sm_fd_pread_full(kernel_fd, head, len, 0);
	if (code < 0)
		return sm_error_sys(err, code, "kernel: read");
	code = sniff(plan->arch, head, len, &kernel.format, err);
	return code < 0 ? code : arch->load(plan, memory, &kernel, initrd_fd, ret_boot, err);
}
