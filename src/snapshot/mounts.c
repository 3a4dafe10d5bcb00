#include "snapshot/mounts.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the list ----------------------------------------------------------------------------------------------- */

static void done(struct sm_source_mount *mount)
{
	free(mount->host);
	free(mount->guest);
	free(mount->name);
	free(mount->xattrs);
	*mount = (struct sm_source_mount){ 0 };
}

static char *copy_text(const char *text, bool *fine)
{
	char *copy = text ? strdup(text) : NULL;
	*fine = *fine && (copy || !text);
	return copy;
}

static int copy(const struct sm_source_mount *from, struct sm_source_mount *to, struct sm_error *err)
{
	bool fine = true;
	*to = *from;
	to->host = copy_text(from->host, &fine);
	to->guest = copy_text(from->guest, &fine);
	to->name = copy_text(from->name, &fine);
	to->xattrs = copy_text(from->xattrs, &fine);
	if (fine)
		return 0;
	done(to);
	return sm_error_set(err, ENOMEM, "mount %s: out of memory", from->guest);
}

/* "/a/b": no empty part, no "." and "..". */
static bool is_plain(const char *path)
{
	if (path[0] != '/' || !path[1] || strlen(path) >= PATH_MAX)
		return false;
	for (const char *part = path; *part;) {
		size_t len = strcspn(part + 1, "/");
		if (len == 0 || (len == 1 && part[1] == '.') || (len == 2 && !strncmp(part + 1, "..", 2)))
			return false;
		part += 1 + len;
	}
	return true;
}

/* The host path as it is now. */
static int look(struct sm_source_mount *mount, struct sm_error *err)
{
	struct stat st;
	char absolute[PATH_MAX];
	if (!realpath(mount->host, absolute) || stat(absolute, &st) < 0)
		return sm_error_sys(err, errno, "host path %s", mount->host);
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return sm_error_set(err, EINVAL, "host path %s: neither a folder nor a regular file", mount->host);
	bool fine = true;
	free(mount->host);
	free(mount->name);
	mount->host = copy_text(absolute, &fine);
	mount->name = S_ISREG(st.st_mode) ? copy_text(strrchr(absolute, '/') + 1, &fine) : NULL;
	return fine ? 0 : sm_error_set(err, ENOMEM, "out of memory");
}

const struct sm_source_mount *sm_source_mounts_find(const struct sm_source_mounts *mounts, const char *guest)
{
	for (unsigned i = 0; i < mounts->count; i++)
		if (!strcmp(mounts->list[i].guest, guest))
			return &mounts->list[i];
	return NULL;
}

static int append(struct sm_source_mounts *mounts, struct sm_source_mount *taken, struct sm_error *err)
{
	struct sm_source_mount *list = realloc(mounts->list, (mounts->count + 1) * sizeof *list);
	if (!list) {
		done(taken);
		return sm_error_set(err, ENOMEM, "mounts: out of memory");
	}
	mounts->list = list;
	mounts->list[mounts->count++] = *taken;
	return 0;
}

static int check(const struct sm_source_mounts *mounts, const struct sm_source_mount *mount, struct sm_error *err)
{
	if (mounts->count == SM_MOUNTS_MAX)
		return sm_error_set(err, E2BIG, "at most %d", SM_MOUNTS_MAX);
	if (!is_plain(mount->guest))
		return sm_error_set(err, EINVAL, "guest path '%s': an absolute one, without '.' and '..', is needed",
		                    mount->guest);
	if (sm_source_mounts_find(mounts, mount->guest))
		return sm_error_set(err, EEXIST, "guest path %s: there is a mount already", mount->guest);
	for (unsigned i = 0; i < mounts->count; i++)
		if (!strcmp(mounts->list[i].tag, mount->tag))
			return sm_error_set(err, EEXIST, "tag %s: that is %s's", mount->tag, mounts->list[i].guest);
	return 0;
}

int sm_source_mounts_add(struct sm_source_mounts *mounts, const struct sm_source_mount *wish, struct sm_error *err)
{
	struct sm_source_mount mount;
	int code = copy(wish, &mount, err);
	if (code < 0)
		return code;
	if (!mount.tag[0])
		snprintf(mount.tag, sizeof mount.tag, "mount%u", mounts->count);
	code = check(mounts, &mount, err);
	if (code == 0)
		code = look(&mount, err);
	if (code == 0)
		return append(mounts, &mount, err);
	done(&mount);
	return sm_error_context(err, "mount %u", mounts->count + 1);
}

int sm_source_mounts_copy(const struct sm_source_mounts *from, struct sm_source_mounts *to, struct sm_error *err)
{
	for (unsigned i = 0; i < from->count; i++) {
		struct sm_source_mount mount;
		int code = copy(&from->list[i], &mount, err);
		if (code == 0)
			code = append(to, &mount, err);
		if (code < 0)
			return code;
	}
	return 0;
}

int sm_source_mounts_rebind(struct sm_source_mounts *mounts, const struct sm_source_mount *wish, struct sm_error *err)
{
	struct sm_source_mount *old = (struct sm_source_mount *)(uintptr_t)sm_source_mounts_find(mounts, wish->guest);
	struct sm_source_mount mount;
	if (!old)
		return sm_error_set(err, ENOENT, "mount %s: there is none in the snapshot", wish->guest);
	int code = copy(wish, &mount, err);
	if (code < 0)
		return code;
	code = look(&mount, err);
	if (code == 0 && !mount.name != !old->name)
		code = sm_error_set(err, EINVAL, "host path %s: a %s is needed, as when the snapshot was made",
		                    mount.host, old->name ? "regular file" : "folder");
	/* The guest has bound what it knows by this name. */
	if (code == 0 && old->name && strcmp(old->name, mount.name))
		code =
		    sm_error_set(err, EINVAL, "host path %s: a file named %s is needed, as when the snapshot was made",
		                 mount.host, old->name);
	if (code < 0) {
		done(&mount);
		return sm_error_context(err, "mount %s", wish->guest);
	}
	memcpy(mount.tag, old->tag, sizeof mount.tag);
	mount.options.dax = old->options.dax;
	done(old);
	*old = mount;
	return 0;
}

void sm_source_mounts_cut(struct sm_source_mounts *mounts, unsigned count)
{
	while (mounts->count > count)
		done(&mounts->list[--mounts->count]);
}

void sm_source_mounts_done(struct sm_source_mounts *mounts)
{
	sm_source_mounts_cut(mounts, 0);
	free(mounts->list);
	*mounts = (struct sm_source_mounts){ 0 };
}

/* ---- as a record -------------------------------------------------------------------------------------------- */

#define MOUNTS_VERSION 1
static const uint32_t tag_mounts = SM_TAG('M', 'N', 'T', 'S');

void sm_source_mounts_put(struct sm_buf *buf, const struct sm_source_mounts *mounts)
{
	size_t record = sm_record_begin(buf, tag_mounts, MOUNTS_VERSION);
	sm_put_u32(buf, mounts->count);
	for (unsigned i = 0; i < mounts->count; i++) {
		const struct sm_source_mount *mount = &mounts->list[i];
		const struct sm_mount *options = &mount->options;
		sm_put_str(buf, mount->host);
		sm_put_str(buf, mount->guest);
		sm_put_str(buf, mount->name ? mount->name : "");
		sm_put_str(buf, mount->tag);
		sm_put_u8(buf, mount->xattrs != NULL);
		sm_put_str(buf, mount->xattrs ? mount->xattrs : "");
		sm_put_u8(buf, options->readonly);
		sm_put_u8(buf, options->writeback);
		sm_put_u8(buf, options->host_locks);
		sm_put_u8(buf, options->dax);
		sm_put_u8(buf, (uint8_t)options->symlinks);
		sm_put_u8(buf, (uint8_t)options->cache);
		sm_put_u8(buf, (uint8_t)options->owners);
		sm_put_u32(buf, options->nranges);
		for (unsigned j = 0; j < options->nranges; j++) {
			sm_put_u32(buf, options->ranges[j].guest);
			sm_put_u32(buf, options->ranges[j].host);
			sm_put_u32(buf, options->ranges[j].count);
		}
	}
	sm_record_end(buf, record);
}

static bool get_flag(struct sm_reader *in)
{
	uint8_t value = sm_get_u8(in);
	if (value > 1)
		in->failed = true;
	return value != 0;
}

static unsigned get_choice(struct sm_reader *in, unsigned last)
{
	uint8_t value = sm_get_u8(in);
	if (value > last)
		in->failed = true;
	return value;
}

/* Allocates nothing before all of it was there. */
static int get_mount(struct sm_reader *in, struct sm_source_mounts *mounts, struct sm_error *err)
{
	char host[PATH_MAX], guest[PATH_MAX], name[NAME_MAX + 1], xattrs[1024];
	struct sm_source_mount mount = { .host = host, .guest = guest };
	struct sm_mount *options = &mount.options;
	sm_get_str(in, host, sizeof host);
	sm_get_str(in, guest, sizeof guest);
	sm_get_str(in, name, sizeof name);
	sm_get_str(in, mount.tag, sizeof mount.tag);
	bool has_xattrs = get_flag(in);
	sm_get_str(in, xattrs, sizeof xattrs);
	options->readonly = get_flag(in);
	options->writeback = get_flag(in);
	options->host_locks = get_flag(in);
	options->dax = get_flag(in);
	options->symlinks = get_choice(in, SM_MOUNT_SYMLINKS_FOLLOW);
	options->cache = get_choice(in, SM_MOUNT_CACHE_ALWAYS);
	options->owners = get_choice(in, SM_MOUNT_OWNERS_PASSTHROUGH);
	options->nranges = sm_get_u32(in);
	if (options->nranges > SM_MOUNT_RANGES_MAX)
		in->failed = true;
	for (unsigned i = 0; i < options->nranges && !in->failed; i++) {
		options->ranges[i].guest = sm_get_u32(in);
		options->ranges[i].host = sm_get_u32(in);
		options->ranges[i].count = sm_get_u32(in);
	}
	if (in->failed || host[0] != '/' || !mount.tag[0] || strchr(name, '/'))
		return sm_error_set(err, EBADMSG, "mount list: malformed");
	mount.name = name[0] ? name : NULL;
	mount.xattrs = has_xattrs ? xattrs : NULL;
	int code = check(mounts, &mount, err);
	if (code < 0)
		return sm_error_set(err, EBADMSG, "mount list: guest path %s, tag %s", guest, mount.tag);
	struct sm_source_mount owned;
	code = copy(&mount, &owned, err);
	return code < 0 ? code : append(mounts, &owned, err);
}

int sm_source_mounts_get(struct sm_reader *reader, struct sm_source_mounts *ret, struct sm_error *err)
{
	struct sm_reader in;
	*ret = (struct sm_source_mounts){ 0 };
	int code = sm_record_open(reader, tag_mounts, MOUNTS_VERSION, "mount list", &in, err);
	if (code < 0)
		return code;
	uint32_t count = sm_get_u32(&in);
	for (uint32_t i = 0; i < count && code >= 0; i++)
		code = get_mount(&in, ret, err);
	if (code >= 0)
		code = sm_record_close(&in, "mount list", err);
	if (code < 0)
		sm_source_mounts_done(ret);
	return code;
}

/* ---- opened ------------------------------------------------------------------------------------------------- */

/* A single file's server has its folder: editors replace a file by renaming another one over it. */
int sm_source_mount_open(const struct sm_source_mount *mount, struct sm_mount *ret, struct sm_error *err)
{
	char folder[PATH_MAX];
	snprintf(folder, sizeof folder, "%s", mount->host);
	if (mount->name)
		*(strrchr(folder, '/') + (strrchr(folder, '/') == folder)) = 0;
	*ret = mount->options;
	ret->tag = mount->tag;
	ret->only = mount->name;
	ret->xattrs = mount->xattrs;
	ret->root_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int code = ret->root_fd < 0 ? -errno : 0;
	if (code == 0 && mount->name && faccessat(ret->root_fd, mount->name, F_OK, AT_SYMLINK_NOFOLLOW) < 0) {
		code = -errno;
		sm_fd_close(&ret->root_fd);
	}
	return code < 0 ? sm_error_sys(err, code, "mount %s: host path %s", mount->guest, mount->host) : 0;
}
