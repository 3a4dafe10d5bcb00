#include "wire.h"

#include <string.h>

static const uint8_t *take(struct sm_wire *wire, size_t len)
{
	if (wire->failed || len > wire->left) {
		wire->failed = true;
		return NULL;
	}
	const uint8_t *at = wire->at;
	wire->at += len;
	wire->left -= len;
	return at;
}

static uint64_t take_integer(struct sm_wire *wire, unsigned len)
{
	const uint8_t *at = take(wire, len);
	uint64_t value = 0;
	for (unsigned i = 0; at && i < len; i++)
		value |= (uint64_t)at[i] << (8 * i);
	return value;
}

uint16_t sm_wire_u16(struct sm_wire *wire)
{
	return (uint16_t)take_integer(wire, 2);
}

uint32_t sm_wire_u32(struct sm_wire *wire)
{
	return (uint32_t)take_integer(wire, 4);
}

uint64_t sm_wire_u64(struct sm_wire *wire)
{
	return take_integer(wire, 8);
}

const uint8_t *sm_wire_bytes(struct sm_wire *wire, size_t *ret_len)
{
	*ret_len = sm_wire_u32(wire);
	const uint8_t *at = take(wire, *ret_len);
	if (!at)
		*ret_len = 0;
	return at;
}

char *sm_wire_string(struct sm_wire *wire)
{
	uint8_t *start = wire->at;
	size_t len;
	const uint8_t *bytes = sm_wire_bytes(wire, &len);
	if (!bytes || (len && memchr(bytes, 0, len))) {
		wire->failed = true;
		wire->none[0] = 0;
		return wire->none;
	}
	memmove(start, bytes, len);
	start[len] = 0;
	return (char *)start;
}

static uint8_t *put_integer(uint8_t *at, uint64_t value, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		*at++ = (uint8_t)(value >> (8 * i));
	return at;
}

uint8_t *sm_wire_put_u16(uint8_t *at, uint16_t value)
{
	return put_integer(at, value, 2);
}

uint8_t *sm_wire_put_u32(uint8_t *at, uint32_t value)
{
	return put_integer(at, value, 4);
}

uint8_t *sm_wire_put_u64(uint8_t *at, uint64_t value)
{
	return put_integer(at, value, 8);
}
