/* What the bare programs share: system calls that must succeed, and a guest that accesses a port for ever. */
#ifndef FLOOR_X86_64_H
#define FLOOR_X86_64_H

#include <errno.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define FLOOR_ENTRY 0x100000

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(1);
}

static int call(int fd, unsigned long request, void *arg, const char *what)
{
	int result = ioctl(fd, request, arg);
	if (result < 0)
		fail(what);
	return result;
}

/* An unlinked file with the guest's code in it. */
static int make_ram(size_t bytes)
{
	static const uint8_t code[] = { 0xe6, 0x10, 0xeb, 0xfc }; /* 1: out %al, $0x10; jmp 1b */
	char path[] = "/tmp/floor.XXXXXX";
	int fd = mkstemp(path);
	if (fd < 0 || unlink(path) < 0 || ftruncate(fd, (off_t)bytes) < 0 ||
	    pwrite(fd, code, sizeof code, FLOOR_ENTRY) != sizeof code)
		fail("RAM file");
	return fd;
}

/* Flat 32-bit segments, no paging. */
static void start_flat(int vcpu)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = FLOOR_ENTRY, .rflags = 2 };
	call(vcpu, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
	struct kvm_segment code = {
		.limit = UINT32_MAX, .selector = 8, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1
	};
	struct kvm_segment data = code;
	data.selector = 16;
	data.type = 3;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr0 = 0x11;
	call(vcpu, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
	call(vcpu, KVM_SET_REGS, &regs, "KVM_SET_REGS");
}

static void run_to_port(int vcpu, const struct kvm_run *run)
{
	call(vcpu, KVM_RUN, NULL, "KVM_RUN");
	if (run->exit_reason != KVM_EXIT_IO) {
		fprintf(stderr, "%s: the guest left with exit %u\n", program_invocation_short_name, run->exit_reason);
		exit(1);
	}
}

#endif
