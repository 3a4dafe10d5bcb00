#include "plan/plan.h"

enum sm_plan_arch sm_plan_arch_host(void)
{
	return SM_PLAN_AARCH64;
}
