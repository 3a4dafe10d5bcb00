/* check_line NAME: one check of what a device's edge is to the hypervisor. */
#include "../base/check.h"
#include "machine/machine.h"

static char said[64];

static int note(struct sm_hv_vm *vm, unsigned irq, bool level)
{
	(void)vm;
	size_t len = strlen(said);
	snprintf(said + len, sizeof said - len, "%u%s ", irq, level ? "+" : "-");
	return 0;
}

/* Each one rises anew, so each is taken back. */
static void check_edges(void)
{
	static const struct sm_hv hv = { .vm_irq_set = note };
	struct sm_machine machine = { .hv = &hv };
	const struct sm_line line = sm_machine_line(&machine, 7), other = sm_machine_line(&machine, 9);
	sm_line_raise(&line);
	sm_line_raise(&other);
	sm_line_raise(&line);
	CHECK(strcmp(said, "7+ 7- 9+ 9- 7+ 7- ") == 0);
}

int main(int argc, char **argv)
{
	static const struct check checks[] = {
		{ "edges", check_edges },
		{ NULL, NULL },
	};
	return check_main(checks, argc, argv);
}
