/* Reading and writing the protocol's little-endian fields. */
#ifndef SM_GUEST_WIRE_H
#define SM_GUEST_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A read past the end sets `failed` and gives zeros; check it once, after the last field. */
struct sm_wire {
	uint8_t *at;
	size_t left;
	bool failed;
	char none[1]; /* what a failed string is */
};

uint16_t sm_wire_u16(struct sm_wire *wire);
uint32_t sm_wire_u32(struct sm_wire *wire);
uint64_t sm_wire_u64(struct sm_wire *wire);
/* A string, ended with a NUL in place: it takes the room of its own length field.  "" when it fails, or holds a
 * NUL of its own. */
char *sm_wire_string(struct sm_wire *wire);
/* A length and that many bytes, borrowed. */
const uint8_t *sm_wire_bytes(struct sm_wire *wire, size_t *ret_len);
/* Everything was there, and nothing else. */
static inline bool sm_wire_ended(const struct sm_wire *wire)
{
	return !wire->failed && wire->left == 0;
}

/* Each returns the place after what it wrote. */
uint8_t *sm_wire_put_u16(uint8_t *at, uint16_t value);
uint8_t *sm_wire_put_u32(uint8_t *at, uint32_t value);
uint8_t *sm_wire_put_u64(uint8_t *at, uint64_t value);

#endif
