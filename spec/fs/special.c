/* FIFOs, sockets and device nodes in the folder; change notices. */
#include "posix.h"

#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

static int write_fifo(unsigned unused)
{
	(void)unused;
	int fd = (int)NEED(open("fifo", O_WRONLY));
	write_all(fd, "through", 7);
	return 0;
}

static void fifo(void)
{
	NEED(mkfifo("fifo", 0644));
	IS(S_ISFIFO(status_of("fifo").st_mode), true);
	FAILS(open("fifo", O_WRONLY | O_NONBLOCK), ENXIO);
	FAILS(mkfifo("fifo", 0644), EEXIST);
	pid_t pid = start(write_fifo, 0);
	int fd = (int)NEED(open("fifo", O_RDONLY));
	char text[8] = "";
	IS(read(fd, text, 7), 7);
	IS(strcmp(text, "through"), 0);
	IS(join(pid), 0);
	IS(read(fd, text, 1), 0);
	IS(status_of("fifo").st_size, 0);
	NEED(rename("fifo", "moved"));
	IS(S_ISFIFO(status_of("moved").st_mode), true);
}

static void in_socket(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "socket" };
	int server = (int)NEED(socket(AF_UNIX, SOCK_STREAM, 0)), client = (int)NEED(socket(AF_UNIX, SOCK_STREAM, 0));
	NEED(bind(server, (struct sockaddr *)&address, sizeof address));
	IS(S_ISSOCK(status_of("socket").st_mode), true);
	int second = (int)NEED(socket(AF_UNIX, SOCK_STREAM, 0));
	FAILS(bind(second, (struct sockaddr *)&address, sizeof address), EADDRINUSE);
	FAILS(connect(client, (struct sockaddr *)&address, sizeof address), ECONNREFUSED);
	NEED(listen(server, 1));
	FAILS(open("socket", O_RDWR), ENXIO);
	NEED(connect(client, (struct sockaddr *)&address, sizeof address));
	int end = (int)NEED(accept(server, NULL, NULL));
	write_all(client, "hello", 5);
	char text[6] = "";
	IS(read(end, text, 5), 5);
	IS(strcmp(text, "hello"), 0);
	NEED(close(server));
	NEED(unlink("socket"));
	FAILS(connect(second, (struct sockaddr *)&address, sizeof address), ENOENT);
}

static void nodes(void)
{
	struct statvfs status;
	NEED(statvfs(".", &status));
	NEED(chmod(".", 0777));
	NEED(mknod("file", S_IFREG | 0600, 0));
	IS(S_ISREG(status_of("file").st_mode), true);
	NEED(mknod("fifo", S_IFIFO | 0600, 0));
	IS(S_ISFIFO(status_of("fifo").st_mode), true);
	NEED(mknod("socket", S_IFSOCK | 0600, 0));
	IS(S_ISSOCK(status_of("socket").st_mode), true);
	AS(1000, 1000)
	FAILS(mknod("null", S_IFCHR | 0600, makedev(1, 3)), EPERM);
	if (mknod("null", S_IFCHR | 0600, makedev(1, 3)) < 0 && errno == EPERM)
		CANNOT("device nodes are refused here");
	IS(S_ISCHR(status_of("null").st_mode), true);
	IS(major(status_of("null").st_rdev), 1);
	IS(minor(status_of("null").st_rdev), 3);
	if (status.f_flag & ST_NODEV) {
		FAILS(open("null", O_WRONLY), EACCES);
	} else {
		int fd = (int)NEED(open("null", O_WRONLY));
		IS(write(fd, "x", 1), 1);
	}
}

static void notices(void)
{
	int fd = (int)NEED(inotify_init1(IN_NONBLOCK));
	NEED(inotify_add_watch(fd, ".", IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE));
	make_file("a", "text");
	NEED(rename("a", "b"));
	NEED(unlink("b"));
	static const uint32_t expected[] = { IN_CREATE, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_DELETE };
	char buffer[4096] __attribute__((aligned(8)));
	ssize_t bytes = NEED(read(fd, buffer, sizeof buffer));
	size_t count = 0;
	for (ssize_t at = 0; at < bytes && count < 5; count++) {
		struct inotify_event *event = (struct inotify_event *)(buffer + at);
		IS(event->mask, expected[count]);
		IS(strcmp(event->name, count < 3 ? "a" : "b"), 0);
		at += (ssize_t)(sizeof *event + event->len);
	}
	IS(count, 5);
}

static const struct check checks[] = {
	{ "fifo", fifo }, { "socket", in_socket }, { "nodes", nodes }, { "notices", notices }, { 0 },
};
const struct check_group special_group = { "special", checks };
