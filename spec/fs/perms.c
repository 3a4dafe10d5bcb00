/* Who may do what: mode bits, umask, folders, sticky folders, access(2), running programs. */
#include "posix.h"

#include <grp.h>
#include <sys/statvfs.h>

#define OWNER    1000
#define MEMBER   1001 /* of GROUP */
#define STRANGER 1002
#define GROUP    2000

static void mode_bits(void)
{
	static const unsigned modes[] = { 0,  0400, 0200, 0100,  040,   020,   010,  04,
		                          02, 01,   0777, 01644, 02755, 04755, 07777 };
	make_file("file", "");
	NEED(mkdir("folder", 0755));
	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
		NEED(chmod("file", modes[i]));
		IS(mode_of("file"), modes[i]);
		NEED(chmod("folder", modes[i]));
		IS(mode_of("folder"), modes[i]);
	}
	int fd = (int)NEED(open("file", O_RDONLY));
	NEED(fchmod(fd, 0640));
	IS(mode_of("file"), 0640);
	FAILS(chmod("none", 0644), ENOENT);
}

static void create_modes(void)
{
	static const struct {
		unsigned mask, mode, expected;
	} rows[] = {
		{ 0, 0777, 0777 }, { 022, 0666, 0644 }, { 077, 0777, 0700 }, { 0777, 0666, 0 }, { 027, 01777, 01750 }
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		umask(rows[i].mask);
		NEED(open("file", O_RDWR | O_CREAT | O_EXCL, rows[i].mode));
		NEED(mkdir("folder", rows[i].mode));
		NEED(mkfifo("fifo", rows[i].mode & 0777));
		IS(mode_of("file"), rows[i].expected);
		IS(mode_of("folder"), rows[i].expected);
		IS(mode_of("fifo"), rows[i].expected & 0777);
		NEED(unlink("file"));
		NEED(rmdir("folder"));
		NEED(unlink("fifo"));
	}
}

static int try_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);
	if (fd >= 0)
		close(fd);
	return fd < 0 ? -errno : 0;
}

/* Each class by its own bits alone: an owner without them is refused though others are not. */
static void classes(void)
{
	static const struct {
		unsigned uid, gid, shift;
	} who[] = { { OWNER, 1, 6 }, { MEMBER, GROUP, 3 }, { STRANGER, 1, 0 } };
	make_file("file", "x");
	NEED(chown("file", OWNER, GROUP));
	for (unsigned bits = 0; bits < 8; bits++)
		for (size_t i = 0; i < 3; i++) {
			unsigned mode = bits << who[i].shift;
			for (unsigned invert = 0; invert < 2; invert++) {
				/* The other classes have everything, or nothing. */
				NEED(chmod("file", invert ? mode | (0777 & ~(7u << who[i].shift)) : mode));
				AS(who[i].uid, who[i].gid)
				{
					IS(try_open("file", O_RDONLY), bits & 4 ? 0 : -EACCES);
					IS(try_open("file", O_WRONLY), bits & 2 ? 0 : -EACCES);
					IS(try_open("file", O_RDWR), (bits & 6) == 6 ? 0 : -EACCES);
				}
			}
		}
}

static void supplementary(void)
{
	make_file("file", "x");
	NEED(chown("file", OWNER, GROUP));
	NEED(chmod("file", 0060));
	gid_t groups[] = { 77, GROUP, 78 };
	NEED(setgroups(3, groups));
	NEED(setegid(1));
	NEED(seteuid(MEMBER));
	IS(try_open("file", O_RDWR), 0);
	NEED(seteuid(0));
	NEED(setgroups(1, groups));
	NEED(seteuid(MEMBER));
	IS(try_open("file", O_RDONLY), -EACCES);
	NEED(seteuid(0));
}

/* x to go through a folder, r to list it, wx to change it. */
static void folders(void)
{
	NEED(mkdir("folder", 0755));
	make_file("folder/file", "x");
	NEED(chmod("folder/file", 0666));
	NEED(chown("folder", OWNER, GROUP));
	for (unsigned bits = 0; bits < 8; bits++) {
		NEED(chmod("folder", bits << 6));
		AS(OWNER, 1)
		{
			IS(try_open("folder/file", O_RDONLY), bits & 1 ? 0 : -EACCES);
			IS(try_open("folder/none", O_RDONLY), bits & 1 ? -ENOENT : -EACCES);
			IS(try_open("folder", O_RDONLY | O_DIRECTORY), bits & 4 ? 0 : -EACCES);
			if ((bits & 3) == 3) {
				make_file("folder/new", "");
				IS(rename("folder/new", "folder/newer"), 0);
				IS(mkdir("folder/inside", 0755), 0);
				IS(rmdir("folder/inside"), 0);
				IS(symlink("x", "folder/link"), 0);
				IS(unlink("folder/link"), 0);
				IS(unlink("folder/newer"), 0);
			} else {
				FAILS(open("folder/new", O_WRONLY | O_CREAT, 0644), EACCES);
				FAILS(mkdir("folder/inside", 0755), EACCES);
				FAILS(symlink("x", "folder/link"), EACCES);
				FAILS(rename("folder/file", "folder/other"), EACCES);
				FAILS(unlink("folder/file"), EACCES);
			}
		}
	}
}

/* The mode counts from the next open on: neither at the creation nor afterwards is what is open taken back. */
static void open_stays(void)
{
	NEED(chmod(".", 0777));
	AS(OWNER, OWNER)
	{
		int fd = (int)NEED(open("file", O_RDWR | O_CREAT | O_EXCL, 0400));
		IS(write(fd, "text", 4), 4);
		IS(try_open("file", O_WRONLY), -EACCES);
		NEED(fchmod(fd, 0));
		IS(try_open("file", O_RDONLY), -EACCES);
		char text[5] = "";
		IS(pread(fd, text, 4, 0), 4);
		IS(memcmp(text, "text", 4), 0);
		NEED(close(fd));
	}
}

static void access_call(void)
{
	make_file("file", "x");
	NEED(chown("file", OWNER, GROUP));
	NEED(chmod("file", 0640));
	IS(access("file", R_OK | W_OK), 0);
	/* Even root runs only what somebody may. */
	FAILS(access("file", X_OK), EACCES);
	NEED(chmod("file", 0641));
	IS(access("file", X_OK), 0);
	NEED(chmod("file", 0640));
	FAILS(access("none", F_OK), ENOENT);
	FAILS(access("file/below", F_OK), ENOTDIR);
	AS(OWNER, 1)
	{
		IS(faccessat(AT_FDCWD, "file", R_OK | W_OK, AT_EACCESS), 0);
		FAILS(faccessat(AT_FDCWD, "file", X_OK, AT_EACCESS), EACCES);
		/* By the real user, who is root. */
		IS(access("file", R_OK), 0);
	}
	AS(STRANGER, GROUP)
	{
		IS(faccessat(AT_FDCWD, "file", R_OK, AT_EACCESS), 0);
		FAILS(faccessat(AT_FDCWD, "file", W_OK, AT_EACCESS), EACCES);
	}
	AS(STRANGER, 1)
	FAILS(faccessat(AT_FDCWD, "file", R_OK, AT_EACCESS), EACCES);
}

static void sticky(void)
{
	NEED(mkdir("folder", 0755));
	NEED(chmod("folder", 01777));
	NEED(mkdir("other", 0755));
	NEED(chmod("other", 0777));
	AS(OWNER, 1)
	{
		make_file("folder/file", "mine");
		NEED(mkdir("folder/inside", 0777));
	}
	AS(STRANGER, 1)
	{
		FAILS(unlink("folder/file"), EPERM);
		FAILS(rmdir("folder/inside"), EPERM);
		FAILS(rename("folder/file", "folder/taken"), EPERM);
		FAILS(rename("folder/file", "other/taken"), EPERM);
		make_file("other/file", "theirs");
		FAILS(rename("other/file", "folder/file"), EPERM);
		make_file("folder/second", "own");
		IS(unlink("folder/second"), 0);
	}
	TEXT("folder/file", "mine");
	AS(OWNER, 1)
	{
		IS(rename("folder/file", "folder/renamed"), 0);
		IS(unlink("folder/renamed"), 0);
	}
	/* The folder's owner may, too. */
	AS(STRANGER, 1)
	make_file("folder/file", "");
	NEED(chown("folder", MEMBER, 1));
	AS(MEMBER, 1)
	IS(unlink("folder/file"), 0);
}

static void execute(void)
{
	struct statvfs status;
	NEED(statvfs(".", &status));
	if (status.f_flag & ST_NOEXEC)
		CANNOT("mounted noexec");
	copy_program("program");
	IS(run_program("./program", "--exit-with", "42"), 42);
	NEED(chmod("program", 0644));
	IS(run_program("./program", "--exit-with", "42"), -EACCES);
	NEED(chmod("program", 0711));
	AS(STRANGER, 1)
	IS(run_program("./program", "--exit-with", "42"), 42);
	NEED(chmod("program", 0710));
	AS(STRANGER, 1)
	IS(run_program("./program", "--exit-with", "42"), -EACCES);
	make_file("script", "#!./program --exit-ids\n");
	NEED(chmod("script", 0755));
	NEED(chmod("program", 0755));
	/* "./script" as a number is 0, and so are both IDs. */
	IS(run_program("./script", NULL, NULL), 3);
}

/* What runs is not written to, and what is open for writing does not run. */
static void text_busy(void)
{
	copy_program("program");
	struct gate gate;
	NEED(pipe(gate.ends));
	char number[16];
	snprintf(number, sizeof number, "%d", gate.ends[0]);
	struct gate started = make_gate();
	pid_t pid = (pid_t)NEED(fork());
	if (pid == 0) {
		close(gate.ends[1]);
		execl("./program", "program", "--wait-for", number, (char *)NULL);
		_exit(1);
	}
	/* The writing end closes with the exec. */
	close(started.ends[1]);
	char byte;
	IS(read(started.ends[0], &byte, 1), 0);
	FAILS(open("program", O_WRONLY), ETXTBSY);
	open_gate(&gate);
	IS(join(pid), 0);
	int fd = (int)NEED(open("program", O_WRONLY | O_CLOEXEC));
	IS(run_program("./program", "--exit-with", "0"), -ETXTBSY);
	NEED(close(fd));
	IS(run_program("./program", "--exit-with", "0"), 0);
}

static void set_id_program(void)
{
	struct statvfs status;
	NEED(statvfs(".", &status));
	if (status.f_flag & (ST_NOSUID | ST_NOEXEC))
		CANNOT("mounted nosuid or noexec");
	copy_program("program");
	NEED(chown("program", OWNER, OWNER));
	NEED(chmod("program", 0755));
	IS(run_program("./program", "--exit-ids", "1000"), 0);
	NEED(chmod("program", 04755));
	IS(run_program("./program", "--exit-ids", "1000"), 1);
	NEED(chmod("program", 02755));
	IS(run_program("./program", "--exit-ids", "1000"), 2);
	NEED(chmod("program", 06755));
	IS(run_program("./program", "--exit-ids", "1000"), 3);
}

static const struct check checks[] = {
	{ "mode-bits", mode_bits },
	{ "create-modes", create_modes },
	{ "classes", classes },
	{ "supplementary-groups", supplementary },
	{ "folders", folders },
	{ "open-stays", open_stays },
	{ "access", access_call },
	{ "sticky", sticky },
	{ "execute", execute },
	{ "text-busy", text_busy },
	{ "set-id-program", set_id_program },
	{ 0 },
};
const struct check_group perms_group = { "perms", checks };
