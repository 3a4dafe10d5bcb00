/* One description of a structure's fields that serves both directions: written to a buffer or read from a record, so
 * save and load cannot disagree. */
#ifndef SM_HV_KVM_WIRE_H
#define SM_HV_KVM_WIRE_H

#include "base/codec.h"

struct sm_wire {
	struct sm_buf *out;   /* NULL: reading */
	struct sm_reader *in; /* NULL: writing */
};

#define SM_WIRE_FIELD(bits) \
	static inline void sm_wire_u##bits(struct sm_wire *wire, void *field) \
	{ \
		uint##bits##_t *value = field; \
		if (wire->out) \
			sm_put_u##bits(wire->out, *value); \
		else \
			*value = sm_get_u##bits(wire->in); \
	}

SM_WIRE_FIELD(8)
SM_WIRE_FIELD(16)
SM_WIRE_FIELD(32)
SM_WIRE_FIELD(64)

#undef SM_WIRE_FIELD

static inline void sm_wire_bytes(struct sm_wire *wire, void *data, size_t len)
{
	if (wire->out)
		sm_put_bytes(wire->out, data, len);
	else
		sm_get_exact(wire->in, data, len);
}

#endif
