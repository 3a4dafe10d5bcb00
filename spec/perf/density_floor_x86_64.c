/* The floor under an idle machine's memory: what the kernel alone takes for a virtual machine that has run, with
 * nothing of this project around it.  One VM with its interrupt controllers, one memory slot mapped MAP_PRIVATE from a
 * file and logged, the vCPUs, and KVM_RUN until the first port access of vCPU 0.
 *
 * Makes BATCHES of EACH such machines, keeps them all, and prints a line a batch: what one of it takes of the host's
 * MemAvailable, in KiB.
 *
 *   density_floor BATCHES EACH MIB VCPUS */
#include "floor_x86_64.h"

#include <fcntl.h>
#include <sys/mman.h>

static long available_kib(void)
{
	char line[256];
	long kib = -1;
	FILE *file = fopen("/proc/meminfo", "r");
	if (!file)
		fail("/proc/meminfo");
	while (fgets(line, sizeof line, file) && sscanf(line, "MemAvailable: %ld", &kib) != 1)
		;
	fclose(file);
	return kib;
}

static void make(int kvm, int ram_file, size_t bytes, unsigned vcpus)
{
	int vm = call(kvm, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
	size_t run_bytes = (size_t)call(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE");
	void *ram = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, ram_file, 0);
	if (ram == MAP_FAILED)
		fail("mmap");
	struct kvm_userspace_memory_region region = { .flags = KVM_MEM_LOG_DIRTY_PAGES,
		                                      .memory_size = bytes,
		                                      .userspace_addr = (uintptr_t)ram };
	call(vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
	call(vm, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP");
	for (unsigned i = 0; i < vcpus; i++) {
		int vcpu = call(vm, KVM_CREATE_VCPU, (void *)(uintptr_t)i, "KVM_CREATE_VCPU");
		struct kvm_run *run = mmap(NULL, run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
		if (run == MAP_FAILED)
			fail("mmap of the vCPU");
		if (i > 0)
			continue;
		start_flat(vcpu);
		run_to_port(vcpu, run);
	}
}

int main(int argc, char **argv)
{
	if (argc != 5) {
		fprintf(stderr, "usage: density_floor BATCHES EACH MIB VCPUS\n");
		return 2;
	}
	int batches = atoi(argv[1]), each = atoi(argv[2]);
	size_t bytes = (size_t)atoi(argv[3]) << 20;
	unsigned vcpus = (unsigned)atoi(argv[4]);
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		fail("/dev/kvm");
	int ram_file = make_ram(bytes);
	for (int batch = 0; batch < batches; batch++) {
		long before = available_kib();
		for (int i = 0; i < each; i++)
			make(kvm, ram_file, bytes, vcpus);
		printf("%.1f\n", (double)(before - available_kib()) / each);
	}
	return 0;
}
