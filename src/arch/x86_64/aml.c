#include "arch/x86_64/aml.h"

#include <stdbool.h>
#include <string.h>

enum {
	ZERO_OP = 0x00,
	ONE_OP = 0x01,
	NAME_OP = 0x08,
	BYTE_PREFIX = 0x0a,
	WORD_PREFIX = 0x0b,
	DWORD_PREFIX = 0x0c,
	STRING_PREFIX = 0x0d,
	QWORD_PREFIX = 0x0e,
	SCOPE_OP = 0x10,
	BUFFER_OP = 0x11,
	PACKAGE_OP = 0x12,
	METHOD_OP = 0x14,
	DUAL_NAME_PREFIX = 0x2e,
	EXT_PREFIX = 0x5b,
	ROOT_CHAR = 0x5c,
	ARG0_OP = 0x68,
	EXT_DEVICE_OP = 0x82,
	NOTIFY_OP = 0x86,
	LEQUAL_OP = 0x93,
	IF_OP = 0xa0,
};

#define METHOD_SERIALIZED 0x08

/* Resource descriptors. */
#define RESOURCE_IO        0x47 /* small, 7 bytes follow */
#define RESOURCE_END_TAG   0x79 /* small, 1 byte follows: a checksum, 0 for none */
#define RESOURCE_MEMORY32  0x86 /* large */
#define RESOURCE_INTERRUPT 0x89 /* large */
#define IO_DECODE16        0x01
#define MEMORY_READ_WRITE  0x01
#define INTERRUPT_CONSUMER 0x01
#define INTERRUPT_EDGE     0x02 /* active high and exclusive are zero bits */

static void byte(struct sm_buf *buf, uint8_t value)
{
	sm_buf_append(buf, &value, 1);
}

static void little_endian(struct sm_buf *buf, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		byte(buf, (uint8_t)(value >> (8 * i)));
}

static void name_segment(struct sm_buf *buf, const char *name)
{
	char segment[4] = "____";
	memcpy(segment, name, strnlen(name, sizeof segment));
	sm_buf_append(buf, segment, sizeof segment);
}

/* PkgLength counts itself, in 1 to 4 bytes (ACPI 6.4, 20.2.4): made room for once the content is known. */
void sm_aml_end(struct sm_buf *buf, size_t mark)
{
	if (buf->failed)
		return;
	size_t content = buf->len - mark;
	unsigned size = content + 1 <= 0x3f ? 1 : content + 2 <= 0xfff ? 2 : content + 3 <= 0xfffff ? 3 : 4;
	if (!sm_buf_append_zero(buf, size)) {
		uint8_t *at = buf->data + mark;
		size_t length = content + size;
		memmove(at + size, at, content);
		if (size == 1) {
			at[0] = (uint8_t)length;
			return;
		}
		at[0] = (uint8_t)((size - 1) << 6 | (length & 0xf));
		for (unsigned i = 1; i < size; i++)
			at[i] = (uint8_t)(length >> (8 * i - 4));
	}
}

size_t sm_aml_scope_begin(struct sm_buf *buf, const char *root_child)
{
	byte(buf, SCOPE_OP);
	size_t mark = buf->len;
	byte(buf, ROOT_CHAR);
	name_segment(buf, root_child);
	return mark;
}

size_t sm_aml_device_begin(struct sm_buf *buf, const char *name)
{
	byte(buf, EXT_PREFIX);
	byte(buf, EXT_DEVICE_OP);
	size_t mark = buf->len;
	name_segment(buf, name);
	return mark;
}

size_t sm_aml_method_begin(struct sm_buf *buf, const char *name, unsigned arguments)
{
	byte(buf, METHOD_OP);
	size_t mark = buf->len;
	name_segment(buf, name);
	byte(buf, (uint8_t)(METHOD_SERIALIZED | (arguments & 7)));
	return mark;
}

size_t sm_aml_package_begin(struct sm_buf *buf, unsigned elements)
{
	byte(buf, PACKAGE_OP);
	size_t mark = buf->len;
	byte(buf, (uint8_t)elements);
	return mark;
}

void sm_aml_name(struct sm_buf *buf, const char *name)
{
	byte(buf, NAME_OP);
	name_segment(buf, name);
}

void sm_aml_integer(struct sm_buf *buf, uint64_t value)
{
	if (value <= 1) {
		byte(buf, value ? ONE_OP : ZERO_OP);
	} else if (value <= UINT8_MAX) {
		byte(buf, BYTE_PREFIX);
		little_endian(buf, value, 1);
	} else if (value <= UINT16_MAX) {
		byte(buf, WORD_PREFIX);
		little_endian(buf, value, 2);
	} else if (value <= UINT32_MAX) {
		byte(buf, DWORD_PREFIX);
		little_endian(buf, value, 4);
	} else {
		byte(buf, QWORD_PREFIX);
		little_endian(buf, value, 8);
	}
}

void sm_aml_string(struct sm_buf *buf, const char *text)
{
	byte(buf, STRING_PREFIX);
	sm_buf_append(buf, text, strlen(text) + 1);
}

static unsigned hex_digit(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);
}

/* Three letters of five bits and four hexadecimal digits, big-endian (ACPI 6.4, 19.3.4). */
void sm_aml_eisa_id(struct sm_buf *buf, const char *id)
{
	unsigned vendor = (unsigned)(id[0] - '@') << 10 | (unsigned)(id[1] - '@') << 5 | (unsigned)(id[2] - '@');
	byte(buf, DWORD_PREFIX);
	byte(buf, (uint8_t)(vendor >> 8));
	byte(buf, (uint8_t)vendor);
	byte(buf, (uint8_t)(hex_digit(id[3]) << 4 | hex_digit(id[4])));
	byte(buf, (uint8_t)(hex_digit(id[5]) << 4 | hex_digit(id[6])));
}

void sm_aml_notify_if_arg0(struct sm_buf *buf, uint64_t value, const char *scope, const char *device, uint8_t code)
{
	byte(buf, IF_OP);
	size_t mark = buf->len;
	byte(buf, LEQUAL_OP);
	byte(buf, ARG0_OP);
	sm_aml_integer(buf, value);
	byte(buf, NOTIFY_OP);
	byte(buf, ROOT_CHAR);
	byte(buf, DUAL_NAME_PREFIX);
	name_segment(buf, scope);
	name_segment(buf, device);
	sm_aml_integer(buf, code);
	sm_aml_end(buf, mark);
}

/* The buffer's size stands before its bytes: a word, filled in at the end. */
size_t sm_aml_resources_begin(struct sm_buf *buf)
{
	byte(buf, BUFFER_OP);
	size_t mark = buf->len;
	byte(buf, WORD_PREFIX);
	little_endian(buf, 0, 2);
	return mark;
}

void sm_aml_resource_memory32(struct sm_buf *buf, uint32_t base, uint32_t length)
{
	byte(buf, RESOURCE_MEMORY32);
	little_endian(buf, 9, 2);
	byte(buf, MEMORY_READ_WRITE);
	little_endian(buf, base, 4);
	little_endian(buf, length, 4);
}

void sm_aml_resource_ports(struct sm_buf *buf, uint16_t base, uint8_t length)
{
	byte(buf, RESOURCE_IO);
	byte(buf, IO_DECODE16);
	little_endian(buf, base, 2); /* lowest base */
	little_endian(buf, base, 2); /* highest base */
	byte(buf, 1);                /* alignment */
	byte(buf, length);
}

void sm_aml_resource_interrupt(struct sm_buf *buf, uint32_t gsi)
{
	byte(buf, RESOURCE_INTERRUPT);
	little_endian(buf, 6, 2);
	byte(buf, INTERRUPT_CONSUMER | INTERRUPT_EDGE);
	byte(buf, 1); /* interrupts that follow */
	little_endian(buf, gsi, 4);
}

void sm_aml_resources_end(struct sm_buf *buf, size_t mark)
{
	byte(buf, RESOURCE_END_TAG);
	byte(buf, 0);
	if (buf->failed)
		return;
	size_t bytes = buf->len - mark - 3;
	buf->data[mark + 1] = (uint8_t)bytes;
	buf->data[mark + 2] = (uint8_t)(bytes >> 8);
	sm_aml_end(buf, mark);
}
