/* The KVM back end of hv.h, for Linux. */
#ifndef SM_HV_KVM_KVM_H
#define SM_HV_KVM_KVM_H

#include "hv/hv.h"

extern const struct sm_hv sm_hv_kvm;

#endif
