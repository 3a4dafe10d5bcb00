/* Who a process runs as, by the machine's /etc/passwd and /etc/group. */
#ifndef SM_GUEST_USER_H
#define SM_GUEST_USER_H

#include <stddef.h>
#include <sys/types.h>

#define SM_USER_GROUPS_MAX 64

struct sm_user {
	uid_t uid;
	gid_t gid;
	size_t ngroups;
	gid_t groups[SM_USER_GROUPS_MAX]; /* supplementary */
	char home[256];
};

/* `wish`: "" (root), NAME or UID, then optionally :GROUP or :GID.  A number needs no entry (then its group is 0 and its
 * home "/").  With an explicit group there are no supplementary ones.  0, or -errno with a message. */
int sm_user_find(const char *wish, struct sm_user *ret_user, char *message, size_t size);

#endif
