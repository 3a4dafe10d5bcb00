/* Whose files are: chown, and the set-ID bits that must not outlive it or a write. */
#include "posix.h"

#include <grp.h>

#define OWNER    1000
#define STRANGER 1002
#define GROUP    2000

static void set_owner(void)
{
	make_file("file", "x");
	NEED(symlink("file", "link"));
	NEED(chown("file", OWNER, GROUP));
	IS(status_of("file").st_uid, OWNER);
	IS(status_of("file").st_gid, GROUP);
	NEED(chown("file", (uid_t)-1, 7));
	IS(status_of("file").st_uid, OWNER);
	IS(status_of("file").st_gid, 7);
	NEED(chown("file", 8, (gid_t)-1));
	IS(status_of("file").st_uid, 8);
	IS(status_of("file").st_gid, 7);
	NEED(lchown("link", 9, 10));
	IS(status_of("link").st_uid, 9);
	IS(status_of("file").st_uid, 8);
	NEED(chown("link", 11, 12));
	IS(status_of("link").st_uid, 9);
	IS(status_of("file").st_uid, 11);
	int fd = (int)NEED(open("file", O_RDONLY));
	NEED(fchown(fd, 100000, 65534));
	IS(status_of("file").st_uid, 100000);
	IS(status_of("file").st_gid, 65534);
}

/* Files belong to who makes them. */
static void new_owner(void)
{
	NEED(chmod(".", 0777));
	AS(OWNER, GROUP)
	{
		make_file("file", "");
		NEED(mkdir("folder", 0755));
		NEED(symlink("file", "link"));
		NEED(mkfifo("fifo", 0644));
	}
	static const char *const names[] = { "file", "folder", "link", "fifo" };
	for (size_t i = 0; i < 4; i++) {
		IS(status_of(names[i]).st_uid, OWNER);
		IS(status_of(names[i]).st_gid, GROUP);
	}
}

static void strangers(void)
{
	make_file("file", "x");
	NEED(chown("file", OWNER, OWNER));
	NEED(chmod("file", 0666));
	AS(STRANGER, STRANGER)
	{
		FAILS(chmod("file", 0777), EPERM);
		FAILS(chown("file", STRANGER, (gid_t)-1), EPERM);
		FAILS(chown("file", (uid_t)-1, STRANGER), EPERM);
	}
	AS(OWNER, OWNER)
	{
		IS(chmod("file", 0600), 0);
		FAILS(chown("file", STRANGER, (gid_t)-1), EPERM);
		FAILS(chown("file", (uid_t)-1, GROUP), EPERM);
		IS(chown("file", OWNER, OWNER), 0);
	}
	/* The owner may give it to a group of theirs. */
	gid_t group = GROUP;
	NEED(setgroups(1, &group));
	NEED(setegid(OWNER));
	NEED(seteuid(OWNER));
	IS(chown("file", (uid_t)-1, GROUP), 0);
	NEED(seteuid(0));
	IS(status_of("file").st_gid, GROUP);
}

static void make_set_id(unsigned mode)
{
	make_file("file", "0123456789");
	NEED(chown("file", OWNER, GROUP));
	NEED(chmod("file", mode));
	IS(mode_of("file"), mode);
}

static void cleared_by_chown(void)
{
	make_set_id(06755);
	NEED(chown("file", STRANGER, (gid_t)-1));
	IS(mode_of("file"), 0755);
	/* Without x for the group, set-GID once meant mandatory locks. */
	make_set_id(06745);
	NEED(chown("file", STRANGER, (gid_t)-1));
	IS(mode_of("file") & S_ISUID, 0);
	/* A folder's mean something else. */
	NEED(mkdir("folder", 0755));
	NEED(chmod("folder", 06755));
	NEED(chown("folder", STRANGER, GROUP));
	IS(mode_of("folder"), 06755);
}

static void cleared_by_write(void)
{
	make_set_id(06777);
	AS(STRANGER, STRANGER)
	{
		int fd = (int)NEED(open("file", O_WRONLY));
		IS(mode_of("file"), 06777);
		IS(write(fd, "x", 1), 1);
		IS(mode_of("file"), 0777);
		NEED(close(fd));
	}
	make_set_id(06777);
	AS(STRANGER, STRANGER)
	{
		int fd = (int)NEED(open("file", O_WRONLY | O_APPEND));
		IS(write(fd, "x", 1), 1);
		NEED(close(fd));
	}
	IS(mode_of("file"), 0777);
	TEXT("file", "0123456789x");
}

static void cleared_by_truncate(void)
{
	make_set_id(06777);
	AS(STRANGER, STRANGER)
	NEED(truncate("file", 3));
	IS(mode_of("file"), 0777);
	make_set_id(06777);
	AS(STRANGER, STRANGER)
	{
		int fd = (int)NEED(open("file", O_WRONLY));
		NEED(ftruncate(fd, 2));
		NEED(close(fd));
	}
	IS(mode_of("file"), 0777);
	make_set_id(06777);
	AS(STRANGER, STRANGER)
	NEED(close((int)NEED(open("file", O_WRONLY | O_TRUNC))));
	IS(mode_of("file"), 0777);
	IS(status_of("file").st_size, 0);
}

/* Who may set the bits anyway (CAP_FSETID) does not lose them. */
static void kept_for_root(void)
{
	make_set_id(06755);
	int fd = (int)NEED(open("file", O_WRONLY));
	IS(write(fd, "x", 1), 1);
	NEED(close(fd));
	IS(mode_of("file"), 06755);
}

static void set_gid_folder(void)
{
	NEED(mkdir("folder", 0755));
	NEED(chown("folder", OWNER, GROUP));
	NEED(chmod("folder", 02777));
	AS(STRANGER, STRANGER)
	{
		make_file("folder/file", "");
		NEED(mkdir("folder/inside", 0755));
		NEED(symlink("x", "folder/link"));
	}
	IS(status_of("folder/file").st_uid, STRANGER);
	IS(status_of("folder/file").st_gid, GROUP);
	IS(status_of("folder/link").st_gid, GROUP);
	IS(status_of("folder/inside").st_gid, GROUP);
	IS(mode_of("folder/inside"), 02755);
	IS(mode_of("folder/file"), 0644);
}

/* Set-GID for a group that one is not in is not to be had. */
static void foreign_group(void)
{
	make_file("file", "");
	NEED(chown("file", OWNER, GROUP));
	AS(OWNER, OWNER)
	NEED(chmod("file", 02755));
	IS(mode_of("file"), 0755);
	AS(OWNER, GROUP)
	NEED(chmod("file", 02755));
	IS(mode_of("file"), 02755);
}

static const struct check checks[] = {
	{ "chown", set_owner },
	{ "new-files", new_owner },
	{ "strangers", strangers },
	{ "set-id-cleared-by-chown", cleared_by_chown },
	{ "set-id-cleared-by-write", cleared_by_write },
	{ "set-id-cleared-by-truncate", cleared_by_truncate },
	{ "set-id-kept-for-root", kept_for_root },
	{ "set-gid-folder", set_gid_folder },
	{ "set-gid-of-foreign-group", foreign_group },
	{ 0 },
};
const struct check_group owners_group = { "owners", checks };
