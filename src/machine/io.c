/* Where a guest's accesses go, and how devices reach the guest's interrupt controller. */
#include "machine/machine.h"

#include "base/fd.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

static bool dispatch(const struct sm_bus *bus, struct sm_hv_exit *io)
{
	if (io->write)
		return sm_bus_write(bus, io->address, io->size, io->data);
	return sm_bus_read(bus, io->address, io->size, &io->data);
}

bool sm_machine_mmio(struct sm_machine *machine, struct sm_hv_exit *io)
{
	return dispatch(&machine->mmio, io);
}

bool sm_machine_pio(struct sm_machine *machine, struct sm_hv_exit *io)
{
	return dispatch(&machine->pio, io);
}

/* ---- devices ------------------------------------------------------------------------------------------------ */

static uint64_t device_read(void *ctx, uint64_t offset, unsigned size)
{
	return sm_virtio_mmio_read(ctx, offset, size);
}

static void device_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
	/* Comes here only where the back end has no ioeventfd. */
	if (offset == SM_VIRTIO_QUEUE_NOTIFY && size == 4)
		sm_fd_event_raise(sm_virtio_kick_fd(ctx));
	else
		sm_virtio_mmio_write(ctx, offset, size, value);
}

int sm_machine_add_device(struct sm_machine *machine, unsigned number, struct sm_error *err)
{
	const struct sm_bus_range range = {
		.base = machine->plan.slots[number].base,
		.length = machine->plan.mmio_stride,
		.read = device_read,
		.write = device_write,
		.ctx = machine->devices[number].virtio,
	};
	return sm_bus_add(&machine->mmio, &range, err);
}

void sm_machine_pause_devices(struct sm_machine *machine)
{
	sm_loop_pause(machine->loop);
	for (unsigned i = 0; i < machine->plan.nslots; i++)
		sm_virtio_pause(machine->devices[i].virtio);
}

void sm_machine_resume_devices(struct sm_machine *machine)
{
	for (unsigned i = 0; i < machine->plan.nslots; i++)
		sm_virtio_resume(machine->devices[i].virtio);
	sm_loop_resume(machine->loop);
}

bool sm_machine_has_windows(const struct sm_machine *machine)
{
	for (unsigned i = 0; i < machine->plan.nslots; i++)
		if (machine->devices[i].window.bytes)
			return true;
	return false;
}

bool sm_machine_mend(struct sm_machine *machine)
{
	unsigned mended = 0;
	for (unsigned i = 0; i < machine->plan.nslots; i++)
		if (machine->devices[i].window.bytes)
			mended += sm_virtio_fs_mend(machine->devices[i].virtio);
	return mended > 0;
}

/* ---- interrupts --------------------------------------------------------------------------------------------- */

/* Not by an irqfd: for a pin of an interrupt controller KVM has a kernel thread do what a write to one asks for, and a
 * machine would need one for each device that never has anything to say. */
static void raise_edge(void *arg, unsigned irq)
{
	struct sm_machine *machine = arg;
	(void)machine->hv->vm_irq_set(machine->vm, irq, true);
	(void)machine->hv->vm_irq_set(machine->vm, irq, false);
}

struct sm_line sm_machine_line(struct sm_machine *machine, unsigned irq)
{
	return (struct sm_line){ .raise = raise_edge, .arg = machine, .irq = irq };
}
