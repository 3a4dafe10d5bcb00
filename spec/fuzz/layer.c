/* Layers: any bytes as a tar, packed or not, alone and over itself.  What is baked is a sound image; what is not leaves
 * nothing.  The mutator knows entries: it moves them, gives them each other's names, and mends sizes and sums. */
#include "rootfs/layer.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK       512u
#define ENTRIES_MAX 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max);
const char *__asan_default_options(void);

/* What is freed need not be kept long: each run frees a megabyte. */
const char *__asan_default_options(void)
{
	return "quarantine_size_mb=16";
}

static int open_below(void *arg, const int **ret_fds, size_t *ret_count, struct sm_error *err)
{
	(void)err;
	*ret_fds = arg;
	*ret_count = 1;
	return 0;
}

struct input {
	const uint8_t *data;
	size_t len;
};

/* In pieces: what spans two must be put together right. */
static ssize_t read_input(void *arg, void *buffer, size_t size)
{
	struct input *input = arg;
	size_t part = input->len < size ? input->len : size;
	part = part < 4000 ? part : 4000;
	memcpy(buffer, input->data, part);
	input->data += part;
	input->len -= part;
	return (ssize_t)part;
}

/* 0 and the image's descriptor, or what was wrong. */
static int bake(struct input input, const char *path, const struct sm_rootfs_below *below, int *ret_image)
{
	const struct sm_rootfs_options options = {
		.max_bytes = 16u << 20,
		.max_memory_bytes = 16u << 20,
		.max_entries = 4096,
	};
	struct sm_rootfs_layer_stats stats;
	struct sm_error err = { 0 };
	char digest[sizeof "sha256:" + SM_SHA256_HEX];
	const struct sm_rootfs_tar tar = { .read = read_input, .arg = &input };
	int code = sm_rootfs_layer_bake(&tar, NULL, path, below, &options, &stats, &err);
	const char *place = code >= 0 && stats.chained ? below->out_path : path;
	*ret_image = open(place, O_RDONLY | O_CLOEXEC);
	unlink(place);
	if (access(path, F_OK) == 0 || (*ret_image >= 0) != (code >= 0))
		abort(); /* half done, or in two places */
	if (code < 0 && (!err.code || !err.message[0]))
		abort();
	if (code < 0)
		return code;
	snprintf(digest, sizeof digest, "sha256:%s", stats.digest);
	if ((uint64_t)lseek(*ret_image, 0, SEEK_END) != stats.image_bytes ||
	    sm_rootfs_layer_check(*ret_image, stats.chained ? below->chain_id : digest) < 0)
		abort();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static char path[64], chained[80];
	const struct input input = { data, len };
	if (!path[0]) {
		snprintf(path, sizeof path, "/dev/shm/supermachine-fuzz-%d.erofs", (int)getpid());
		snprintf(chained, sizeof chained, "%s.chained", path);
	}
	int image, over;
	if (bake(input, path, NULL, &image) < 0)
		return 0;
	const struct sm_rootfs_below below = {
		.chain_id = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		.out_path = chained,
		.open = open_below,
		.arg = &image,
	};
	if (bake(input, path, &below, &over) == 0)
		close(over);
	close(image);
	return 0;
}

/* The mutator ------------------------------------------------------------------------------------ */

struct entries {
	size_t count;
	size_t start[ENTRIES_MAX + 1]; /* the last is where they end */
};

static size_t field_number(const uint8_t *field, size_t len)
{
	size_t number = 0;
	for (size_t i = 0; i < len && field[i] >= '0' && field[i] <= '7'; i++)
		number = number * 8 + (size_t)(field[i] - '0');
	return number;
}

static size_t blocks(size_t bytes)
{
	return (bytes + BLOCK - 1) / BLOCK * BLOCK;
}

static struct entries find_entries(const uint8_t *data, size_t len)
{
	struct entries entries = { 0 };
	size_t at = 0;
	while (entries.count < ENTRIES_MAX && at + BLOCK <= len && data[at]) {
		entries.start[entries.count++] = at;
		size_t size = field_number(data + at + 124, 12);
		at += BLOCK + (size < len - at - BLOCK ? blocks(size) : 0);
		at = at < len ? at : len;
	}
	entries.start[entries.count] = at;
	return entries;
}

static void mend_sums(uint8_t *data, size_t len)
{
	const struct entries entries = find_entries(data, len);
	for (size_t i = 0; i < entries.count; i++) {
		uint8_t *header = data + entries.start[i];
		unsigned sum = 0;
		memset(header + 148, ' ', 8);
		for (size_t at = 0; at < BLOCK; at++)
			sum += header[at];
		snprintf((char *)header + 148, 8, "%06o", sum);
	}
}

/* Put `more` bytes in place of `old` bytes at `at`; what does not fit is let be. */
static size_t put_in(uint8_t *data, size_t len, size_t max, size_t at, size_t old, const uint8_t *from, size_t more)
{
	if (len - old + more > max)
		return len;
	uint8_t *copy = malloc(more + 1);
	if (!copy)
		abort();
	memcpy(copy, from, more);
	memmove(data + at + more, data + at + old, len - at - old);
	memcpy(data + at, copy, more);
	free(copy);
	return len - old + more;
}

static const char *const names[] = {
	".",     "..",      "../x",           "./",           "/",      "a",        "b",         "a/b", "a/b/c",
	".wh.a", "a/.wh.b", "a/.wh..wh..opq", ".wh..wh..opq", ".wh.",   ".wh..",    ".wh..wh.x", "/a",  "a/../b",
	"b/",    "a//./b",  "../../..",       "/a/.",         "b/../a", "\xff\xc3",
};

/* A pax header with one record; its length counts itself. */
static size_t make_record(uint8_t out[2 * BLOCK], unsigned pick, const char *name)
{
	static const char *const records[] = {
		"path=%s",
		"linkpath=%s",
		"mtime=-1.5",
		"mtime=1e9",
		"size=5",
		"size=0",
		"size=99999999999",
		"uid=4294967295",
		"uid=70000",
		"SCHILY.xattr.user.a=%s",
		"SCHILY.xattr.trusted.overlay.opaque=y",
		"LIBARCHIVE.xattr.user.a=YQ",
		"GNU.sparse.major=1",
		"GNU.sparse.minor=0",
		"GNU.sparse.name=%s",
		"GNU.sparse.realsize=9000",
		"GNU.sparse.map=0,1,4096,1",
		"GNU.sparse.size=5000",
		"GNU.sparse.numblocks=1",
		"GNU.sparse.offset=4096",
		"GNU.sparse.numbytes=9",
		"SCHILY.devmajor=1",
		"SCHILY.dev=5",
		"hdrcharset=BINARY",
		"SCHILY.acl.access=user::rwx,group::r-x,other::r-x",
		"%s=x",
	};
	char text[BLOCK], record[BLOCK];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	int body = snprintf(text, sizeof text, records[pick % (sizeof records / sizeof *records)], name);
#pragma GCC diagnostic pop
	int all = body + 2;
	for (int i = 0; i < 3; i++)
		all = snprintf(record, sizeof record, "%d %s\n", all, text);
	memset(out, 0, 2 * BLOCK);
	memcpy(out, "pax", 3);
	snprintf((char *)out + 100, 8, "%07o", 0644);
	snprintf((char *)out + 124, 12, "%011o", (unsigned)all);
	out[156] = pick & 64 ? 'g' : 'x';
	memcpy(out + 257, "ustar\00000", 8);
	memcpy(out + BLOCK, record, (size_t)all);
	return 2 * BLOCK;
}

static size_t mutate_entries(uint8_t *data, size_t len, size_t max, unsigned seed)
{
	static const char types[] = "0012345671SLKVNDxg\0";
	const struct entries entries = find_entries(data, len);
	if (!entries.count)
		return LLVMFuzzerMutate(data, len, max);
	unsigned kind = seed % 10, pick = seed / 10;
	size_t one = pick % entries.count, two = pick / 64 % entries.count;
	uint8_t *header = data + entries.start[one];
	const uint8_t *other = data + entries.start[two];
	size_t bytes = entries.start[one + 1] - entries.start[one];
	size_t other_bytes = entries.start[two + 1] - entries.start[two];
	const char *name = names[pick / 4096 % (sizeof names / sizeof *names)];
	uint8_t record[2 * BLOCK];
	char text[101] = { 0 };
	switch (kind) {
	case 0: /* an entry again, before another */
		return put_in(data, len, max, entries.start[one], 0, other, other_bytes);
	case 1: /* an entry less */
		return put_in(data, len, max, entries.start[one], bytes, header, 0);
	case 2:
		header[156] = (uint8_t)types[pick / 4096 % (sizeof types - 1)];
		return len;
	case 3: /* a name, or where a link leads */
		memset(header + (pick & 1 ? 157 : 0), 0, 100);
		memcpy(header + (pick & 1 ? 157 : 0), name, strlen(name));
		return len;
	case 4: /* a name of another, with more before or behind */
		memcpy(text, other, 100);
		memset(header + (pick & 1 ? 157 : 0), 0, 100);
		snprintf((char *)header + (pick & 1 ? 157 : 0), 100, pick & 2 ? "%.49s/%.49s" : "%.99s%.0s", text,
		         name);
		return len;
	case 5: /* a header for one more */
		return put_in(data, len, max, entries.start[one], 0, record, make_record(record, pick / 64, name));
	case 6: { /* the content, and the size with it */
		size_t size = field_number(header + 124, 12), room = max - len;
		if (size > bytes - BLOCK)
			return len;
		uint8_t *content = calloc(1, size + 4096 + BLOCK);
		if (!content)
			abort();
		memcpy(content, header + BLOCK, size);
		size_t now = LLVMFuzzerMutate(content, size, size + (room < 4096 ? 0 : 4096));
		memset(content + now, 0, blocks(now) - now);
		len = put_in(data, len, max, entries.start[one] + BLOCK, bytes - BLOCK, content, blocks(now));
		snprintf((char *)header + 124, 12, "%011o", (unsigned)now);
		free(content);
		return len;
	}
	case 7: /* a size that lies */
		snprintf((char *)header + 124, 12, "%011o", pick & 1 ? pick % 9000 : 1u << (pick / 2 % 32));
		return len;
	case 8: /* cut short */
		return len - pick % len;
	default: { /* a header's bytes */
		uint8_t copy[BLOCK];
		memcpy(copy, header, BLOCK);
		LLVMFuzzerMutate(copy, BLOCK, BLOCK);
		memcpy(header, copy, BLOCK);
		return len;
	}
	}
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max, unsigned seed)
{
	bool tar = len >= BLOCK && !memcmp(data + 257, "ustar", 5);
	if (!tar || seed % 8 == 0)
		len = LLVMFuzzerMutate(data, len, max);
	else
		len = mutate_entries(data, len, max, seed / 8);
	if (tar && seed % 16 != 9)
		mend_sums(data, len);
	return len;
}
