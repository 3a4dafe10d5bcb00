/* hold: keep one idle virtual machine with one vCPU for as long as the emulated host lives.
 *
 * KVM turns code of the scheduler and of its interrupt controller on with the first machine and off with the last, by
 * rewriting kernel text under a breakpoint.  QEMU's multi-threaded TCG can go on executing the breakpoint from its
 * cache of translated code after it is gone, and both CPUs then loop in it for ever.  While a machine is held, nothing
 * is rewritten. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR);
	int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0 || ioctl(vm, KVM_CREATE_IRQCHIP, 0) < 0 || ioctl(vm, KVM_CREATE_VCPU, 0) < 0) {
		perror("hold: /dev/kvm");
		return 1;
	}
	/* The caller goes on when the machine is there; the child keeps its descriptors. */
	if (fork() == 0)
		for (;;)
			pause();
	return 0;
}
