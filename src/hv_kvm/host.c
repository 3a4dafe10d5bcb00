/* On Linux the hypervisor is KVM. */
#include "hv/hv.h"
#include "hv_kvm/kvm.h"

const struct sm_hv *sm_hv_host(void)
{
	return &sm_hv_kvm;
}
