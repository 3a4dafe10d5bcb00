#include "user.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATABASE_MAX (4 << 20)
#define WISH_MAX     256

/* The image's file, so perhaps a FIFO, or endless: neither may stop the agent.  NULL counts as empty. */
static FILE *open_database(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return NULL;
	struct stat status;
	FILE *file = NULL;
	if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size <= DATABASE_MAX)
		file = fdopen(fd, "re");
	if (!file)
		close(fd);
	return file;
}

static bool parse_id(const char *text, unsigned *ret_id)
{
	if (!*text)
		return false;
	unsigned long long id = 0;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		id = id * 10 + (unsigned)(*text - '0');
		if (id > 0xfffffffeu) /* (uid_t)-1 means "unchanged" to the kernel */
			return false;
	}
	*ret_id = (unsigned)id;
	return true;
}

/* The entry of this name, or (with name NULL) of this uid. */
static bool find_passwd(const char *name, uid_t uid, struct sm_user *user, char *ret_name)
{
	FILE *file = open_database("/etc/passwd");
	const struct passwd *entry = NULL;
	while (file && (entry = fgetpwent(file)))
		if (name ? !strcmp(entry->pw_name, name) : entry->pw_uid == uid)
			break;
	if (entry) {
		user->uid = entry->pw_uid;
		user->gid = entry->pw_gid;
		if (entry->pw_dir[0] && strlen(entry->pw_dir) < sizeof user->home)
			memcpy(user->home, entry->pw_dir, strlen(entry->pw_dir) + 1);
		snprintf(ret_name, WISH_MAX, "%s", entry->pw_name);
	}
	if (file)
		fclose(file);
	return entry;
}

static bool find_group(const char *name, gid_t *ret_gid)
{
	FILE *file = open_database("/etc/group");
	const struct group *entry = NULL;
	while (file && (entry = fgetgrent(file)))
		if (!strcmp(entry->gr_name, name))
			break;
	if (entry)
		*ret_gid = entry->gr_gid;
	if (file)
		fclose(file);
	return entry;
}

static void find_supplementary(const char *name, struct sm_user *user)
{
	FILE *file = open_database("/etc/group");
	const struct group *entry;
	while (file && user->ngroups < SM_USER_GROUPS_MAX && (entry = fgetgrent(file)))
		for (char **member = entry->gr_mem; *member; member++)
			if (!strcmp(*member, name)) {
				user->groups[user->ngroups++] = entry->gr_gid;
				break;
			}
	if (file)
		fclose(file);
}

int sm_user_find(const char *wish, struct sm_user *ret_user, char *message, size_t size)
{
	*ret_user = (struct sm_user){ .home = "/" };
	char name[WISH_MAX];
	if ((size_t)snprintf(name, sizeof name, "%s", *wish ? wish : "0") >= sizeof name) {
		snprintf(message, size, "user '%.32s...': name is too long", wish);
		return -EINVAL;
	}
	char *group = strchr(name, ':');
	if (group)
		*group++ = 0;
	char found[WISH_MAX] = "";
	unsigned id;
	if (parse_id(name, &id)) {
		ret_user->uid = id;
		find_passwd(NULL, id, ret_user, found);
	} else if (!find_passwd(name, 0, ret_user, found)) {
		snprintf(message, size, "user '%s' is not in /etc/passwd", name);
		return -EINVAL;
	}
	if (!group) {
		if (found[0])
			find_supplementary(found, ret_user);
		return 0;
	}
	if (parse_id(group, &id)) {
		ret_user->gid = id;
	} else if (!find_group(group, &ret_user->gid)) {
		snprintf(message, size, "group '%s' is not in /etc/group", group);
		return -EINVAL;
	}
	return 0;
}
