/* hold: what an emulated host needs to go on, for as long as it lives.
 *
 * A pulse.  QEMU's SVM changes the CPU's mask of interrupt requests at VMRUN and #VMEXIT without the lock under which
 * other threads set bits in it, and theirs can be lost.  The interrupt stays pending in the local APIC, but nobody looks
 * until the next one comes; was it the timer's, and the CPU halts, then none does, and the host sleeps for good.  The
 * HPET's interrupts come whatever the CPU does.
 *
 * A machine.  KVM turns code of the scheduler and of its interrupt controller on with the first machine and off with the
 * last, by rewriting kernel text, which takes long here.  While one is held, nothing is rewritten. */
#include <fcntl.h>
#include <linux/hpet.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PULSE_HZ 2ul

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR);
	int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0 || ioctl(vm, KVM_CREATE_IRQCHIP, 0) < 0 || ioctl(vm, KVM_CREATE_VCPU, 0) < 0) {
		perror("hold: /dev/kvm");
		return 1;
	}
	int hpet = open("/dev/hpet", O_RDONLY);
	if (hpet < 0 || ioctl(hpet, HPET_IRQFREQ, PULSE_HZ) < 0 || ioctl(hpet, HPET_EPI, 0) < 0 ||
	    ioctl(hpet, HPET_IE_ON, 0) < 0) {
		perror("hold: /dev/hpet");
		return 1;
	}
	/* The caller goes on when both are there; the child keeps the descriptors. */
	if (fork() == 0)
		for (;;)
			pause();
	return 0;
}
