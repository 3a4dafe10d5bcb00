#include "rootfs/composite.h"

#include "base/fd.h"
#include "base/sha256.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define SECTOR_BYTES 512u
#define ALIGN_BYTES  (1u << 20)
#define ENTRIES_MIN  128u /* a reader may expect at least so many */
#define LAYER_MAX    (1ull << 50)

struct guid {
	uint8_t bytes[16];
};

struct gpt_header {
	char signature[8];
	uint32_t revision;
	uint32_t header_bytes;
	uint32_t header_crc;
	uint32_t reserved;
	uint64_t my_lba;
	uint64_t alternate_lba;
	uint64_t first_usable_lba;
	uint64_t last_usable_lba;
	struct guid disk;
	uint64_t entries_lba;
	uint32_t nentries;
	uint32_t entry_bytes;
	uint32_t entries_crc;
} __attribute__((packed));
static_assert(sizeof(struct gpt_header) == 92, "GPT header");

struct gpt_entry {
	struct guid type;
	struct guid partition;
	uint64_t first_lba;
	uint64_t last_lba;
	uint64_t attributes;
	uint16_t name[36]; /* UTF-16LE */
};
static_assert(sizeof(struct gpt_entry) == 128, "GPT entry");

/* 0FC63DAF-8483-4772-8E79-3D69D8477DE4, in the mixed byte order that the table has */
static const struct guid linux_filesystem = { { 0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69,
	                                        0xd8, 0x47, 0x7d, 0xe4 } };

struct sm_composite {
	struct sm_disk disk;
	uint8_t *head; /* protective MBR, header, entries */
	uint8_t *tail; /* entries, backup header */
	struct sm_disk_segment segments[];
};

/* A version 8 GUID (RFC 9562) out of the text's hash. */
static int make_guid(const char *text, struct guid *ret_guid, struct sm_error *err)
{
	char hex[SM_SHA256_HEX + 1];
	int code = sm_sha256_hex(text, strlen(text), hex);
	if (code < 0)
		return sm_error_sys(err, code, "hash");
	for (int i = 0; i < 16; i++) {
		char byte[3] = { hex[2 * i], hex[2 * i + 1], 0 };
		ret_guid->bytes[i] = (uint8_t)strtoul(byte, NULL, 16);
	}
	ret_guid->bytes[7] = (ret_guid->bytes[7] & 0x0f) | 0x80; /* the version's byte, in mixed order */
	ret_guid->bytes[8] = (ret_guid->bytes[8] & 0x3f) | 0x80;
	return 0;
}

static uint64_t round_up(uint64_t value, uint64_t step)
{
	return (value + step - 1) / step * step;
}

/* One partition that says to tools without GPT that the disk is taken. */
static void write_mbr(uint8_t *sector, uint64_t disk_bytes)
{
	uint64_t sectors = disk_bytes / SECTOR_BYTES - 1;
	uint32_t covered = htole32(sectors > UINT32_MAX ? UINT32_MAX : (uint32_t)sectors);
	uint32_t first = htole32(1);
	uint8_t *entry = sector + 446;
	entry[2] = 0x02;            /* first sector as cylinder, head, sector: 0, 0, 2 */
	entry[4] = 0xee;            /* GPT protective */
	memset(entry + 5, 0xff, 3); /* last sector: beyond what can be said */
	memcpy(entry + 8, &first, 4);
	memcpy(entry + 12, &covered, 4);
	sector[510] = 0x55;
	sector[511] = 0xaa;
}

static void write_header(uint8_t *sector, const struct gpt_header *base, uint64_t my_lba, uint64_t alternate_lba,
                         uint64_t entries_lba)
{
	struct gpt_header header = *base;
	header.my_lba = htole64(my_lba);
	header.alternate_lba = htole64(alternate_lba);
	header.entries_lba = htole64(entries_lba);
	header.header_crc = 0;
	header.header_crc = htole32((uint32_t)crc32(0, (const uint8_t *)&header, sizeof header));
	memcpy(sector, &header, sizeof header);
}

/* Lay out the partitions, as table entries and as segments 1 to nlayers. */
static int place_layers(struct sm_composite *composite, const struct sm_composite_layer *layers, size_t nlayers,
                        struct gpt_entry *entries, uint64_t start, uint64_t *ret_end, struct sm_error *err)
{
	for (size_t i = 0; i < nlayers; i++) {
		const struct sm_composite_layer *layer = &layers[i];
		if (!layer->bytes || layer->bytes % SECTOR_BYTES || layer->bytes > LAYER_MAX)
			return sm_error_set(err, EINVAL, "layer %zu: image of %llu bytes", i,
			                    (unsigned long long)layer->bytes);
		char text[512], name[36];
		snprintf(text, sizeof text, "partition %zu %s", i, layer->digest);
		int code = make_guid(text, &entries[i].partition, err);
		if (code < 0)
			return code;
		entries[i].type = linux_filesystem;
		entries[i].first_lba = htole64(start / SECTOR_BYTES);
		entries[i].last_lba = htole64((start + layer->bytes) / SECTOR_BYTES - 1);
		int len = snprintf(name, sizeof name, "layer-%zu", i);
		for (int at = 0; at < len; at++)
			entries[i].name[at] = htole16((uint16_t)name[at]);
		composite->segments[i + 1] =
		    (struct sm_disk_segment){ .offset = start, .length = layer->bytes, .fd = layer->fd };
		*ret_end = start + layer->bytes;
		start = round_up(*ret_end, ALIGN_BYTES);
	}
	return 0;
}

static int disk_guid(const struct gpt_entry *entries, size_t count, struct guid *ret_guid, struct sm_error *err)
{
	char text[SM_SHA256_HEX + 8] = "disk ";
	int code = sm_sha256_hex(entries, count * sizeof *entries, text + 5);
	return code < 0 ? sm_error_sys(err, code, "hash") : make_guid(text, ret_guid, err);
}

static int build(struct sm_composite *composite, const struct sm_composite_layer *layers, size_t nlayers,
                 struct sm_error *err)
{
	uint32_t nentries = nlayers > ENTRIES_MIN ? (uint32_t)round_up(nlayers, 4) : ENTRIES_MIN;
	size_t table = nentries * sizeof(struct gpt_entry), head = 2 * SECTOR_BYTES + table,
	       tail = table + SECTOR_BYTES;
	composite->head = calloc(1, head);
	composite->tail = calloc(1, tail);
	if (!composite->head || !composite->tail)
		return sm_error_sys(err, ENOMEM, "composite disk");
	struct gpt_entry *entries = (struct gpt_entry *)(composite->head + 2 * SECTOR_BYTES);
	uint64_t end = head;
	int code = place_layers(composite, layers, nlayers, entries, round_up(head, ALIGN_BYTES), &end, err);
	if (code < 0)
		return code;
	uint64_t bytes = round_up(end + tail, ALIGN_BYTES), last_lba = bytes / SECTOR_BYTES - 1;
	uint64_t tail_start = bytes - tail;
	struct gpt_header header = {
		.signature = { 'E', 'F', 'I', ' ', 'P', 'A', 'R', 'T' },
		.revision = htole32(0x00010000),
		.header_bytes = htole32(sizeof(struct gpt_header)),
		.first_usable_lba = htole64(head / SECTOR_BYTES),
		.last_usable_lba = htole64(tail_start / SECTOR_BYTES - 1),
		.nentries = htole32(nentries),
		.entry_bytes = htole32(sizeof(struct gpt_entry)),
		.entries_crc = htole32((uint32_t)crc32(0, (const uint8_t *)entries, (uInt)table)),
	};
	code = disk_guid(entries, nlayers, &header.disk, err);
	if (code < 0)
		return code;
	write_mbr(composite->head, bytes);
	write_header(composite->head + SECTOR_BYTES, &header, 1, last_lba, 2);
	memcpy(composite->tail, entries, table);
	write_header(composite->tail + table, &header, last_lba, 1, tail_start / SECTOR_BYTES);
	composite->segments[0] =
	    (struct sm_disk_segment){ .offset = 0, .length = head, .fd = -1, .memory = composite->head };
	composite->segments[nlayers + 1] =
	    (struct sm_disk_segment){ .offset = tail_start, .length = tail, .fd = -1, .memory = composite->tail };
	composite->disk =
	    (struct sm_disk){ .bytes = bytes, .nsegments = (unsigned)nlayers + 2, .segments = composite->segments };
	return 0;
}

int sm_composite_new(const struct sm_composite_layer *layers, size_t nlayers, struct sm_composite **ret_composite,
                     struct sm_error *err)
{
	if (!nlayers || nlayers > SM_COMPOSITE_LAYERS_MAX)
		return sm_error_set(err, E2BIG, "an image of %zu layers; a disk holds 1 to %d", nlayers,
		                    SM_COMPOSITE_LAYERS_MAX);
	struct sm_composite *composite = calloc(1, sizeof *composite + (nlayers + 2) * sizeof(struct sm_disk_segment));
	if (!composite)
		return sm_error_sys(err, ENOMEM, "composite disk");
	int code = build(composite, layers, nlayers, err);
	if (code < 0) {
		sm_composite_free(composite);
		return sm_error_context(err, "composite disk");
	}
	*ret_composite = composite;
	return 0;
}

void sm_composite_free(struct sm_composite *composite)
{
	if (!composite)
		return;
	free(composite->head);
	free(composite->tail);
	free(composite);
}

const struct sm_disk *sm_composite_disk(const struct sm_composite *composite)
{
	return &composite->disk;
}

int sm_composite_read(const struct sm_disk *disk, uint64_t offset, void *data, size_t len)
{
	uint8_t *out = data;
	if (offset > disk->bytes || len > disk->bytes - offset)
		return -EINVAL;
	memset(out, 0, len);
	for (unsigned i = 0; i < disk->nsegments; i++) {
		const struct sm_disk_segment *segment = &disk->segments[i];
		uint64_t first = segment->offset > offset ? segment->offset : offset;
		uint64_t end = segment->offset + segment->length;
		if (end > offset + len)
			end = offset + len;
		if (first >= end)
			continue;
		uint64_t skip = first - segment->offset;
		if (segment->fd >= 0) {
			int code = sm_fd_pread_full(segment->fd, out + (first - offset), (size_t)(end - first),
			                            segment->fd_offset + skip);
			if (code < 0)
				return code == -ENODATA ? -EIO : code;
		} else if (segment->memory) {
			memcpy(out + (first - offset), (const uint8_t *)segment->memory + skip, (size_t)(end - first));
		}
	}
	return 0;
}
