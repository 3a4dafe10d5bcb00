#include "rootfs/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define BUCKETS_FIRST 1024u

static int no_memory(struct sm_error *err)
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

static struct sm_tree_name *name_find(const struct sm_tree *tree, const struct sm_tree_node *directory,
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

static struct sm_tree_name *name_alloc(struct sm_tree *tree, const char *name, size_t len)
{
	struct sm_tree_name *made = sm_arena_alloc(&tree->arena, sizeof *made + len + 1);
	if (made) {
		made->len = (uint8_t)len;
		memcpy(made->name, name, len);
	}
	return made;
}

/* The name in the directory, made when there is none. */
static int name_get(struct sm_tree *tree, struct sm_tree_node *directory, const char *name, size_t len,
                    struct sm_tree_name **ret_name, struct sm_error *err)
{
	*ret_name = name_find(tree, directory, name, len);
	if (*ret_name)
		return 0;
	if (tree->nnames >= tree->max_names)
		return sm_error_set(err, E2BIG, "the layer has more than %u names", tree->max_names);
	if (tree->nnames >= tree->nbuckets && buckets_grow(tree) < 0)
		return no_memory(err);
	struct sm_tree_name *made = name_alloc(tree, name, len);
	if (!made)
		return no_memory(err);
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

static struct sm_tree_node *node_alloc(struct sm_tree *tree, uint32_t mode)
{
	struct sm_tree_node *node = sm_arena_alloc(&tree->arena, sizeof *node);
	if (node)
		node->mode = mode;
	return node;
}

/* Put `node` at the name.  A directory that takes the place of another kind of file is not merged with what lower
 * layers have there: unpacked one after the other, that file would have replaced it. */
static void name_set(struct sm_tree_name *name, struct sm_tree_node *node)
{
	if (S_ISDIR(node->mode)) {
		if (name->node && !S_ISDIR(name->node->mode))
			name->hides_lower = true;
		node->directory.parent = name->directory;
	}
	name->node = node;
}

/* The directory at the name, made when nothing is there. */
static int directory_at(struct sm_tree *tree, struct sm_tree_name *name, struct sm_tree_node **ret_directory,
                        struct sm_error *err)
{
	if (!name->node) {
		struct sm_tree_node *made = node_alloc(tree, S_IFDIR | 0755);
		if (!made)
			return no_memory(err);
		name_set(name, made);
	}
	char shown[SM_TREE_SHOWN_MAX];
	if (S_ISLNK(name->node->mode))
		return sm_error_set(err, EBADMSG, "path goes through the symlink '%s'",
		                    sm_tree_path_shown(name->name, shown));
	if (!S_ISDIR(name->node->mode))
		return sm_error_set(err, EBADMSG, "path goes through '%s', which is no directory",
		                    sm_tree_path_shown(name->name, shown));
	*ret_directory = name->node;
	return 0;
}

/* Walk to the directory that holds the path's last component, making what is missing; *ret_name is the
 * name there, or NULL for the root. */
static int walk(struct sm_tree *tree, const char *path, struct sm_tree_name **ret_name, struct sm_error *err)
{
	struct sm_tree_node *directory = tree->root;
	*ret_name = NULL;
	while (*path) {
		size_t len = strcspn(path, "/");
		struct sm_tree_name *name;
		int code = name_get(tree, directory, path, len, &name, err);
		if (code < 0)
			return code;
		if (!path[len]) {
			*ret_name = name;
			return 0;
		}
		code = directory_at(tree, name, &directory, err);
		if (code < 0)
			return code;
		path += len + 1;
	}
	return 0;
}

/* Like walk, but makes nothing: an absent path gives NULL. */
static int find(const struct sm_tree *tree, const char *path, struct sm_tree_node **ret_node, struct sm_error *err)
{
	char shown[SM_TREE_SHOWN_MAX];
	*ret_node = tree->root;
	while (*path) {
		if (S_ISLNK((*ret_node)->mode))
			return sm_error_set(err, EBADMSG, "hard link target goes through a symlink before '%s'",
			                    sm_tree_path_shown(path, shown));
		size_t len = strcspn(path, "/");
		struct sm_tree_name *name = S_ISDIR((*ret_node)->mode) ? name_find(tree, *ret_node, path, len) : NULL;
		*ret_node = name ? name->node : NULL;
		if (!*ret_node)
			return 0;
		path += len + !!path[len];
	}
	return 0;
}

static void node_attributes(struct sm_tree_node *node, const struct sm_tree_attributes *attributes)
{
	node->mode = attributes->mode;
	node->uid = attributes->uid;
	node->gid = attributes->gid;
	node->mtime = attributes->mtime;
	node->mtime_nsec = attributes->mtime_nsec;
	node->xattrs = attributes->xattrs;
	node->xattr_bytes = attributes->xattr_bytes;
}

int sm_tree_add(struct sm_tree *tree, const char *path, const struct sm_tree_attributes *attributes,
                struct sm_tree_node **ret_node, struct sm_error *err)
{
	struct sm_tree_name *name;
	int code = walk(tree, path, &name, err);
	if (code < 0)
		return code;
	if (!name && !S_ISDIR(attributes->mode))
		return sm_error_set(err, EBADMSG, "the root of the image can only be a directory");
	struct sm_tree_node *node = name ? name->node : tree->root;
	if (node && S_ISDIR(node->mode) && S_ISDIR(attributes->mode)) {
		node_attributes(node, attributes);
		*ret_node = node;
		return 0;
	}
	node = node_alloc(tree, attributes->mode);
	if (!node)
		return no_memory(err);
	node_attributes(node, attributes);
	if (S_ISREG(node->mode))
		node->size = attributes->size;
	if (S_ISCHR(node->mode) || S_ISBLK(node->mode)) {
		node->device.major = attributes->major;
		node->device.minor = attributes->minor;
	}
	if (S_ISLNK(node->mode)) {
		node->size = strlen(attributes->target);
		node->target = sm_arena_copy(&tree->arena, attributes->target, node->size + 1);
		if (!node->target)
			return no_memory(err);
	}
	name_set(name, node);
	*ret_node = node;
	return 0;
}

int sm_tree_link(struct sm_tree *tree, const char *path, const char *target, struct sm_error *err)
{
	char shown[SM_TREE_SHOWN_MAX];
	struct sm_tree_node *node;
	int code = find(tree, target, &node, err);
	if (code < 0)
		return code;
	sm_tree_path_shown(target, shown);
	if (!node)
		return sm_error_set(err, EBADMSG, "hard link target '%s' is not in this layer", shown);
	if (S_ISDIR(node->mode))
		return sm_error_set(err, EBADMSG, "hard link target '%s' is a directory", shown);
	struct sm_tree_name *name;
	code = walk(tree, path, &name, err);
	if (code < 0)
		return code;
	if (!name)
		return sm_error_set(err, EBADMSG, "the root of the image can only be a directory");
	name_set(name, node);
	return 0;
}

int sm_tree_hide(struct sm_tree *tree, const char *path, struct sm_error *err)
{
	struct sm_tree_name *name;
	int code = walk(tree, path, &name, err);
	if (code == 0)
		name->hides_lower = true;
	return code;
}

static int make_directory(struct sm_tree *tree, const char *path, struct sm_tree_name **ret_name, struct sm_error *err)
{
	struct sm_tree_node *directory;
	int code = walk(tree, path, ret_name, err);
	return code < 0 || !*ret_name ? code : directory_at(tree, *ret_name, &directory, err);
}

int sm_tree_directory(struct sm_tree *tree, const char *path, struct sm_error *err)
{
	struct sm_tree_name *name;
	return make_directory(tree, path, &name, err);
}

int sm_tree_opaque(struct sm_tree *tree, const char *path, struct sm_error *err)
{
	struct sm_tree_name *name;
	int code = make_directory(tree, path, &name, err);
	if (code < 0)
		return code;
	if (name)
		name->hides_lower = true;
	else
		tree->root->opaque = true;
	return 0;
}

int sm_tree_new(size_t max_bytes, uint32_t max_names, struct sm_tree **ret_tree, struct sm_error *err)
{
	struct sm_tree *tree = calloc(1, sizeof *tree);
	if (!tree)
		return sm_error_sys(err, ENOMEM, "layer tree");
	sm_arena_init(&tree->arena, max_bytes);
	tree->max_names = max_names;
	tree->nbuckets = BUCKETS_FIRST;
	tree->buckets = calloc(tree->nbuckets, sizeof(struct sm_tree_name *));
	tree->root = node_alloc(tree, S_IFDIR | 0755);
	tree->dot = name_alloc(tree, ".", 1);
	tree->dot_dot = name_alloc(tree, "..", 2);
	int code = 0;
	if (!tree->buckets || !tree->root || !tree->dot || !tree->dot_dot)
		code = no_memory(err);
	else if (getrandom(tree->hash_key, sizeof tree->hash_key, 0) != (ssize_t)sizeof tree->hash_key)
		code = sm_error_sys(err, errno, "getrandom");
	if (code < 0) {
		sm_tree_free(tree);
		return code;
	}
	tree->root->directory.parent = tree->root;
	*ret_tree = tree;
	return 0;
}

void sm_tree_free(struct sm_tree *tree)
{
	if (!tree)
		return;
	sm_arena_done(&tree->arena);
	free(tree->buckets);
	free(tree);
}
