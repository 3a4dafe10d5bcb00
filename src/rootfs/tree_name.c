/* The names of a layer, found through one keyed hash. */
#include "rootfs/tree_inside.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int sm_tree_no_memory(struct sm_error *err)
{
	if (errno == E2BIG)
		return sm_error_set(err, E2BIG, "the layer's file names and attributes need too much memory");
	return sm_error_sys(err, ENOMEM, "layer tree");
}

static uint64_t rotate(uint64_t value, int bits)
{
	return value << bits | value >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1], v[1] = rotate(v[1], 13) ^ v[0], v[0] = rotate(v[0], 32);
	v[2] += v[3], v[3] = rotate(v[3], 16) ^ v[2];
	v[0] += v[3], v[3] = rotate(v[3], 21) ^ v[0];
	v[2] += v[1], v[1] = rotate(v[1], 17) ^ v[2], v[2] = rotate(v[2], 32);
}

/* SipHash-1-3 over the directory's address and the name: without the key nobody can choose names that collide. */
static uint64_t name_hash(const struct sm_tree *tree, const struct sm_tree_node *directory, const char *name,
                          size_t len)
{
	uint64_t v[4] = { tree->hash_key[0] ^ 0x736f6d6570736575, tree->hash_key[1] ^ 0x646f72616e646f6d,
		          tree->hash_key[0] ^ 0x6c7967656e657261, tree->hash_key[1] ^ 0x7465646279746573 };
	uint64_t word = (uintptr_t)directory;
	for (;;) {
		v[3] ^= word;
		sip_round(v);
		v[0] ^= word;
		if (len < 8)
			break;
		memcpy(&word, name, 8);
		name += 8;
		len -= 8;
	}
	word = (uint64_t)len << 56;
	memcpy(&word, name, len);
	v[3] ^= word;
	sip_round(v);
	v[0] ^= word;
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

struct sm_tree_name *sm_tree_name_find(const struct sm_tree *tree, const struct sm_tree_node *directory,
                                       const char *name, size_t len)
{
	struct sm_tree_name *at = tree->buckets[name_hash(tree, directory, name, len) & (tree->nbuckets - 1)];
	while (at && (at->directory != directory || at->len != len || memcmp(at->name, name, len)))
		at = at->hash_next;
	return at;
}

static int buckets_grow(struct sm_tree *tree)
{
	uint32_t nbuckets = tree->nbuckets * 2;
	if (nbuckets * sizeof(struct sm_tree_name *) > tree->arena.max - tree->arena.total) {
		errno = E2BIG;
		return -E2BIG;
	}
	struct sm_tree_name **buckets = calloc(nbuckets, sizeof(struct sm_tree_name *));
	if (!buckets)
		return -ENOMEM;
	for (uint32_t i = 0; i < tree->nbuckets; i++) {
		struct sm_tree_name *next;
		for (struct sm_tree_name *at = tree->buckets[i]; at; at = next) {
			next = at->hash_next;
			uint64_t hash = name_hash(tree, at->directory, at->name, at->len);
			at->hash_next = buckets[hash & (nbuckets - 1)];
			buckets[hash & (nbuckets - 1)] = at;
		}
	}
	free(tree->buckets);
	tree->buckets = buckets;
	tree->nbuckets = nbuckets;
	return 0;
}

struct sm_tree_name *sm_tree_name_new(struct sm_tree *tree, const char *name, size_t len)
{
	struct sm_tree_name *made = sm_arena_alloc(&tree->arena, sizeof *made + len + 1);
	if (made) {
		made->len = (uint8_t)len;
		memcpy(made->name, name, len);
	}
	return made;
}

int sm_tree_name_get(struct sm_tree *tree, struct sm_tree_node *directory, const char *name, size_t len,
                     struct sm_tree_name **ret_name, struct sm_error *err)
{
	*ret_name = sm_tree_name_find(tree, directory, name, len);
	if (*ret_name)
		return 0;
	if (len > SM_TREE_NAME_MAX)
		return sm_error_set(err, ENAMETOOLONG, "a name has %zu bytes, at most %d fit", len, SM_TREE_NAME_MAX);
	if (tree->nnames >= tree->max_names)
		return sm_error_set(err, E2BIG, "the layer has more than %u names", tree->max_names);
	if (tree->nnames >= tree->nbuckets && buckets_grow(tree) < 0)
		return sm_tree_no_memory(err);
	struct sm_tree_name *made = sm_tree_name_new(tree, name, len);
	if (!made)
		return sm_tree_no_memory(err);
	uint64_t hash = name_hash(tree, directory, name, len);
	made->hash_next = tree->buckets[hash & (tree->nbuckets - 1)];
	tree->buckets[hash & (tree->nbuckets - 1)] = made;
	made->directory = directory;
	made->sibling = directory->directory.children;
	directory->directory.children = made;
	tree->nnames++;
	*ret_name = made;
	return 0;
}
